#include "billfish/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <cctype>

namespace billfish {
namespace {

struct DTypeRow {
  std::string_view name;
  int bits;
};

// Indexed by DType.
constexpr std::array<DTypeRow, 17> kDTypes = {{{"BOOL", 8},
                                               {"F4", 4},
                                               {"U8", 8},
                                               {"I8", 8},
                                               {"F8_E5M2", 8},
                                               {"F8_E4M3", 8},
                                               {"F8_E8M0", 8},
                                               {"I16", 16},
                                               {"U16", 16},
                                               {"F16", 16},
                                               {"BF16", 16},
                                               {"I32", 32},
                                               {"U32", 32},
                                               {"F32", 32},
                                               {"F64", 64},
                                               {"I64", 64},
                                               {"U64", 64}}};
static_assert(static_cast<size_t>(DType::kU64) + 1 == kDTypes.size());

}  // namespace

std::string_view DTypeName(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }

int DTypeBits(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].bits; }

Result<DType> DTypeByName(std::string_view name) {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    if (kDTypes[i].name == name) return static_cast<DType>(i);
  }
  return Status(ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not an element type that billfish knows", name));
}

ConstTensorView::ConstTensorView(const void* data, DType dtype, std::span<const int64_t> shape, Device device)
    : data_(data), dtype_(dtype), device_(device), rank_(static_cast<int>(std::min<size_t>(shape.size(), kMaxRank))) {
  assert(shape.size() <= kMaxRank);
  int64_t stride = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    shape_[static_cast<size_t>(i)] = shape[static_cast<size_t>(i)];
    strides_[static_cast<size_t>(i)] = stride;
    stride *= shape[static_cast<size_t>(i)];
  }
}

int64_t ConstTensorView::num_elements() const {
  int64_t count = 1;
  for (int64_t extent : shape()) count *= extent;
  return count;
}

bool ConstTensorView::is_contiguous() const {
  int64_t stride = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    if (dim(i) != 1 && this->stride(i) != stride) return false;
    stride *= dim(i);
  }
  return true;
}

void ConstTensorView::set_strides(std::span<const int64_t> strides) {
  assert(strides.size() == static_cast<size_t>(rank_));
  std::copy_n(strides.begin(), std::min(strides.size(), static_cast<size_t>(rank_)), strides_.begin());
}

std::string ConstTensorView::ToString() const {
  std::string name(DTypeName(dtype_));
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return static_cast<char>(std::tolower(c)); });
  return fmt::format("{}[{}]", name, fmt::join(shape(), ", "));
}

}  // namespace billfish
