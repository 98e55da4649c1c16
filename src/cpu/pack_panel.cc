#include "cpu/pack_panel.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/float_formats.h"

namespace billfish::cpu {
namespace {

Codes CodesOf(const QuantScheme& scheme) {
  switch (scheme.codes) {
    case CodeBook::kInt4:
      return scheme.zero == ZeroPoint::kPerGroup ? Codes::kInt4Zero : Codes::kInt4;
    case CodeBook::kE2M1:
      return Codes::kE2M1;
    case CodeBook::kE4M3:
      return Codes::kE4M3;
    case CodeBook::kBF16:
      return Codes::kBF16;
    case CodeBook::kF16:
      return Codes::kF16;
    case CodeBook::kF32:
      return Codes::kF32;
  }
  return Codes::kF32;
}

bool OneScalePerRow(const QuantScheme& scheme, int64_t K) { return scheme.group == 0 || scheme.group >= K; }

Scales ScalesOf(const QuantScheme& scheme, int64_t K) {
  if (!scheme.has_scale() || OneScalePerRow(scheme, K)) return Scales::kNone;
  switch (scheme.scale) {
    case DType::kF8E8M0:
      return Scales::kExponent;
    case DType::kF8E4M3:
      return scheme.codes == CodeBook::kE2M1 ? Scales::kE5M3 : Scales::kBF16;
    case DType::kBF16:
      return Scales::kBF16;
    case DType::kF16:
      return Scales::kF16;
    default:
      return Scales::kF32;
  }
}

template <class T>
T LoadAt(const std::byte* base, int64_t index) {
  T value;
  std::memcpy(&value, base + index * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

template <class T>
void StoreAt(uint8_t* base, int64_t index, T value) {
  std::memcpy(base + index * int64_t{sizeof(T)}, &value, sizeof(T));
}

float ScaleValue(DType dtype, const std::byte* scales, int64_t index) {
  switch (dtype) {
    case DType::kF8E8M0:
      return std::ldexp(1.0f, int(LoadAt<uint8_t>(scales, index)) - 127);
    case DType::kF8E4M3:
      return F32FromE4M3(LoadAt<uint8_t>(scales, index));
    case DType::kBF16:
      return F32FromBF16(LoadAt<uint16_t>(scales, index));
    case DType::kF16:
      return F32FromF16(LoadAt<uint16_t>(scales, index));
    default:
      return LoadAt<float>(scales, index);
  }
}

/// A positive E4M3 code -> E5M3 (panel_layout.h). m 2^-9 with m = 1..7 becomes (1 + f/8) 2^e.
uint8_t E5M3FromE4M3(uint8_t code) {
  const int exponent = code >> 3, mantissa = code & 7;
  if (exponent > 0) return uint8_t(((exponent - 7 + kE5M3Bias) << 3) | mantissa);
  const int top = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;
  return uint8_t(((top - 9 + kE5M3Bias) << 3) | ((mantissa << (3 - top)) & 7));
}

/// Eight nibbles k 0..7 (k 0 lowest) -> even k in the low word, odd k in the high word.
constexpr uint32_t SplitEvenOdd(uint32_t v) {
  const auto gather = [](uint32_t nibbles) {  // 0x0d0c0b0a -> 0xdcba
    nibbles = (nibbles | (nibbles >> 4)) & 0x00FF00FFu;
    return (nibbles | (nibbles >> 8)) & 0xFFFFu;
  };
  return gather(v & 0x0F0F0F0Fu) | (gather((v >> 4) & 0x0F0F0F0Fu) << 16);
}
static_assert(SplitEvenOdd(0x76543210u) == 0x75316420u);

}  // namespace

PanelLayout LayoutOf(const QuantScheme& scheme, int64_t E, int64_t N, int64_t K) {
  return MakePanelLayout(CodesOf(scheme), ScalesOf(scheme, K), E, N, K, scheme.group);
}

PanelPacker::PanelPacker(const PackedWeight& weight) : weight_(weight) {
  const QuantScheme& scheme = weight.scheme();
  const int64_t E = weight.E(), N = weight.N(), K = weight.K();
  group_ = scheme.group >= K ? 0 : scheme.group;
  scale_in_factor_ = scheme.has_scale() && OneScalePerRow(scheme, K);
  layout_ = LayoutOf(scheme, E, N, K);
  const std::byte* scales = weight.parts().scales.data();
  const int64_t scale_count = E * weight.scale_rows() * weight.groups();
  if (layout_.scales == Scales::kE5M3) {
    for (int64_t i = 0; i < scale_count; ++i) {
      const uint8_t code = LoadAt<uint8_t>(scales, i);
      if (code >= 0x7F) layout_ = MakePanelLayout(layout_.codes, Scales::kBF16, E, N, K, group_);
    }
  } else if (layout_.scales == Scales::kExponent) {
    bool fits = true;
    for (int64_t e = 0; e < E && fits; ++e) {
      int top = 0;
      for (int64_t n = 0; n < N && fits; ++n) fits = RowExponent(e, n, &top);
    }
    if (!fits) layout_ = MakePanelLayout(layout_.codes, Scales::kF32, E, N, K, group_);
  }
  has_factors_ = scheme.row_scale || scale_in_factor_ || layout_.scales == Scales::kExponent;
}

int64_t PanelPacker::ScaleIndex(int64_t e, int64_t n, int c) const {
  const QuantScheme& scheme = weight_.scheme();
  const int64_t rows = weight_.scale_rows(), groups = weight_.groups();
  const int64_t row = scheme.group_rows == 0 ? 0 : n / scheme.group_rows;
  const int64_t g = groups == 1 ? 0 : std::min<int64_t>(c / layout_.pieces, groups - 1);
  return (e * rows + row) * groups + g;
}

int PanelPacker::Code(int64_t e, int64_t n, int64_t k) const {
  const std::byte* row = weight_.parts().codes.data() + (e * weight_.N() + n) * weight_.row_bytes();
  return (int(row[k / 2]) >> (k % 2 * 4)) & 15;
}

bool PanelPacker::ChunkIsZero(int64_t e, int64_t n, int c) const {
  const int64_t begin = layout_.chunk_begin(c), end = begin + layout_.chunk_length(c);
  if (layout_.codes != Codes::kE2M1) return false;
  for (int64_t k = begin; k < end; ++k) {
    if ((Code(e, n, k) & 7) != 0) return false;
  }
  return true;
}

bool PanelPacker::RowExponent(int64_t e, int64_t n, int* top) const {
  const std::byte* scales = weight_.parts().scales.data();
  int low = 255, high = 0;
  for (int c = 0; c < layout_.chunks; ++c) {
    const int byte = LoadAt<uint8_t>(scales, ScaleIndex(e, n, c));
    low = std::min(low, byte);
    high = std::max(high, byte);
  }
  if (high - low > kMaxExponentDrop) {  // rare: leave out the chunks whose scale means nothing
    low = 255, high = 0;
    for (int c = 0; c < layout_.chunks; ++c) {
      if (ChunkIsZero(e, n, c)) continue;
      const int byte = LoadAt<uint8_t>(scales, ScaleIndex(e, n, c));
      low = std::min(low, byte);
      high = std::max(high, byte);
    }
  }
  *top = high;
  return high - low <= kMaxExponentDrop;
}

void PanelPacker::PackScales(int64_t e, int64_t n, int row, int first_chunk, int count, int top, uint8_t* scales, uint8_t* zeros) const {
  const WeightParts& parts = weight_.parts();
  const std::byte* source = parts.scales.data();
  const DType dtype = weight_.scheme().scale;
  for (int i = 0; i < count; ++i) {
    const int64_t index = ScaleIndex(e, n, first_chunk + i);
    const int64_t at = int64_t{i} * kPanelRows + row;
    switch (layout_.scales) {
      case Scales::kNone:
        break;
      case Scales::kExponent:
        scales[at] = uint8_t(std::clamp(top - int(LoadAt<uint8_t>(source, index)), 0, kMaxExponentDrop));
        break;
      case Scales::kE5M3: {
        const uint8_t code = LoadAt<uint8_t>(source, index);
        scales[at] = code == 0 ? uint8_t(kE5M3Bias << 3) : E5M3FromE4M3(code);
        break;
      }
      case Scales::kBF16:
        StoreAt(scales, at, dtype == DType::kBF16 ? LoadAt<uint16_t>(source, index) : BF16FromF32(ScaleValue(dtype, source, index)));
        break;
      case Scales::kF16:
        StoreAt(scales, at, LoadAt<uint16_t>(source, index));
        break;
      case Scales::kF32:
        StoreAt(scales, at, ScaleValue(dtype, source, index));
        break;
    }
    if (layout_.codes == Codes::kInt4Zero) zeros[at] = LoadAt<uint8_t>(parts.zeros.data(), index);
  }
}

void PanelPacker::PackCodes(int64_t e, int64_t n, int row, int first_chunk, int count, uint8_t* codes) const {
  const uint8_t* source = reinterpret_cast<const uint8_t*>(weight_.parts().codes.data()) + (e * weight_.N() + n) * weight_.row_bytes();
  const int unit_k = layout_.unit_k();
  const int half = row / 16, lane = row % 16;
  for (int i = 0; i < count; ++i) {
    const int c = first_chunk + i;
    const int64_t begin = layout_.chunk_begin(c), length = layout_.chunk_length(c);
    const bool zero_scale = layout_.scales == Scales::kE5M3 && LoadAt<uint8_t>(weight_.parts().scales.data(), ScaleIndex(e, n, c)) == 0;
    if (unit_k == 8 && length == layout_.chunk_k && begin % 2 == 0) {  // whole units of nibbles that start on a byte
      uint8_t* at = codes + int64_t{i} * (layout_.chunk_k / 8) * 2 * int64_t{kLine} + half * int64_t{kLine} + lane * 4;
      for (const uint8_t* from = source + begin / 2; from < source + (begin + length) / 2; from += 4, at += 2 * kLine) {
        uint32_t v;
        std::memcpy(&v, from, 4);
        v = zero_scale ? 0 : SplitEvenOdd(v);
        std::memcpy(at, &v, 4);
      }
      continue;
    }
    for (int u = 0; u * unit_k < layout_.chunk_k; ++u) {
      uint8_t* unit = codes + (int64_t{i} * (layout_.chunk_k / unit_k) + u) * 2 * int64_t{kLine} + half * int64_t{kLine};
      const int64_t k = begin + int64_t{u} * unit_k;
      const int here = int(std::clamp<int64_t>(begin + length - k, 0, unit_k));
      switch (layout_.codes) {
        case Codes::kInt4:
        case Codes::kInt4Zero:
        case Codes::kE2M1: {
          uint32_t v = 0;
          for (int j = 0; j < here && !zero_scale; ++j) v |= uint32_t(Code(e, n, k + j)) << (4 * j);
          StoreAt(unit, lane, SplitEvenOdd(v));
          break;
        }
        case Codes::kE4M3:
          for (int j = 0; j < here; ++j) unit[lane / 4 * 16 + j / 2 * 8 + lane % 4 * 2 + j % 2] = source[k + j];
          break;
        case Codes::kBF16:
          for (int j = 0; j < here; ++j) std::memcpy(unit + lane * 4 + j * 2, source + (k + j) * 2, 2);
          break;
        case Codes::kF16:
          for (int j = 0; j < here; ++j) std::memcpy(unit + j * 32 + lane * 2, source + (k + j) * 2, 2);
          break;
        case Codes::kF32:
          std::memcpy(unit + lane * 4, source + k * 4, here > 0 ? 4 : 0);
          break;
      }
    }
  }
}

void PanelPacker::PackPanel(int64_t e, int64_t p, std::byte* out, float* factors) const {
  const WeightParts& parts = weight_.parts();
  const int live = int(std::min<int64_t>(kPanelRows, layout_.N - p * kPanelRows));
  int top[kPanelRows];
  for (int row = 0; row < live; ++row) {
    const int64_t n = p * kPanelRows + row;
    top[row] = 127;
    if (layout_.scales == Scales::kExponent) RowExponent(e, n, &top[row]);
    if (factors == nullptr) continue;
    double factor = parts.row_scale.empty() ? 1.0 : double(parts.row_scale[size_t(e * layout_.N + n)]);
    if (scale_in_factor_) factor *= double(ScaleValue(weight_.scheme().scale, parts.scales.data(), ScaleIndex(e, n, 0)));
    factors[row] = float(std::ldexp(factor, top[row] - 127));
  }
  for (int row = live; row < kPanelRows && factors != nullptr; ++row) factors[row] = 1.0f;

  for (int row = 0; row < live; ++row) {  // row by row: the source is one stream, and the panel it scatters into stays in L2
    const int64_t n = p * kPanelRows + row;
    uint8_t* slab = reinterpret_cast<uint8_t*>(out);
    for (int s = 0; s < layout_.slabs(); ++s) {
      const int count = layout_.chunks_in_slab(s), first = s * layout_.slab_chunks;
      uint8_t* zeros = slab + layout_.scale_part(count);
      PackScales(e, n, row, first, count, top[row], slab, zeros);
      PackCodes(e, n, row, first, count, zeros + layout_.zero_part(count));
      slab += layout_.slab_bytes(count);
    }
  }
}

}  // namespace billfish::cpu
