// linear_scalar: the definition of the panel form in plain C++, for processors without a faster kernel and as a check of the others.
//
//   y[t, n] = factor[n] * sum_k value(code[n, k]) * scale[n, chunk] * x[t, k] + bias[n], summed over k in order in fp64
//
// A weight is decoded once per row of activations; speed is no aim here.
#include <bit>
#include <cmath>
#include <cstring>

#include "core/float_formats.h"
#include "cpu/kernels/scalar/kernels.h"

namespace billfish::cpu::scalar {
namespace {

template <class T>
T At(const uint8_t* base, int64_t index) {
  T value;
  std::memcpy(&value, base + index * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

float Scale(Scales scales, const uint8_t* base, int64_t index) {
  switch (scales) {
    case Scales::kNone:
      return 1.0f;
    case Scales::kExponent:
      return std::bit_cast<float>(uint32_t(127 - base[index]) << 23);
    case Scales::kE5M3:
      return std::bit_cast<float>((uint32_t{base[index]} << 20) + (uint32_t(127 - kE5M3Bias) << 23));
    case Scales::kBF16:
      return F32FromBF16(At<uint16_t>(base, index));
    case Scales::kF16:
      return F32FromF16(At<uint16_t>(base, index));
    case Scales::kF32:
      return At<float>(base, index);
  }
  return 0.0f;
}

/// Value of k-th element (k inside the unit) of `row` in the unit at `unit`.
float Code(Codes codes, const uint8_t* unit, int row, int k, int zero) {
  const uint8_t* half = unit + row / 16 * int64_t{kLine};
  const int lane = row % 16;
  switch (codes) {
    case Codes::kInt4:
    case Codes::kInt4Zero:
    case Codes::kE2M1: {
      const int nibble = int(At<uint32_t>(half, lane) >> (k % 2 * 16 + k / 2 * 4)) & 15;
      if (codes == Codes::kE2M1) return kE2M1Values[size_t(nibble)];
      return float(nibble - (codes == Codes::kInt4 ? 8 : zero));
    }
    case Codes::kE4M3:
      return F32FromE4M3(half[lane / 4 * 16 + k / 2 * 8 + lane % 4 * 2 + k % 2]);
    case Codes::kBF16:
      return F32FromBF16(At<uint16_t>(half, lane * 2 + k));
    case Codes::kF16:
      return F32FromF16(At<uint16_t>(half, k * 16 + lane));
    case Codes::kF32:
      return At<float>(half, lane);
  }
  return 0.0f;
}

double RowDot(const PanelJob& job, int row, int t) {
  const PanelLayout& layout = *job.layout;
  const int unit_k = layout.unit_k();
  const uint8_t* slab = reinterpret_cast<const uint8_t*>(job.panel);
  double sum = 0;
  for (int s = 0; s < layout.slabs(); ++s) {
    const int count = layout.chunks_in_slab(s);
    const uint8_t* zeros = slab + layout.scale_part(count);
    const uint8_t* codes = zeros + layout.zero_part(count);
    const float* x = reinterpret_cast<const float*>(job.x + size_t(s) * job.slab_stride + size_t(t) * kStagedF32Bytes);
    for (int c = 0; c < count; ++c) {
      const float scale = Scale(layout.scales, slab, int64_t{c} * kPanelRows + row);
      const int zero = layout.codes == Codes::kInt4Zero ? zeros[c * kPanelRows + row] : 0;
      double chunk = 0;
      for (int i = 0; i < layout.chunk_k; ++i) {
        const int k = c * layout.chunk_k + i;
        chunk += double(Code(layout.codes, codes + int64_t{k / unit_k} * 2 * int64_t{kLine}, row, k % unit_k, zero)) * double(x[k]);
      }
      sum += chunk * double(scale);
    }
    slab += layout.slab_bytes(count);
  }
  return sum;
}

void Panel(const PanelJob& job) {
  for (int t = 0; t < job.rows; ++t) {
    for (int row = 0; row < job.cols; ++row) {
      const double factor = job.row_factor == nullptr ? 1.0 : double(job.row_factor[row]);
      const float y = float(RowDot(job, row, t) * factor + (job.bias == nullptr ? 0.0 : double(job.bias[row])));
      if (job.y_bf16) {
        static_cast<uint16_t*>(job.y)[t * job.y_stride + row] = BF16FromF32(y);
      } else {
        static_cast<float*>(job.y)[t * job.y_stride + row] = y;
      }
    }
  }
}

}  // namespace

PanelFunction LinearPanel(const PanelLayout&) { return &Panel; }

}  // namespace billfish::cpu::scalar
