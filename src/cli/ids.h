// Token ids from wherever a user has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billfish/status.h"

namespace billfish::cli {

/// `source` is a .npy file, a .safetensors file with one integer tensor (or one named "input_ids" or "ids"), or a list "1,2,3".
Result<std::vector<int32_t>> ReadIds(const std::string& source);

/// The whole file as text; "-" is standard input. kNotFound, kIo.
Result<std::string> ReadText(const std::string& path);

}  // namespace billfish::cli
