// Any bytes as a safetensors file: an error, or tensors that tile the file.
#include <cstdint>
#include <cstdlib>

#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto header = billfish::checkpoint::ParseSafetensors({reinterpret_cast<const std::byte*>(data), size});
  if (!header.ok()) {
    if (header.error().message().empty()) std::abort();
    return 0;
  }
  size_t bytes = 0;
  for (const billfish::TensorInfo& tensor : header->tensors) {
    if (tensor.file_offset > size || tensor.bytes > size - tensor.file_offset) std::abort();
    bytes += tensor.bytes;
  }
  if (bytes > size) std::abort();
  return 0;
}
