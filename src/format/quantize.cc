#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "billfish/context.h"
#include "billfish/weight.h"
#include "core/float_formats.h"
#include "core/parallel.h"
#include "core/status_macros.h"
#include "format/group_encoder.h"
#include "format/scale_codec.h"
#include "format/scheme_rules.h"

namespace billfish {
namespace {

constexpr int64_t kRowGrain = 4;

void ReadRow(const ConstTensorView& w, int64_t row, int64_t K, float* out) {
  for (int64_t k = 0; k < K; ++k) {
    const int64_t i = row * K + k;
    out[k] = w.dtype() == DType::kF32   ? w.as<float>()[i]
             : w.dtype() == DType::kF16 ? F32FromF16(w.as<uint16_t>()[i])
                                        : F32FromBF16(w.as<uint16_t>()[i]);
  }
}

void StoreNibbles(std::span<const uint8_t> codes, std::byte* row) {
  const size_t K = codes.size();
  for (size_t j = 0; j < K; j += 2) {
    const unsigned high = j + 1 < K ? codes[j + 1] : 0u;
    row[j / 2] = static_cast<std::byte>(codes[j] | high << 4);
  }
}

float LargestCode(CodeBook codes) { return codes == CodeBook::kInt4 ? 7.0f : codes == CodeBook::kE2M1 ? kE2M1Max : kE4M3Max; }

class Quantizer {
 public:
  Quantizer(ConstTensorView w, const QuantScheme& scheme, int64_t E, int64_t N, int64_t K, const format::PlainSizes& sizes, int threads)
      : w_(w), scheme_(scheme), E_(E), N_(N), K_(K), sizes_(sizes), threads_(threads > 0 ? threads : DefaultThreads()) {
    codes_.resize(static_cast<size_t>(sizes.codes_bytes));
    scales_.resize(static_cast<size_t>(sizes.scales_bytes));
    zeros_.resize(static_cast<size_t>(sizes.zeros_bytes));
    row_amax_.resize(static_cast<size_t>(E * N));
  }

  Status Run() {
    BILLFISH_RETURN_IF_ERROR(Measure());
    if (!scheme_.has_scale()) {
      if (scheme_.codes == CodeBook::kF16) BILLFISH_RETURN_IF_ERROR(CheckF16Range());
      ForEachRow([this](int64_t row, std::span<const float> values) { StoreFloats(row, values); });
      return OkStatus();
    }
    if (scheme_.row_scale) ChooseRowScales();
    if (CodeBits(scheme_.codes) == 4) {
      ForEachRow([this](int64_t row, std::span<const float> values) { StoreGroups(row, values); });
      return OkStatus();
    }
    ChooseBlockScales();
    ForEachRow([this](int64_t row, std::span<const float> values) { StoreE4M3(row, values); });
    return OkStatus();
  }

  WeightParts Finish() && {
    WeightParts parts;
    parts.codes = Bytes::Own(std::move(codes_));
    parts.scales = Bytes::Own(std::move(scales_));
    parts.zeros = Bytes::Own(std::move(zeros_));
    parts.row_scale = std::move(row_scale_);
    return parts;
  }

 private:
  template <class Body>
  void ForEachRow(Body body) {
    ParallelFor(threads_, E_ * N_, kRowGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(K_));
      for (int64_t row = begin; row < end; ++row) {
        ReadRow(w_, row, K_, values.data());
        body(row, values);
      }
    });
  }

  // Largest magnitude of every row; refuses what is not a number.
  Status Measure() {
    std::atomic<int64_t> bad_row{INT64_MAX};
    ForEachRow([&](int64_t row, std::span<const float> values) {
      float amax = 0;
      bool finite = true;
      for (float value : values) {
        finite &= std::isfinite(value);
        amax = std::max(amax, std::fabs(value));
      }
      row_amax_[static_cast<size_t>(row)] = amax;
      if (finite) return;
      int64_t first = bad_row.load();
      while (row < first && !bad_row.compare_exchange_weak(first, row)) {
      }
    });
    const int64_t row = bad_row.load();
    if (row == INT64_MAX) return OkStatus();
    std::vector<float> values(static_cast<size_t>(K_));
    ReadRow(w_, row, K_, values.data());
    const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
    return {ErrorCode::kInvalidArgument, fmt::format("the weight of expert {}, row {}, k {} is {}; only finite numbers can be quantised",
                                                     row / N_, row % N_, bad - values.begin(), *bad)};
  }

