#include "reference/linear.h"

#include <array>

#include "billfish/context.h"
#include "core/parallel.h"
#include "format/row_decoder.h"

namespace billfish::reference {

Matrix Linear(const PackedWeight& weight, const Matrix& x, std::span<const float> bias) {
  return GroupedLinear(weight, x, std::array<int64_t, 2>{0, x.rows}, {}, bias);
}

Matrix GroupedLinear(const PackedWeight& weight, const Matrix& x, std::span<const int64_t> offsets, std::span<const int32_t> gather,
                     std::span<const float> bias) {
  const int64_t N = weight.N(), K = weight.K();
  const std::vector<int32_t>& perm = weight.parts().perm;
  Matrix y(offsets.back(), N);
  for (int64_t e = 0; e < weight.E(); ++e) {
    if (offsets[e] == offsets[e + 1]) continue;
    ParallelFor(DefaultThreads(), N, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> w(static_cast<size_t>(K));
      for (int64_t n = begin; n < end; ++n) {
        format::DecodeRow(weight, e, n, w);
        for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
          const std::span<const double> row = x.row(gather.empty() ? r : gather[r]);
          double sum = 0;
          for (int64_t j = 0; j < K; ++j) sum += static_cast<double>(w[j]) * row[perm.empty() ? j : perm[static_cast<size_t>(e * K + j)]];
          y.at(r, n) = sum + (bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<size_t>(e * N + n)]));
        }
      }
    });
  }
  return y;
}

}  // namespace billfish::reference
