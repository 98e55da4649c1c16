// The input is a whole safetensors file: whatever it holds, every tensor of an accepted one lies inside it.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto header = billfish::checkpoint::ParseSafetensors(std::as_bytes(std::span(data, size)));
  if (!header) return 0;
  for (const billfish::TensorInfo& tensor : header->tensors) {
    if (tensor.file_offset > size || tensor.bytes > size - tensor.file_offset) std::abort();
  }
  return 0;
}
