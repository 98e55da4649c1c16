#include "checkpoint/writer/item_encoder.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "core/float_formats.h"
#include "core/status_macros.h"

namespace billfish::checkpoint {
namespace {

// Elements of `size` bytes, [rows, columns] -> [columns, rows], tile by tile so that both sides stay in the cache.
std::vector<std::byte> Transpose(const std::byte* from, int64_t rows, int64_t columns, size_t size) {
  constexpr int64_t kTile = 32;
  std::vector<std::byte> to(static_cast<size_t>(rows * columns) * size);
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (int64_t c = c0; c < std::min(columns, c0 + kTile); ++c) {
          std::memcpy(to.data() + static_cast<size_t>(c * rows + r) * size, from + static_cast<size_t>(r * columns + c) * size, size);
        }
      }
    }
  }
  return to;
}

Result<std::vector<uint16_t>> ToF16(const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::fabs(values[i]) >= 65520.0f) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("it holds {}, above fp16's largest number 65504; decode to BF16 or F32", values[i]));
    }
    bits[i] = F16FromF32(values[i]);
  }
  return bits;
}

}  // namespace

Result<std::vector<Bytes>> ItemEncoder::Encode(const Item& item, int64_t e) {
  Result<std::vector<Bytes>> bytes = item.action == Action::kDequantize ? Dequantize(item, e)
                                     : item.action == Action::kRewrite  ? Rewrite(item, e)
                                                                        : Quantize(item, e);
  if (!bytes.ok()) return bytes.error().WithContext(item.source);
  return bytes;
}

Result<PackedWeight> ItemEncoder::Expert(const Item& item, int64_t e) {
  if (loaded_name_ != item.source) {
    loaded_name_.clear();
    loaded_ = PackedWeight();  // before the next one is read: one module at a time
    BILLFISH_ASSIGN_OR_RETURN(loaded_, source_.LoadWeight(item.source));
    loaded_name_ = item.source;
  }
  return loaded_.E() == 1 ? Result<PackedWeight>(loaded_) : loaded_.Expert(e);
}

Result<std::vector<Bytes>> ItemEncoder::Rewrite(const Item& item, int64_t e) {
  BILLFISH_ASSIGN_OR_RETURN(const PackedWeight weight, Expert(item, e));
  Result<std::vector<Bytes>> bytes =
      weight.parts().perm.empty() ? EncodingOf(settings_.layout).encode(weight)
                                  : Status(ErrorCode::kUnsupported, "its columns are sorted by group (act-order), which is not written");
  if (bytes.ok() || bytes.error().code() != ErrorCode::kUnsupported) return bytes;
  if (settings_.requantize) return Quantize(item, e);
  return Status(ErrorCode::kUnsupported,
                fmt::format("{}; its decoded numbers can be quantised again, allow that with requantize", bytes.error().message()));
}

Result<Bytes> ItemEncoder::PlainValues(const Item& item, int64_t e, DType* dtype) const {
  const TensorInfo* tensor = source_.Find(item.plain_tensor);
  BILLFISH_ASSIGN_OR_RETURN(const Bytes all, source_.Read(item.plain_tensor));
  *dtype = tensor->dtype;
  const size_t size = static_cast<size_t>(DTypeBits(tensor->dtype) / 8), bytes = all.size() / static_cast<size_t>(item.shape.E);
  const Bytes stored = all.Slice(bytes * static_cast<size_t>(e), bytes);
  if (item.transposed) return Bytes::Own(Transpose(stored.data(), item.shape.K, item.shape.N, size));
  if (reinterpret_cast<uintptr_t>(stored.data()) % size == 0) return stored;
  return Bytes::Own(std::vector<std::byte>(stored.view().begin(), stored.view().end()));
}

Result<std::vector<Bytes>> ItemEncoder::QuantizeValues(const Item& item, const Bytes& values, DType dtype) const {
  BILLFISH_ASSIGN_OR_RETURN(const PackedWeight weight, PackedWeight::Quantize({values.data(), dtype, {item.shape.N, item.shape.K}},
                                                                              item.shape.scheme, settings_.quantize_threads));
  return EncodingOf(settings_.layout).encode(weight);
}

Result<std::vector<Bytes>> ItemEncoder::Quantize(const Item& item, int64_t e) {
  if (!item.plain_tensor.empty()) {
    DType dtype = DType::kF32;
    BILLFISH_ASSIGN_OR_RETURN(const Bytes values, PlainValues(item, e, &dtype));
    return QuantizeValues(item, values, dtype);
  }
  std::vector<float> values(static_cast<size_t>(item.shape.N * item.shape.K));
  BILLFISH_ASSIGN_OR_RETURN(const PackedWeight weight, Expert(item, e));
  BILLFISH_RETURN_IF_ERROR(weight.Dequantize({values.data(), DType::kF32, {item.shape.N, item.shape.K}}));
  return QuantizeValues(item, Bytes::Own(std::move(values)), DType::kF32);
}

Result<std::vector<Bytes>> ItemEncoder::Dequantize(const Item& item, int64_t e) {
  BILLFISH_ASSIGN_OR_RETURN(const PackedWeight weight, Expert(item, e));
  const int64_t N = item.shape.N, K = item.shape.K;
  const DType dtype = item.tensors.front().dtype;
  Bytes bytes;
  if (dtype == DType::kBF16) {
    std::vector<uint16_t> values(static_cast<size_t>(N * K));
    BILLFISH_RETURN_IF_ERROR(weight.Dequantize({values.data(), DType::kBF16, {N, K}}));
    bytes = Bytes::Own(std::move(values));
  } else {
    std::vector<float> values(static_cast<size_t>(N * K));
    BILLFISH_RETURN_IF_ERROR(weight.Dequantize({values.data(), DType::kF32, {N, K}}));
    if (dtype == DType::kF32) {
      bytes = Bytes::Own(std::move(values));
    } else {
      BILLFISH_ASSIGN_OR_RETURN(std::vector<uint16_t> half, ToF16(values));
      bytes = Bytes::Own(std::move(half));
    }
  }
  if (item.transposed) bytes = Bytes::Own(Transpose(bytes.data(), N, K, static_cast<size_t>(DTypeBits(dtype) / 8)));
  return std::vector<Bytes>{std::move(bytes)};
}

}  // namespace billfish::checkpoint
