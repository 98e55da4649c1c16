// The input is config.json, a zero byte, and generation_config.json.
#include <algorithm>
#include <cstdint>
#include <string>

#include "model/architecture.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(text.find('\0'), text.size());
  (void)billfish::model::ResolveModel(text.substr(0, split), split < text.size() ? text.substr(split + 1) : "").has_value();
  return 0;
}
