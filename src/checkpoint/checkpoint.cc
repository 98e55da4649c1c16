#include "billfish/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "checkpoint/folder.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/reader.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_roles.h"
#include "core/float_formats.h"
#include "core/status_macros.h"

namespace billfish {

using checkpoint::ModuleTensors;
using checkpoint::ReadContext;
using checkpoint::Reader;

struct Checkpoint::Impl {
  std::filesystem::path path;
  std::vector<std::filesystem::path> shards;
  std::vector<Bytes> files;
  std::vector<TensorInfo> tensors;
  std::string config_json;
  checkpoint::QuantConfig quantization;
  std::map<std::string, ModuleTensors, std::less<>> modules;  // points into tensors

  Bytes BytesOf(const TensorInfo& tensor) const { return files[static_cast<size_t>(tensor.shard)].Slice(tensor.file_offset, tensor.bytes); }

  Result<ModuleInfo> Describe(const ModuleTensors& module) const {
    // Extents beside a zero are not bounded by the size of the file, so nothing may be computed from them.
    for (const TensorInfo* tensor : module.by_role) {
      if (tensor == nullptr || tensor->bytes > 0) continue;
      return Status(ErrorCode::kCorruptFile, fmt::format("{}: {} is empty", module.name, checkpoint::Describe(*tensor)));
    }
    BILLFISH_ASSIGN_OR_RETURN(const Reader* reader, checkpoint::FindReader(module));
    const auto bytes = [this](const TensorInfo& tensor) { return BytesOf(tensor); };
    BILLFISH_ASSIGN_OR_RETURN(ModuleInfo info, reader->describe(ReadContext{module, quantization, bytes}));
    info.name = module.name;
    for (const TensorInfo* tensor : module.by_role) {
      if (tensor == nullptr) continue;
      info.bytes += tensor->bytes;
      info.tensors.push_back(tensor->name);
    }
    return info;
  }
};

namespace {

constexpr size_t kMaxConfigBytes = 16u << 20;

// Reads the header of every shard and checks it against the index.
Status ReadShards(const checkpoint::Folder& folder, std::vector<Bytes>& files, std::vector<TensorInfo>& tensors) {
  for (size_t shard = 0; shard < folder.shards.size(); ++shard) {
    const std::string name = folder.shards[shard].filename().string();
    BILLFISH_ASSIGN_OR_RETURN(Bytes file, checkpoint::MapFile(folder.shards[shard]));
    Result<checkpoint::SafetensorsHeader> header = checkpoint::ParseSafetensors(file.view());
    if (!header.ok()) return header.error().WithContext(name);
    for (TensorInfo& tensor : header->tensors) {
      tensor.shard = static_cast<int>(shard);
      if (!folder.weight_map.empty()) {
        const auto entry = folder.weight_map.find(tensor.name);
        if (entry == folder.weight_map.end() || entry->second != tensor.shard) continue;  // only what the index names counts
      }
      tensors.push_back(std::move(tensor));
    }
    files.push_back(std::move(file));
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  const auto twin =
      std::adjacent_find(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
  if (twin != tensors.end()) {
    return {ErrorCode::kCorruptFile,
            fmt::format("the tensor {} is in {} and in {}", twin->name, folder.shards[static_cast<size_t>(twin->shard)].filename().string(),
                        folder.shards[static_cast<size_t>(std::next(twin)->shard)].filename().string())};
  }
  for (const auto& [name, shard] : folder.weight_map) {
    const auto it =
        std::lower_bound(tensors.begin(), tensors.end(), name, [](const TensorInfo& t, const std::string& n) { return t.name < n; });
    if (it == tensors.end() || it->name != name) {
      return {ErrorCode::kCorruptFile, fmt::format("the index puts tensor {} into {}, which does not hold it", name,
                                                   folder.shards[static_cast<size_t>(shard)].filename().string())};
    }
  }
  return OkStatus();
}

}  // namespace

Checkpoint::Checkpoint() = default;
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

Result<Checkpoint> Checkpoint::Open(const std::filesystem::path& path) {
  BILLFISH_ASSIGN_OR_RETURN(const checkpoint::Folder folder, checkpoint::OpenFolder(path));
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->shards = folder.shards;
  nlohmann::json config;
  if (Result<std::string> text = checkpoint::ReadText(folder.root / "config.json", kMaxConfigBytes); text.ok()) {
    BILLFISH_ASSIGN_OR_RETURN(config, checkpoint::ParseJson(*text, "config.json"));
    impl->config_json = std::move(*text);
  } else if (text.error().code() != ErrorCode::kNotFound) {
    return text.error();
  }
  BILLFISH_ASSIGN_OR_RETURN(impl->quantization, checkpoint::ReadQuantConfig(folder.root, config));
  BILLFISH_RETURN_IF_ERROR(ReadShards(folder, impl->files, impl->tensors));
  impl->modules = checkpoint::GroupModules(impl->tensors);
  Checkpoint result;
  result.impl_ = std::move(impl);
  return result;
}

const std::filesystem::path& Checkpoint::path() const { return impl_->path; }

std::span<const std::filesystem::path> Checkpoint::shards() const { return impl_->shards; }

std::span<const TensorInfo> Checkpoint::tensors() const { return impl_->tensors; }

const std::string& Checkpoint::config_json() const { return impl_->config_json; }

const TensorInfo* Checkpoint::Find(std::string_view tensor) const {
  const auto it = std::lower_bound(impl_->tensors.begin(), impl_->tensors.end(), tensor,
                                   [](const TensorInfo& t, std::string_view name) { return t.name < name; });
  return it != impl_->tensors.end() && it->name == tensor ? &*it : nullptr;
}

Result<Bytes> Checkpoint::Read(std::string_view tensor) const {
  const TensorInfo* info = Find(tensor);
  if (info == nullptr) return Status(ErrorCode::kNotFound, fmt::format("{} has no tensor {}", impl_->path.string(), tensor));
  return impl_->BytesOf(*info);
}

Result<std::vector<float>> Checkpoint::ReadF32(std::string_view tensor) const {
  const TensorInfo* info = Find(tensor);
  if (info == nullptr) return Status(ErrorCode::kNotFound, fmt::format("{} has no tensor {}", impl_->path.string(), tensor));
  const Bytes bytes = impl_->BytesOf(*info);
  std::vector<float> values(bytes.size() * 8 / static_cast<size_t>(DTypeBits(info->dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto load = [&]<class T>(T value) {
      std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
      return value;
    };
    switch (info->dtype) {
      case DType::kF32:
        values[i] = load(float{});
        break;
      case DType::kF64:
        values[i] = static_cast<float>(load(double{}));
        break;
      case DType::kBF16:
        values[i] = F32FromBF16(load(uint16_t{}));
        break;
      case DType::kF16:
        values[i] = F32FromF16(load(uint16_t{}));
        break;
      default:
        return Status(ErrorCode::kUnsupported, fmt::format("{} is not made of floats", checkpoint::Describe(*info)));
    }
  }
  return values;
}

Result<std::vector<ModuleInfo>> Checkpoint::Modules() const {
  std::vector<ModuleInfo> infos;
  infos.reserve(impl_->modules.size());
  for (const auto& [name, module] : impl_->modules) {
    BILLFISH_ASSIGN_OR_RETURN(ModuleInfo info, impl_->Describe(module));
    infos.push_back(std::move(info));
  }
  return infos;
}

Result<ModuleInfo> Checkpoint::Describe(std::string_view module) const {
  const auto it = impl_->modules.find(module);
  if (it == impl_->modules.end()) return Status(ErrorCode::kNotFound, fmt::format("{} has no weight {}", impl_->path.string(), module));
  return impl_->Describe(it->second);
}

Result<PackedWeight> Checkpoint::LoadWeight(std::string_view module) const {
  BILLFISH_ASSIGN_OR_RETURN(const ModuleInfo info, Describe(module));
  const ModuleTensors& tensors = impl_->modules.find(module)->second;
  BILLFISH_ASSIGN_OR_RETURN(const Reader* reader, checkpoint::FindReader(tensors));
  const auto bytes = [this](const TensorInfo& tensor) { return impl_->BytesOf(tensor); };
  Result<PackedWeight> weight = reader->load(ReadContext{tensors, impl_->quantization, bytes}, info);
  if (!weight.ok()) return weight.error().WithContext(module);
  return weight;
}

}  // namespace billfish
