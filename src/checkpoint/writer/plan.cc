#include "checkpoint/writer/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

// Every key under which some software keeps what it did to the weights.
constexpr const char* kQuantizationKeys[] = {"quantization_config", "compression_config", "expert_dtype"};

bool EndsWith(const std::string& text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// Layers stay together and the source is read from front to back.
void SortAsStored(const Checkpoint& source, std::vector<Item>& items) {
  std::vector<std::pair<std::pair<int, size_t>, size_t>> keys;
  for (size_t i = 0; i < items.size(); ++i) {
    const TensorInfo* tensor = source.Find(items[i].inputs.front());
    keys.push_back({{tensor->shard, tensor->file_offset}, i});
  }
  std::sort(keys.begin(), keys.end());
  std::vector<Item> sorted;
  sorted.reserve(items.size());
  for (const auto& [place, i] : keys) sorted.push_back(std::move(items[i]));
  items = std::move(sorted);
}

Status LayOutShard(std::vector<Item>& items, OutputShard& shard) {
  std::vector<OutputTensor> tensors;
  for (size_t i = shard.first; i < shard.last; ++i) tensors.insert(tensors.end(), items[i].tensors.begin(), items[i].tensors.end());
  BILLFISH_ASSIGN_OR_RETURN(shard.layout, LayOutSafetensors(tensors, {{"format", "pt"}}));
  auto offset = shard.layout.offsets.begin();
  for (size_t i = shard.first; i < shard.last; ++i) {
    const auto end = offset + static_cast<std::ptrdiff_t>(items[i].tensors.size());
    items[i].offsets.assign(offset, end);
    offset = end;
  }
  return OkStatus();
}

void CutIntoShards(int64_t max_shard_bytes, Plan& plan) {
  uint64_t in_shard = 0;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const uint64_t bytes = plan.items[i].bytes();
    if (plan.shards.empty() || (in_shard > 0 && in_shard + bytes > static_cast<uint64_t>(max_shard_bytes))) {
      plan.shards.push_back({{}, i, i, {}});
      in_shard = 0;
    }
    plan.shards.back().last = i + 1;
    in_shard += bytes;
  }
  const size_t count = plan.shards.size();
  for (size_t i = 0; i < count; ++i) {
    plan.shards[i].name = count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
  }
}

std::string IndexText(const Plan& plan) {
  nlohmann::json map = nlohmann::json::object();
  for (const OutputShard& shard : plan.shards) {
    for (size_t i = shard.first; i < shard.last; ++i) {
      for (const OutputTensor& tensor : plan.items[i].tensors) map[tensor.name] = shard.name;
    }
  }
  const nlohmann::json index = {{"metadata", {{"total_size", plan.bytes()}}}, {"weight_map", std::move(map)}};
  return index.dump(2) + "\n";
}

}  // namespace

uint64_t Item::bytes() const {
  uint64_t sum = 0;
  for (const OutputTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

uint64_t Plan::bytes() const {
  uint64_t sum = 0;
  for (const Item& item : items) sum += item.bytes();
  return sum;
}

Status FinishPlan(const Checkpoint& source, int64_t max_shard_bytes, Plan& plan) {
  if (max_shard_bytes < 1) {
    return {ErrorCode::kInvalidArgument, fmt::format("shards of at most {} bytes were asked for; give at least 1", max_shard_bytes)};
  }
  std::set<std::string_view> read;
  for (const Item& item : plan.items) read.insert(item.inputs.begin(), item.inputs.end());
  std::vector<Item> copies;
  for (const TensorInfo& tensor : source.tensors()) {
    if (read.count(tensor.name) > 0) continue;
    Item item;
    item.source = tensor.name;
    item.tensors = {{tensor.name, tensor.dtype, tensor.shape}};
    item.inputs = {tensor.name};
    copies.push_back(std::move(item));
  }
  std::move(copies.begin(), copies.end(), std::back_inserter(plan.items));
  SortAsStored(source, plan.items);
  CutIntoShards(max_shard_bytes, plan);
  for (OutputShard& shard : plan.shards) BILLFISH_RETURN_IF_ERROR(LayOutShard(plan.items, shard));
  if (plan.shards.size() > 1) plan.index = IndexText(plan);
  return OkStatus();
}

Item DequantizeItem(const ModuleInfo& module, DType dtype) {
  Item item;
  item.action = Action::kDequantize;
  item.source = module.name;
  item.inputs = module.tensors;
  item.shape = {module.name, module.scheme, module.E, module.N, module.K};
  std::string name = module.name + ".weight";
  for (const std::string& tensor : module.tensors) {
    if (tensor == module.name) name = module.name;
    if (tensor == module.name + "_weight") name = tensor;
    // gpt-oss: the parameter itself, which that model stores with K first.
    if (EndsWith(tensor, "_blocks")) name = module.name, item.transposed = true;
  }
  const bool stacked = module.E > 1 || item.transposed;
  std::vector<int64_t> shape = {module.N, module.K};
  if (item.transposed) std::swap(shape[0], shape[1]);
  if (stacked) shape.insert(shape.begin(), module.E);
  item.tensors = {{name, dtype, shape}};
  return item;
}

Result<nlohmann::ordered_json> PlainConfig(const Checkpoint& source) {
  if (source.config_json().empty()) return nlohmann::ordered_json::object();
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(source.config_json(), nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return Status(ErrorCode::kCorruptFile, fmt::format("config.json of {} must hold a JSON object", source.path().string()));
  }
  for (const char* key : kQuantizationKeys) {
    config.erase(key);
    if (const auto text = config.find("text_config"); text != config.end() && text->is_object()) text->erase(key);
  }
  return config;
}

}  // namespace billfish::checkpoint
