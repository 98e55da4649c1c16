#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "checkpoint/pattern.h"
#include "checkpoint/writer/module_kind.h"
#include "checkpoint/writer/plan.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

// A value of config.json or of its text_config; null if neither has it.
Json ConfigValue(const Json& config, const char* key) {
  if (const auto it = config.find(key); it != config.end()) return *it;
  if (const auto text = config.find("text_config"); text != config.end() && text->is_object()) {
    if (const auto it = text->find(key); it != text->end()) return *it;
  }
  return nullptr;
}

Result<bool> IsIgnored(const std::string& module, const std::vector<std::string>& ignore) {
  for (const std::string& entry : ignore) {
    if (entry == module) return true;
    if (entry.rfind("re:", 0) != 0) continue;
    BILLFISH_ASSIGN_OR_RETURN(const bool matches, MatchesAtStart(entry.substr(3), module));
    if (matches) return true;
  }
  return false;
}

// Whether a stored module needs no new rounding. The dtype of int4 scales is the source's own, and a group as long as the row is the row.
bool SameNumbers(const ModuleInfo& module, QuantScheme asked) {
  if (asked.codes == CodeBook::kInt4) asked.scale = module.scheme.scale;
  if (asked.codes == CodeBook::kInt4 && module.scheme.group == 0 && asked.group == module.K) asked.group = 0;
  return module.scheme == asked;
}

Status CheckLayout(const QuantizeOptions& options, bool gpt_oss, const Checkpoint& source) {
  const Encoding& encoding = EncodingOf(options.layout);
  if (!encoding.check_scheme(options.scheme).ok()) return SchemeError(options.layout, options.scheme);
  if (options.layout != QuantLayout::kGptOss) return OkStatus();
  if (!gpt_oss) {
    return {ErrorCode::kInvalidArgument, fmt::format("the layout gpt-oss was asked for and {} is no gpt_oss model by its config.json; "
                                                     "use the layout compressed-tensors",
                                                     source.path().string())};
  }
  if (options.modules != QuantModules::kExperts) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("the layout gpt-oss was asked for with modules {}; it holds experts only", QuantModulesName(options.modules))};
  }
  return OkStatus();
}

// The tensor of an unquantised module.
std::string PlainTensor(const ModuleInfo& module) {
  for (const std::string& tensor : module.tensors) {
    if (tensor == module.name || tensor == module.name + ".weight" || tensor == module.name + "_weight") return tensor;
  }
  return {};
}

Result<Item> QuantizeItem(const ModuleInfo& module, const QuantizeOptions& options, bool gpt_oss) {
  Item item;
  item.source = module.name;
  item.inputs = module.tensors;
  item.shape = {module.name, options.scheme, module.E, module.N, module.K};
  if (!module.scheme.has_scale()) {
    item.action = Action::kQuantize;
    item.plain_tensor = PlainTensor(module);
    item.transposed = gpt_oss && KindOfModule(module.name) == ModuleKind::kExpert;
    if (item.transposed) std::swap(item.shape.N, item.shape.K);
  } else if (SameNumbers(module, options.scheme)) {
    item.action = Action::kRewrite;
    item.shape.scheme = module.scheme;
  } else if (options.requantize) {
    item.action = Action::kQuantize;
  } else {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{} already is {} ({}); quantising it to {} would lose accuracy a second time: start from the unquantised "
                              "model, or allow it with requantize",
                              module.name, module.scheme.Name(), module.format, options.scheme.Name()));
  }
  const Encoding& encoding = EncodingOf(options.layout);
  BILLFISH_RETURN_IF_ERROR(encoding.check_shape(item.shape));
  item.tensors = encoding.tensors(item.shape);
  return item;
}

}  // namespace

Result<Plan> PlanQuantize(const Checkpoint& source, const QuantizeOptions& options) {
  BILLFISH_ASSIGN_OR_RETURN(Json config, PlainConfig(source));
  const bool gpt_oss = ConfigValue(config, "model_type") == "gpt_oss";
  BILLFISH_RETURN_IF_ERROR(CheckLayout(options, gpt_oss, source));
  const bool tied = ConfigValue(config, "tie_word_embeddings") == true;

  BILLFISH_ASSIGN_OR_RETURN(const std::vector<ModuleInfo> modules, source.Modules());
  Plan plan;
  WrittenModules written;
  written.scheme = options.scheme;
  for (const ModuleInfo& module : modules) {
    const ModuleKind kind = KindOfModule(module.name);
    bool selected = Selects(options.modules, kind, tied);
    if (selected) {
      BILLFISH_ASSIGN_OR_RETURN(const bool ignored, IsIgnored(module.name, options.ignore));
      selected = !ignored;
    }
    if (selected) {
      BILLFISH_ASSIGN_OR_RETURN(Item item, QuantizeItem(module, options, gpt_oss));
      plan.items.push_back(std::move(item));
      written.quantized.push_back(module.name);
      written.head = written.head || kind == ModuleKind::kHead;
      continue;
    }
    if (module.scheme.has_scale()) plan.items.push_back(DequantizeItem(module, DType::kBF16));
    if (module.E == 1 && !IsEmbedding(module.name)) written.plain_linears.push_back(module.name);
  }
  if (written.quantized.empty()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} has nothing to quantise: none of its {} matrices counts as {}{}", source.path().string(), modules.size(),
                              QuantModulesName(options.modules), options.ignore.empty() ? "" : " and is not ignored"));
  }
  // A tied head is no tensor of the file, but a linear of the model.
  std::vector<std::string>& plain = written.plain_linears;
  if (!written.head && std::find(plain.begin(), plain.end(), "lm_head") == plain.end()) plain.push_back("lm_head");
  std::sort(plain.begin(), plain.end());

  config["quantization_config"] = EncodingOf(options.layout).config(written);
  plan.config = config.dump(2) + "\n";
  BILLFISH_RETURN_IF_ERROR(FinishPlan(source, options.max_shard_bytes, plan));
  return plan;
}

}  // namespace billfish::checkpoint
