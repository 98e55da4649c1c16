// The dense tile kernel against the fp64 product of the decoded weight.
#include "cuda/linear_tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tile_problem.h"

namespace billfish::cuda {
namespace {

using Case = LinearCase;

// Some rows of many: the first, the last, those beside the edges of tiles, and others.
std::vector<int32_t> SampledRows(int64_t M) {
  std::set<int64_t> rows;
  for (const int64_t r :
       {int64_t{0}, int64_t{31}, int64_t{32}, int64_t{63}, int64_t{64}, int64_t{127}, int64_t{128}, M / 2, M - 65, M - 2, M - 1}) {
    if (r >= 0 && r < M) rows.insert(r);
  }
  return {rows.begin(), rows.end()};
}

// Runs the case and checks sampled rows, that everything is finite and that nothing beside y was written. Returns y.
std::vector<float> ExpectRight(const WeightOnDevice& on_device, const Case& c, TileCores cores) {
  const PackedWeight& weight = on_device.weight;
  const int64_t N = weight.N(), K = weight.K(), x_stride = K + c.x_padding, y_stride = N + c.y_padding;
  const std::string name = NameOf(weight, c.M);
  auto tile = LinearTile::Create(Gpu(), on_device.View(), c.x, cores);
  EXPECT_TRUE(tile) << name << ": " << tile.status().message();
  if (!tile) return {};
  const std::vector<float> values = Rounded(test::Gaussian(static_cast<size_t>(c.M * K), 7), c.x);
  const test::DeviceNumbers x(c.Surrounded(values, K), c.x), y(c.M * y_stride, c.y);
  const Status status = tile->Run(x.data() + 2 * c.x_offset, x_stride, c.M, {y.data(), y_stride, c.y}, nullptr);
  EXPECT_TRUE(status.ok()) << name << ": " << status.message();
  const std::vector<float> found = y.Read();
  const std::vector<int32_t> rows = SampledRows(c.M);
  const test::Expected expected = test::Multiply(weight, values, {0, static_cast<int64_t>(rows.size())}, rows, on_device.bias);
  EXPECT_TRUE(test::NumericChecker(expected, TileBounds(c.y), name).Check([&](int64_t r, int64_t n) {
    return found[static_cast<size_t>(rows[static_cast<size_t>(r)] * y_stride + n)];
  }));
  c.ExpectWritten(found, N, name);
  return found;
}

class LinearTileCores : public TileCoresTest {};
INSTANTIATE_TEST_SUITE_P(Kernels, LinearTileCores, EveryTileCores(), TileCoresName);

TEST_P(LinearTileCores, MultipliesEveryFormat) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : EveryFormat()) {
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{704, 320}, {65, 1000}}) {
      const PackedWeight weight = RandomWeight(scheme, 1, N, K);
      const WeightOnDevice on_device(weight, Bias(weight));
      for (const int64_t M : {7, 50, 300}) ExpectRight(on_device, {.M = M, .y = M == 7 ? DType::kF32 : DType::kBF16}, GetParam());
    }
  }
}

TEST_P(LinearTileCores, MultipliesByF16) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : FormatsForF16()) {
    const WeightOnDevice on_device(RandomWeight(scheme, 1, 192, 384));
    for (const int64_t M : {20, 64, 200})
      ExpectRight(on_device, {.M = M, .x = DType::kF16, .y = M == 20 ? DType::kF32 : DType::kF16}, GetParam());
  }
}

TEST_P(LinearTileCores, MultipliesScalesThatSpanTheirType) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(WideScaledWeight());
  ASSERT_TRUE(on_device.tiles.form().layout.wide_scales);
  for (const int64_t M : {20, 64, 200}) ExpectRight(on_device, {.M = M, .y = DType::kF32}, GetParam());
}

TEST_P(LinearTileCores, MultipliesAnyNumberOfRows) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(128, true), schemes::kNvfp4}) {
    const WeightOnDevice narrow(RandomWeight(scheme, 1, 704, 2880)), wide(RandomWeight(scheme, 1, 6000, 512));
    for (const int64_t M : {1, 5, 17, 64, 65, 100, 128, 257, 1000, 4096}) ExpectRight(narrow, {.M = M}, GetParam());
    for (const int64_t M : {16, 100, 700}) ExpectRight(wide, {.M = M}, GetParam());
  }
}

// The least problem whose split sums go to warps that lie side by side along the rows of x.
TEST_P(LinearTileCores, AddsUpASplitKOfFewRows) {
  BILLFISH_NEEDS_GPU();
  ExpectRight(WeightOnDevice(RandomWeight(schemes::kNvfp4, 1, 704, 2880)), {.M = 257}, GetParam());
}

