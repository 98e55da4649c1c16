// DType, Device and the borrowed tensor views that cross the API.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "billfish/status.h"

namespace billfish {

/// Element types. Names and bit widths are those of the safetensors format.
enum class DType : uint8_t {
  kBool,
  kF4E2M1,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
};

/// The safetensors spelling: "BF16", "F8_E4M3", ...
std::string_view DTypeName(DType dtype);
/// Bits of one element: 4 for kF4E2M1, 8, 16, 32 or 64.
int DTypeBits(DType dtype);
/// The DType with this safetensors spelling, or kInvalidArgument.
Result<DType> DTypeByName(std::string_view name);

struct Device {
  enum class Kind : uint8_t { kCpu, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

inline constexpr int kMaxRank = 4;

/// A borrowed view: never owns, never copies. Rank 0 to 4, shape and strides in elements.
/// The memory must outlive every use of the view.
class ConstTensorView {
 public:
  ConstTensorView() = default;
  /// Row-major contiguous. Ranks above kMaxRank are cut by the caller; debug builds assert.
  ConstTensorView(const void* data, DType dtype, std::span<const int64_t> shape, Device device = {});
  ConstTensorView(const void* data, DType dtype, std::initializer_list<int64_t> shape, Device device = {})
      : ConstTensorView(data, dtype, std::span<const int64_t>(shape.begin(), shape.size()), device) {}

  const void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int rank() const { return rank_; }
  std::span<const int64_t> shape() const { return {shape_.data(), static_cast<size_t>(rank_)}; }
  std::span<const int64_t> strides() const { return {strides_.data(), static_cast<size_t>(rank_)}; }
  int64_t dim(int i) const { return shape_[static_cast<size_t>(i)]; }
  int64_t stride(int i) const { return strides_[static_cast<size_t>(i)]; }
  int64_t num_elements() const;
  bool is_contiguous() const;
  /// Replaces the strides (elements), one per dimension.
  void set_strides(std::span<const int64_t> strides);
  /// "bf16[4, 2048]" for messages.
  std::string ToString() const;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }

 protected:
  const void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Device device_;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_{};
  std::array<int64_t, kMaxRank> strides_{};
};

/// A view whose elements may be written.
class TensorView : public ConstTensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType dtype, std::span<const int64_t> shape, Device device = {}) : ConstTensorView(data, dtype, shape, device) {}
  TensorView(void* data, DType dtype, std::initializer_list<int64_t> shape, Device device = {})
      : ConstTensorView(data, dtype, shape, device) {}

  void* mutable_data() const { return const_cast<void*>(data_); }
  template <class T>
  T* as() const {
    return static_cast<T*>(mutable_data());
  }
};

}  // namespace billfish
