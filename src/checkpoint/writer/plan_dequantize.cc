#include <fmt/format.h>

#include "checkpoint/writer/plan.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {

Result<Plan> PlanDequantize(const Checkpoint& source, DType dtype, int64_t max_shard_bytes) {
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} numbers were asked for; give BF16, F16 or F32", DTypeName(dtype)));
  }
  BILLFISH_ASSIGN_OR_RETURN(nlohmann::ordered_json config, PlainConfig(source));
  BILLFISH_ASSIGN_OR_RETURN(const std::vector<ModuleInfo> modules, source.Modules());
  Plan plan;
  for (const ModuleInfo& module : modules) {
    if (module.scheme.has_scale()) plan.items.push_back(DequantizeItem(module, dtype));
  }
  if (plan.items.empty()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} holds no quantised module; there is nothing to decode", source.path().string()));
  }
  // Loaders convert to the type that the configuration names; it must not undo the choice.
  const char* name = dtype == DType::kBF16 ? "bfloat16" : dtype == DType::kF16 ? "float16" : "float32";
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (config.contains(key)) config[key] = name;
  }
  plan.config = config.dump(2) + "\n";
  BILLFISH_RETURN_IF_ERROR(FinishPlan(source, max_shard_bytes, plan));
  return plan;
}

}  // namespace billfish::checkpoint