  Status CheckF16Range() const {
    for (int64_t row = 0; row < E_ * N_; ++row) {
      if (row_amax_[static_cast<size_t>(row)] < 65520.0f) continue;
      return {ErrorCode::kInvalidArgument,
              fmt::format("expert {}, row {} holds a weight of magnitude {}, above fp16's largest number 65504; store the weight as bf16",
                          row / N_, row % N_, row_amax_[static_cast<size_t>(row)])};
    }
    return OkStatus();
  }

  void StoreFloats(int64_t row, std::span<const float> values) {
    std::byte* out = codes_.data() + row * sizes_.row_bytes;
    for (size_t k = 0; k < values.size(); ++k) {
      if (scheme_.codes == CodeBook::kF32) {
        std::memcpy(out + k * 4, &values[k], 4);
      } else {
        const uint16_t bits = scheme_.codes == CodeBook::kF16 ? F16FromF32(values[k]) : BF16FromF32(values[k]);
        std::memcpy(out + k * 2, &bits, 2);
      }
    }
  }

  // One factor for each expert. With E4M3 scales it maps the largest scale to 448, which makes use of their whole range. It is the
  // reciprocal of an fp32 number, because some files store the divisor and must give back the same factor.
  void ChooseRowScales() {
    row_scale_.assign(static_cast<size_t>(E_ * N_), 1.0f);
    if (scheme_.scale != DType::kF8E4M3) return;
    for (int64_t e = 0; e < E_; ++e) {
      const auto first = row_amax_.begin() + e * N_;
      const float factor = *std::max_element(first, first + N_) / (LargestCode(scheme_.codes) * kE4M3Max);
      const float divisor = 1.0f / factor;
      if (factor > 0 && std::isfinite(divisor) && divisor > 0) std::fill_n(row_scale_.begin() + e * N_, N_, 1.0f / divisor);
    }
  }

  void StoreGroups(int64_t row, std::span<const float> weights) {
    const int64_t group = scheme_.group == 0 ? K_ : scheme_.group;
    std::vector<float> values(weights.begin(), weights.end());
    if (!row_scale_.empty()) {
      const float inverse = 1.0f / row_scale_[static_cast<size_t>(row)];
      for (float& value : values) value *= inverse;
    }
    std::vector<uint8_t> codes(values.size());
    for (int64_t g = 0; g < sizes_.groups; ++g) {
      const auto begin = static_cast<size_t>(g * group);
      const size_t count = static_cast<size_t>(std::min(K_, (g + 1) * group)) - begin;
      const std::span<const float> in = std::span<const float>(values).subspan(begin, count);
      const std::span<uint8_t> out = std::span<uint8_t>(codes).subspan(begin, count);
      const format::EncodedGroup encoded = scheme_.codes == CodeBook::kInt4 ? format::EncodeInt4(in, scheme_.zero, scheme_.scale, out)
                                                                            : format::EncodeE2M1(in, scheme_.scale, out);
      const int64_t i = row * sizes_.groups + g;
      format::StoreScale(scheme_.scale, encoded.scale, scales_.data(), i);
      if (!zeros_.empty()) zeros_[static_cast<size_t>(i)] = std::byte{encoded.zero};
    }
    StoreNibbles(codes, codes_.data() + row * sizes_.row_bytes);
  }

