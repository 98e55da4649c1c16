#include "checkpoint/reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/float_formats.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

// More specific layouts first.
constexpr const Reader* kReaders[] = {&kGptqReader, &kAwqReader, &kPackQuantizedReader, &kFp4Reader, &kFp8Reader, &kPlainReader};

template <class T>
T LoadUnaligned(const std::byte* data, int64_t index) {
  T value;
  std::memcpy(&value, data + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

}  // namespace

Result<const Reader*> FindReader(const ModuleTensors& module) {
  if (const TensorInfo* tensor = module.Find(Role::kUnsupported)) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{} holds {}, which belongs to a layout or a transformation that billfish does not read; decoding "
                              "without it would give wrong numbers",
                              module.name, Describe(*tensor)));
  }
  for (const Reader* reader : kReaders) {
    if (reader->matches(module)) return reader;
  }
  std::vector<std::string> found;
  for (const TensorInfo* tensor : module.by_role) {
    if (tensor != nullptr) found.push_back(Describe(*tensor));
  }
  return Status(ErrorCode::kUnsupported, fmt::format("no known layout has the tensors of {}: {}", module.name, fmt::join(found, ", ")));
}

std::string Describe(const TensorInfo& tensor) {
  return fmt::format("{} {}[{}]", tensor.name, DTypeName(tensor.dtype), fmt::join(tensor.shape, ", "));
}

Status ModuleError(const ReadContext& context, std::string_view what) {
  return {ErrorCode::kCorruptFile, fmt::format("{}: {}", context.module.name, what)};
}

Status CheckMethod(const ReadContext& context, std::string_view layout, std::initializer_list<Method> allowed) {
  const Method method = context.config.method;
  if (method == Method::kNone || std::find(allowed.begin(), allowed.end(), method) != allowed.end()) return OkStatus();
  return ModuleError(context, fmt::format("its tensors are {}, and {} says \"{}\"; one of the two is wrong", layout, context.config.source,
                                          context.config.method_name));
}

Result<const TensorInfo*> Require(const ReadContext& context, Role role, std::string_view what) {
  const TensorInfo* tensor = context.module.Find(role);
  if (tensor == nullptr) return ModuleError(context, fmt::format("its {} is missing from the file", what));
  return tensor;
}

Result<DType> ScaleDType(const ReadContext& context, const TensorInfo& scales) {
  if (scales.dtype == DType::kBF16 || scales.dtype == DType::kF16 || scales.dtype == DType::kF32) return scales.dtype;
  return ModuleError(context, fmt::format("{} must be BF16, F16 or F32", Describe(scales)));
}

Result<std::vector<float>> ToF32(const ReadContext& context, const TensorInfo& tensor) {
  const Bytes bytes = context.bytes(tensor);
  const int64_t count = static_cast<int64_t>(bytes.size()) * 8 / DTypeBits(tensor.dtype);
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    float& value = values[static_cast<size_t>(i)];
    switch (tensor.dtype) {
      case DType::kF32:
        value = LoadUnaligned<float>(bytes.data(), i);
        break;
      case DType::kBF16:
        value = F32FromBF16(LoadUnaligned<uint16_t>(bytes.data(), i));
        break;
      case DType::kF16:
        value = F32FromF16(LoadUnaligned<uint16_t>(bytes.data(), i));
        break;
      case DType::kU8:
      case DType::kF8E8M0:
        value = F32FromE8M0(static_cast<uint8_t>(bytes.data()[i]));
        break;
      default:
        return ModuleError(context, fmt::format("{} must be F32, BF16, F16 or F8_E8M0", Describe(tensor)));
    }
  }
  return values;
}

Result<int64_t> GroupSize(const ReadContext& context, std::optional<int64_t> configured, int64_t K, int64_t groups) {
  if (groups == 1 && (!configured || *configured == -1 || *configured >= K)) return 0;
  if (configured) {
    if (*configured > 0 && (K - 1) / *configured + 1 == groups) return *configured;
    return ModuleError(context, fmt::format("its scales have {} groups along K = {}, and {} says group_size {}", groups, K,
                                            context.config.source, *configured));
  }
  if (groups < 1 || K % groups != 0)
    return ModuleError(context, fmt::format("its scales have {} groups, which do not divide K = {}", groups, K));
  return K / groups;
}

Result<std::vector<int32_t>> ColumnOrder(const ReadContext& context, const TensorInfo* g_idx, int64_t K, int64_t group, int64_t groups) {
  std::vector<int32_t> perm;
  if (g_idx == nullptr || groups == 1) return perm;
  if (g_idx->dtype != DType::kI32 || g_idx->shape != std::vector<int64_t>{K}) {
    return ModuleError(context, fmt::format("{} must be I32[{}]", Describe(*g_idx), K));
  }
  const Bytes bytes = context.bytes(*g_idx);
  std::vector<int32_t> index(static_cast<size_t>(K));
  std::memcpy(index.data(), bytes.data(), bytes.size());
  if (std::all_of(index.begin(), index.end(), [](int32_t i) { return i == -1; })) return perm;
  bool trivial = true;
  for (int64_t k = 0; k < K; ++k) {
    const int32_t i = index[static_cast<size_t>(k)];
    if (i < 0 || i >= groups) {
      return ModuleError(context, fmt::format("{} puts k = {} into group {}; there are {} groups", g_idx->name, k, i, groups));
    }
    trivial = trivial && i == k / group;
  }
  if (trivial) return perm;
  perm.resize(static_cast<size_t>(K));
  std::iota(perm.begin(), perm.end(), 0);
  std::stable_sort(perm.begin(), perm.end(),
                   [&](int32_t a, int32_t b) { return index[static_cast<size_t>(a)] < index[static_cast<size_t>(b)]; });
  for (int64_t j = 0; j < K; ++j) {
    if (index[static_cast<size_t>(perm[static_cast<size_t>(j)])] == j / group) continue;
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: {} gives groups of unequal size; each must have {} columns", context.module.name, g_idx->name, group));
  }
  return perm;
}

}  // namespace billfish::checkpoint
