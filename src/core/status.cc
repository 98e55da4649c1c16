#include "billfish/status.h"

#include <array>

namespace billfish {

std::string_view ErrorCodeName(ErrorCode code) {
  static constexpr std::array<std::string_view, 11> kNames = {
      "ok",        "invalid argument", "shape mismatch", "unsupported",  "not found", "corrupt file",
      "i/o error", "out of memory",    "compile error",  "device error", "cancelled"};
  return kNames[static_cast<size_t>(code)];
}

Status Status::WithContext(std::string_view prefix) const {
  if (ok()) return *this;
  return {code_, std::string(prefix) + ": " + message_};
}

}  // namespace billfish