TEST_P(LinearTileCores, MultipliesOddShapes) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(32, false), schemes::kNvfp4, schemes::kBf16}) {
    for (const int64_t N : {1, 63, 65, 2880}) {
      for (const int64_t K : {1, 63, 65, 704}) {
        const WeightOnDevice on_device(RandomWeight(scheme, 1, N, K));
        for (const int64_t M : {3, 129}) ExpectRight(on_device, {.M = M, .y = DType::kF32}, GetParam());
      }
    }
  }
  ExpectRight(WeightOnDevice(RandomWeight(schemes::Int4(128, true), 1, 10944, 704)), {.M = 65}, GetParam());
  ExpectRight(WeightOnDevice(RandomWeight(schemes::kNvfp4, 1, 704, 10944)), {.M = 65}, GetParam());
}

TEST_P(LinearTileCores, TakesAnyStrideAndAlignment) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t K : {256, 255}) {
    const WeightOnDevice on_device(RandomWeight(schemes::Int4(32, true), 1, 200, K));
    for (const DType y : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const int64_t padding : {0, 1, 8}) {
        ExpectRight(on_device, {.M = 70, .y = y, .x_padding = padding, .y_padding = padding}, GetParam());
        ExpectRight(on_device, {.M = 70, .y = y, .x_padding = padding, .y_padding = 3, .x_offset = 1}, GetParam());
      }
    }
  }
}

TEST_P(LinearTileCores, GivesTheSameBitsEveryTime) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(128, true), schemes::kNvfp4}) {
    const WeightOnDevice on_device(RandomWeight(scheme, 1, 512, 4096));  // few tiles: K is split
    for (const int64_t M : {20, 64, 256}) {
      const std::vector<float> first = ExpectRight(on_device, {.M = M, .y = DType::kF32}, GetParam());
      for (int i = 0; i < 3; ++i) {
        const std::vector<float> again = ExpectRight(on_device, {.M = M, .y = DType::kF32}, GetParam());
        ASSERT_EQ(first.size(), again.size());
        EXPECT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(float)), 0) << scheme.Name() << " M " << M;
      }
    }
  }
}

TEST_P(LinearTileCores, RunsInsideAGraph) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(RandomWeight(schemes::kNvfp4, 1, 300, 512));
  const int64_t M = 40, N = 300, K = 512;
  auto tile = LinearTile::Create(Gpu(), on_device.View(), DType::kBF16, GetParam());
  ASSERT_TRUE(tile) << tile.status().message();
  const test::DeviceNumbers x(Rounded(test::Gaussian(static_cast<size_t>(M * K), 7), DType::kBF16), DType::kBF16), y(M * N, DType::kF32),
      direct(M * N, DType::kF32);
  auto stream = Stream::Create(test::kGpu);
  ASSERT_TRUE(stream) << stream.status().message();
  auto* handle = static_cast<CUstream>(stream->get());
  auto graph = CudaGraph::Capture(*stream, [&] { return tile->Run(x.data(), K, M, {y.data(), N, DType::kF32}, handle); });
  ASSERT_TRUE(graph) << graph.status().message();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(graph->Launch(stream->get()).ok());
  ASSERT_TRUE(tile->Run(x.data(), K, M, {direct.data(), N, DType::kF32}, handle).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  EXPECT_EQ(y.Read(), direct.Read());
}

TEST(LinearTile, NoRowsAreNoWork) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(RandomWeight(schemes::kNvfp4, 1, 64, 64));
  auto tile = LinearTile::Create(Gpu(), on_device.View(), DType::kBF16);
  ASSERT_TRUE(tile) << tile.status().message();
  EXPECT_TRUE(tile->Run(nullptr, 64, 0, {nullptr, 64, DType::kBF16}, nullptr).ok());
}

TEST(LinearTile, SaysWhyItRefuses) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice experts(RandomWeight(schemes::kNvfp4, 2, 64, 64)), one(RandomWeight(schemes::kMxfp4, 1, 64, 64)),
      paired(RandomWeight(schemes::kNvfp4, 1, 64, 64), {}, RowOrder::kGateUpConcatenated);
  const auto refusal = [](const WeightOnDevice& weight, DType x) {
    const auto tile = LinearTile::Create(Gpu(), weight.View(), x);
    return std::string(tile.status().message());
  };
  EXPECT_NE(refusal(experts, DType::kBF16).find("2 experts in plain row order; it takes one matrix"), std::string::npos);
  EXPECT_NE(refusal(paired, DType::kBF16).find("1 experts in a gate-up row order"), std::string::npos);
  EXPECT_FALSE(LinearTile::Create(Gpu(), one.View(), DType::kF16));
  auto tile = LinearTile::Create(Gpu(), one.View(), DType::kBF16);
  ASSERT_TRUE(tile) << tile.status().message();
  const test::DeviceNumbers x(std::vector<float>(64, 1.0f), DType::kBF16), y(64, DType::kF32);
  EXPECT_NE(tile->Run(x.data(), 64, 1, {y.data(), 64, DType::kI32}, nullptr).message().find("I32 output; it writes F32, BF16 or F16"),
            std::string::npos);
  EXPECT_NE(tile->Run(x.data(), 64, int64_t{1} << 40, {y.data(), 64, DType::kF32}, nullptr).message().find("split the batch"),
            std::string::npos);
}

}  // namespace
}  // namespace billfish::cuda
