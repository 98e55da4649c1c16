#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/status_macros.h"
#include "model/tensor_source.h"

namespace billfish::model {

bool CheckpointSource::IsPlain(const std::string& module) const {
  const Result<ModuleInfo> info = checkpoint_.Describe(module);
  return info.ok() && info->format == "plain";
}

Result<std::vector<float>> CheckpointSource::Vector(const std::string& tensor, int64_t size) const {
  BILLFISH_ASSIGN_OR_RETURN(std::vector<float> values, checkpoint_.ReadF32(tensor));
  if (static_cast<int64_t>(values.size()) != size) {
    return Status(ErrorCode::kCorruptFile, fmt::format("{} has the shape [{}]; config.json implies [{}]", tensor,
                                                       fmt::join(checkpoint_.Find(tensor)->shape, ", "), size));
  }
  return values;
}

Result<PackedWeight> CheckpointSource::Matrix(const std::string& module, int64_t E, int64_t N, int64_t K) const {
  BILLFISH_ASSIGN_OR_RETURN(const ModuleInfo info, checkpoint_.Describe(module));
  if (info.E != E || info.N != N || info.K != K) {
    return Status(ErrorCode::kCorruptFile,
                  fmt::format("{} has the shape [{}, {}, {}] (experts, outputs, inputs); config.json implies [{}, {}, {}]", module, info.E,
                              info.N, info.K, E, N, K));
  }
  return checkpoint_.LoadWeight(module);
}

}  // namespace billfish::model
