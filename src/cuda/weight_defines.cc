#include "cuda/weight_defines.h"

namespace billfish::cuda {

std::vector<std::pair<std::string, std::string>> WeightDefines(const TileLayout& layout, bool half,
                                                               std::initializer_list<std::pair<const char*, int>> own) {
  std::vector<std::pair<std::string, std::string>> defines;
  const auto define = [&defines](const char* name, int value) { defines.emplace_back(name, std::to_string(value)); };
  define("BF_CODES", static_cast<int>(layout.codes));
  define("BF_SCALE", static_cast<int>(layout.scale));
  define("BF_GROUP", layout.group);
  define("BF_ZEROS", layout.zeros);
  define("BF_WIDE", layout.wide_scales);
  define("BF_ACT", half);
  for (const auto& [name, value] : own) define(name, value);
  return defines;
}

}  // namespace billfish::cuda
