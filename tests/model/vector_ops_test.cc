// Every instruction set's table against fp64 definitions.
#include "model/vector_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "core/float_formats.h"

namespace billfish::model {
namespace {

std::vector<float> Random(size_t count, uint32_t seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

class VectorOpsTest : public testing::TestWithParam<size_t> {
 protected:
  const VectorOps& Table() const { return *AllOps()[GetParam()]; }
};

INSTANTIATE_TEST_SUITE_P(Tables, VectorOpsTest, testing::Range<size_t>(0, AllOps().size()));

TEST_P(VectorOpsTest, RmsNormDividesByTheRootMeanSquare) {
  for (const size_t n : {1U, 15U, 16U, 64U, 77U, 2880U}) {
    const std::vector<float> x = Random(n, 1, 3), weight = Random(n, 2);
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    std::vector<float> y(n);
    std::vector<uint16_t> half(n);
    Table().rms_norm(x.data(), weight.data(), static_cast<int64_t>(n), 1e-5f, y.data(), nullptr);
    Table().rms_norm(x.data(), weight.data(), static_cast<int64_t>(n), 1e-5f, nullptr, half.data());
    for (size_t i = 0; i < n; ++i) {
      const double expected = x[i] * scale * weight[i];
      ASSERT_NEAR(y[i], expected, 1e-6 * std::fabs(expected)) << n << " " << i;
      ASSERT_EQ(half[i], BF16FromF32(y[i])) << n << " " << i;
    }
  }
}

TEST_P(VectorOpsTest, SwigluIsSiluOfTheGateTimesUp) {
  std::vector<float> gate = Random(1000, 3, 4), up = Random(1000, 4);
  const float edges[] = {0, -0.0f, 87, 88.5f, 100, 1e30f, -50, -86.9f, -87.1f, -88, -200, -1e30f};
  std::copy(std::begin(edges), std::end(edges), gate.begin() + 500);
  gate.resize(987);  // not a multiple of the lanes
  std::vector<float> h(gate.size());
  std::vector<uint16_t> half(gate.size());
  Table().swiglu(gate.data(), up.data(), static_cast<int64_t>(gate.size()), h.data(), nullptr);
  Table().swiglu(gate.data(), up.data(), static_cast<int64_t>(gate.size()), nullptr, half.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double expected = gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i];
    ASSERT_NEAR(h[i], expected, 1e-6 * std::fabs(expected) + (gate[i] < -80 ? 1e-7 : 0)) << gate[i];
    ASSERT_EQ(half[i], BF16FromF32(h[i]));
  }
}

TEST_P(VectorOpsTest, AddAdds) {
  const std::vector<float> a = Random(93, 5), b = Random(93, 6);
  std::vector<float> sum = a;
  Table().add(sum.data(), b.data(), 93);
  for (size_t i = 0; i < 93; ++i) EXPECT_EQ(sum[i], a[i] + b[i]);
}

TEST_P(VectorOpsTest, LogSumExpIsThatOfFp64) {
  for (const size_t n : {1U, 17U, 4096U, 201088U}) {
    for (const float scale : {0.01f, 3.0f, 40.0f}) {
      const std::vector<float> x = Random(n, 7, scale);
      double top = -1e300, sum = 0;
      for (const float v : x) top = std::max(top, static_cast<double>(v));
      for (const float v : x) sum += std::exp(v - top);
      EXPECT_NEAR(Table().log_sum_exp(x.data(), static_cast<int64_t>(n)), top + std::log(sum), 1e-5) << n << " " << scale;
    }
  }
}

struct AttentionCase {
  int rows;
  int64_t qk_dim, v_dim, first_position, window;
  bool sink;
  float scale;  ///< of the scores
};

// Row r stands at position first_position + r / 2, two heads to a token.
void CheckAttention(const VectorOps& ops, const AttentionCase& c) {
  const int64_t positions = (c.first_position + c.rows) / 64 * 64 + 64;
  const int64_t v_stride = (c.v_dim + 15) / 16 * 16;
  std::vector<float> keys = Random(static_cast<size_t>(positions * c.qk_dim), 8);
  std::vector<float> values(static_cast<size_t>(positions * v_stride));
  const std::vector<float> dense = Random(static_cast<size_t>(positions * c.v_dim), 9);
  for (int64_t j = 0; j < positions; ++j) {
    for (int64_t v = 0; v < c.v_dim; ++v) values[static_cast<size_t>(j * v_stride + v)] = dense[static_cast<size_t>(j * c.v_dim + v)];
  }
  const std::vector<float> q = Random(static_cast<size_t>(c.rows * c.qk_dim), 10, c.scale / std::sqrt(static_cast<float>(c.qk_dim)));
  std::vector<float> out(static_cast<size_t>(c.rows * c.v_dim)), accumulator(static_cast<size_t>(AttentionTile::kRows * v_stride), 99.0f);
  std::vector<uint16_t> half(out.size());
  AttentionTile tile;
  tile.rows = c.rows;
  tile.has_sink = c.sink;
  tile.keys = keys.data();
  tile.values = values.data();
  tile.qk_dim = c.qk_dim;
  tile.v_dim = c.v_dim;
  tile.v_stride = v_stride;
  tile.accumulator = accumulator.data();
  for (int r = 0; r < c.rows; ++r) {
    tile.q[r] = q.data() + r * c.qk_dim;
    tile.last[r] = c.first_position + r / 2;
    tile.first[r] = c.window > 0 ? std::max<int64_t>(0, tile.last[r] - c.window + 1) : 0;
    tile.sink[r] = static_cast<float>(r % 5) - 1;
    tile.out_f32[r] = out.data() + r * c.v_dim;
    tile.out_bf16[r] = half.data() + r * c.v_dim;
  }
  ops.attention(tile);
  tile.bf16 = true;
  ops.attention(tile);
  for (int r = 0; r < c.rows; ++r) {
    std::vector<double> scores;
    double top = c.sink ? static_cast<double>(tile.sink[r]) : -1e300;
    for (int64_t j = tile.first[r]; j <= tile.last[r]; ++j) {
      double score = 0;
      for (int64_t d = 0; d < c.qk_dim; ++d) {
        score += static_cast<double>(tile.q[r][d]) * keys[static_cast<size_t>(j / 16 * 16 * c.qk_dim + d * 16 + j % 16)];
      }
      scores.push_back(score);
      top = std::max(top, score);
    }
    double total = c.sink ? std::exp(static_cast<double>(tile.sink[r]) - top) : 0;
    std::vector<double> expected(static_cast<size_t>(c.v_dim));
    for (size_t i = 0; i < scores.size(); ++i) {
      const double p = std::exp(scores[i] - top);
      total += p;
      for (size_t v = 0; v < expected.size(); ++v)
        expected[v] += p * dense[static_cast<size_t>(tile.first[r] + static_cast<int64_t>(i)) * expected.size() + v];
    }
    for (size_t v = 0; v < expected.size(); ++v) {
      const size_t at = static_cast<size_t>(r * c.v_dim) + v;
      // A score of size s is off by some s * 2^-24, and so is the logarithm of its probability.
      ASSERT_NEAR(out[at], expected[v] / total, 4e-6 + 1e-6 * static_cast<double>(c.scale)) << "row " << r << " value " << v;
      ASSERT_EQ(half[at], BF16FromF32(out[at]));
    }
  }
}

TEST_P(VectorOpsTest, AttentionIsSoftmaxOverTheVisibleKeys) {
  for (const AttentionCase& c : std::vector<AttentionCase>{
           {1, 64, 64, 0, 0, false, 1},      // one key: the value itself
           {1, 64, 64, 511, 0, false, 3},    // decode
           {2, 128, 128, 700, 0, false, 3},  // decode, two heads
           {7, 24, 20, 57, 0, false, 3},     // sizes that fill no lane
           {32, 32, 32, 0, 0, true, 3},      // a tile from the start
           {32, 48, 32, 200, 16, false, 3},  // a window inside one chunk and across two
           {31, 64, 64, 300, 128, true, 3},  // window and sink
           {32, 16, 16, 1000, 1, true, 3},   // sees only itself
           {32, 64, 96, 130, 0, false, 60},  // scores that leave one key
           {6, 64, 64, 95, 0, true, 0},      // flat
       }) {
    SCOPED_TRACE(testing::Message() << c.rows << " rows, qk " << c.qk_dim << ", v " << c.v_dim << ", at " << c.first_position << ", window "
                                    << c.window);
    CheckAttention(Table(), c);
  }
}

TEST_P(VectorOpsTest, ARowDoesNotDependOnItsNeighbours) {
  const std::vector<float> keys = Random(192 * 32, 11), values = Random(192 * 32, 12), q = Random(32 * 32, 13);
  std::vector<float> together(32 * 32), alone(32 * 32), accumulator(32 * 32);
  const auto run = [&](int begin, int end, std::vector<float>& out) {
    AttentionTile tile;
    tile.rows = end - begin;
    tile.keys = keys.data();
    tile.values = values.data();
    tile.qk_dim = tile.v_dim = tile.v_stride = 32;
    tile.accumulator = accumulator.data();
    for (int r = begin; r < end; ++r) {
      tile.q[r - begin] = q.data() + r * 32;
      tile.first[r - begin] = r;
      tile.last[r - begin] = 100 + r * 2;
      tile.out_f32[r - begin] = out.data() + r * 32;
    }
    Table().attention(tile);
  };
  run(0, 32, together);
  for (int r = 0; r < 32; ++r) run(r, r + 1, alone);
  EXPECT_EQ(together, alone);
}

}  // namespace
}  // namespace billfish::model