  // FP8: scale = amax of the block / 448.
  void ChooseBlockScales() {
    std::vector<float> row_group_amax(static_cast<size_t>(E_ * N_ * sizes_.groups));
    const int64_t group = scheme_.group == 0 ? K_ : scheme_.group;
    ForEachRow([&](int64_t row, std::span<const float> values) {
      const float inverse = row_scale_.empty() ? 1.0f : 1.0f / row_scale_[static_cast<size_t>(row)];
      for (int64_t k = 0; k < K_; ++k) {
        float& amax = row_group_amax[static_cast<size_t>(row * sizes_.groups + k / group)];
        amax = std::max(amax, std::fabs(values[static_cast<size_t>(k)]) * inverse);
      }
    });
    const int64_t block_rows = scheme_.group_rows == 0 ? N_ : scheme_.group_rows;
    for (int64_t i = 0; i < sizes_.scales; ++i) {
      const int64_t g = i % sizes_.groups, r = i / sizes_.groups % sizes_.scale_rows, e = i / sizes_.groups / sizes_.scale_rows;
      float amax = 0;
      for (int64_t n = r * block_rows; n < std::min(N_, (r + 1) * block_rows); ++n) {
        amax = std::max(amax, row_group_amax[static_cast<size_t>((e * N_ + n) * sizes_.groups + g)]);
      }
      const float stored = format::StoreScale(scheme_.scale, amax / kE4M3Max, scales_.data(), i);
      if (!(stored > 0) || !std::isfinite(1.0f / stored)) format::StoreScale(scheme_.scale, 1.0f, scales_.data(), i);
    }
  }

  void StoreE4M3(int64_t row, std::span<const float> values) {
    const int64_t e = row / N_, n = row % N_;
    const int64_t group = scheme_.group == 0 ? K_ : scheme_.group;
    const int64_t r = scheme_.group_rows == 0 ? 0 : n / scheme_.group_rows;
    const float row_scale = row_scale_.empty() ? 1.0f : row_scale_[static_cast<size_t>(row)];
    for (int64_t k = 0; k < K_; ++k) {
      const float scale = format::LoadScale(scheme_.scale, scales_.data(), (e * sizes_.scale_rows + r) * sizes_.groups + k / group);
      codes_[static_cast<size_t>(row * sizes_.row_bytes + k)] =
          static_cast<std::byte>(E4M3FromF32(values[static_cast<size_t>(k)] / row_scale / scale));
    }
  }

  ConstTensorView w_;
  QuantScheme scheme_;
  int64_t E_, N_, K_;
  format::PlainSizes sizes_;
  int threads_;
  std::vector<std::byte> codes_, scales_, zeros_;
  std::vector<float> row_scale_;
  std::vector<float> row_amax_;  // [E * N]
};

}  // namespace

Result<PackedWeight> PackedWeight::Quantize(ConstTensorView w, const QuantScheme& asked, int threads) {
  BILLFISH_RETURN_IF_ERROR(format::CheckScheme(asked));
  const QuantScheme scheme = format::Canonical(asked);
  if (w.rank() != 2 && w.rank() != 3) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} was given to quantise; give [N, K] or [E, N, K]", w.ToString()));
  }
  if (w.dtype() != DType::kF32 && w.dtype() != DType::kF16 && w.dtype() != DType::kBF16) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} was given to quantise; give f32, f16 or bf16 values", w.ToString()));
  }
  if (!w.is_contiguous()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} was given to quantise with gaps between its rows; copy it together first", w.ToString()));
  }
  if (CodeBits(scheme.codes) == 4 && scheme.group_rows != 1) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("quantising to {} would share 4-bit scales between rows; use group_rows = 1", scheme.Name()));
  }
  const int64_t E = w.rank() == 3 ? w.dim(0) : 1, N = w.dim(w.rank() - 2), K = w.dim(w.rank() - 1);
  BILLFISH_ASSIGN_OR_RETURN(const format::PlainSizes sizes, format::SizesOf(scheme, E, N, K));
  Quantizer quantizer(w, scheme, E, N, K, sizes, threads);
  BILLFISH_RETURN_IF_ERROR(quantizer.Run());
  return FromParts(scheme, E, N, K, std::move(quantizer).Finish());
}

}  // namespace billfish
