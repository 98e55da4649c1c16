// The end of a tile: row factor, bias, rounding, and a masked store for panels with fewer than 32 rows.
#pragma once

#include <immintrin.h>

#include "cpu/kernels/avx512bf16/codes.h"
#include "cpu/panel_job.h"

namespace billfish::cpu {
namespace {

/// Whether whole lines of y are written past the caches. Fetching them first, from memory or another core, is what that saves.
BILLFISH_INLINE bool Streams(const PanelJob& job) {
  const uint64_t row_bytes = uint64_t(job.y_stride) * (job.y_bf16 ? 2 : 4);
  return job.y_streams && job.cols == kPanelRows && (reinterpret_cast<uintptr_t>(job.y) | row_bytes) % kLine == 0;
}

/// Fetches what StoreRows will touch and no stream leads to: the lines of y, and with the first row the factors and biases of the panel.
BILLFISH_INLINE void PrefetchRows(const PanelJob& job, int row, int rows) {
  const size_t width = job.y_bf16 ? 2 : 4;
  const char* y = static_cast<const char*>(job.y) + int64_t{row} * job.y_stride * int64_t(width);
  for (int t = 0; t < rows && !Streams(job); ++t, y += job.y_stride * int64_t(width)) {
    _mm_prefetch(y, _MM_HINT_ET0);  // to be written: another core may hold the line, and a mere read would leave it shared
    _mm_prefetch(y + (size_t(job.cols) * width - 1) / 2, _MM_HINT_ET0);
    _mm_prefetch(y + size_t(job.cols) * width - 1, _MM_HINT_ET0);
  }
  if (row > 0) return;
  for (const float* p : {job.row_factor, job.bias}) {
    if (p == nullptr) continue;
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(p + job.cols - 1), _MM_HINT_T0);
  }
}

/// sums [rows, 32] -> y. Rounding to bf16 is round-to-nearest-even (vcvtneps2bf16).
BILLFISH_INLINE void StoreRows(const PanelJob& job, int row, int rows, const float* sums) {
  const __mmask32 live = job.cols == kPanelRows ? ~__mmask32{0} : (__mmask32{1} << job.cols) - 1;
  const __mmask16 low = __mmask16(live), high = __mmask16(live >> 16);
  __m512 factor0 = _mm512_set1_ps(1.0f), factor1 = factor0;
  if (job.row_factor != nullptr) {
    factor0 = _mm512_loadu_ps(job.row_factor);
    factor1 = _mm512_loadu_ps(job.row_factor + 16);
  }
  __m512 bias0 = _mm512_setzero_ps(), bias1 = bias0;
  if (job.bias != nullptr) {
    bias0 = _mm512_maskz_loadu_ps(low, job.bias);
    bias1 = _mm512_maskz_loadu_ps(high, job.bias + 16);
  }
  const bool streams = Streams(job);
  for (int t = 0; t < rows; ++t, sums += kPanelRows) {
    const __m512 y0 = _mm512_fmadd_ps(_mm512_load_ps(sums), factor0, bias0);
    const __m512 y1 = _mm512_fmadd_ps(_mm512_load_ps(sums + 16), factor1, bias1);
    if (job.y_bf16) {
      uint16_t* y = static_cast<uint16_t*>(job.y) + int64_t{row + t} * job.y_stride;
      const __m512i packed = (__m512i)_mm512_cvtne2ps_pbh(y1, y0);
      if (streams) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(y), packed);
      } else {
        _mm512_mask_storeu_epi16(y, live, packed);
      }
    } else {
      float* y = static_cast<float*>(job.y) + int64_t{row + t} * job.y_stride;
      if (streams) {
        _mm512_stream_ps(y, y0);
        _mm512_stream_ps(y + 16, y1);
      } else {
        _mm512_mask_storeu_ps(y, low, y0);
        _mm512_mask_storeu_ps(y + 16, high, y1);
      }
    }
  }
}

}  // namespace
}  // namespace billfish::cpu
