// The dense decode kernel against the fp64 product of the decoded weight.
#include "cuda/linear_decode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tile_problem.h"

namespace billfish::cuda {
namespace {

using Case = LinearCase;

// x is surrounded by not-a-number, y begins as not-a-number and must be written everywhere and nowhere else. Returns y.
std::vector<float> ExpectRight(const LinearDecode& decode, const WeightOnDevice& on_device, const Case& c) {
  const PackedWeight& weight = on_device.weight;
  const int64_t N = weight.N(), K = weight.K(), x_stride = K + c.x_padding, y_stride = N + c.y_padding;
  const std::string name = NameOf(weight, c.M);
  const std::vector<float> values = Rounded(test::Gaussian(static_cast<size_t>(c.M * K), 7), c.x);
  const test::DeviceNumbers x(c.Surrounded(values, K), c.x), y(c.M * y_stride, c.y);
  const Status status = decode.Run(x.data() + 2 * c.x_offset, x_stride, c.M, {y.data(), y_stride, c.y}, nullptr);
  EXPECT_TRUE(status.ok()) << name << ": " << status.message();
  const std::vector<float> found = y.Read();
  const test::Expected expected = test::Multiply(weight, values, {0, c.M}, {}, on_device.bias);
  EXPECT_TRUE(test::NumericChecker(expected, TileBounds(c.y), name).Check([&](int64_t r, int64_t n) {
    return found[static_cast<size_t>(r * y_stride + n)];
  }));
  c.ExpectWritten(found, N, name);
  return found;
}

void ExpectRight(const WeightOnDevice& on_device, std::vector<Case> cases) {
  const auto decode = LinearDecode::Create(Gpu(), on_device.View(), cases[0].x);
  ASSERT_TRUE(decode) << NameOf(on_device.weight, 0) << ": " << decode.status().message();
  for (const Case& c : cases) ExpectRight(*decode, on_device, c);
}

std::vector<Case> CasesOf(std::vector<int64_t> rows, DType x = DType::kBF16, DType y = DType::kBF16) {
  std::vector<Case> cases;
  for (const int64_t M : rows) cases.push_back({.M = M, .x = x, .y = y});
  return cases;
}

TEST(LinearDecode, MultipliesEveryFormat) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : EveryFormat()) {
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{704, 2880}, {65, 1000}}) {
      const PackedWeight weight = RandomWeight(scheme, 1, N, K);
      const WeightOnDevice on_device(weight, Bias(weight));
      ExpectRight(on_device, CasesOf({1, 8, 13, 27, 50}));
      ExpectRight(on_device, CasesOf({3, 16, 32, 64}, DType::kBF16, DType::kF32));
    }
  }
}

TEST(LinearDecode, MultipliesByF16) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : FormatsForF16()) {
    const WeightOnDevice on_device(RandomWeight(scheme, 1, 192, 384));
    ExpectRight(on_device, CasesOf({2, 11, 40}, DType::kF16, DType::kF16));
    ExpectRight(on_device, CasesOf({5, 20, 64}, DType::kF16, DType::kF32));
  }
}

TEST(LinearDecode, MultipliesScalesThatSpanTheirType) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(WideScaledWeight());
  ASSERT_TRUE(on_device.tiles.form().layout.wide_scales);
  ExpectRight(on_device, CasesOf({1, 16, 33}, DType::kBF16, DType::kF32));
}

TEST(LinearDecode, MultipliesAnyNumberOfRows) {
  BILLFISH_NEEDS_GPU();
  std::vector<int64_t> rows = {24, 25, 31, 32, 33, 47, 48, 63, 64, 65, 100, 130};
  for (int64_t M = 1; M <= 17; ++M) rows.push_back(M);
  for (const QuantScheme& scheme : {schemes::Int4(128, true), schemes::kNvfp4}) {
    ExpectRight(WeightOnDevice(RandomWeight(scheme, 1, 704, 2880)), CasesOf(rows));
    ExpectRight(WeightOnDevice(RandomWeight(scheme, 1, 20000, 256)), CasesOf({1, 9, 30, 64}));
  }
}

TEST(LinearDecode, MultipliesOddShapes) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(32, false), schemes::Int4(128, true), schemes::kNvfp4, schemes::kBf16}) {
    for (const int64_t N : {1, 63, 65, 704}) {
      for (const int64_t K : {1, 16, 63, 65, 704}) {
        ExpectRight(WeightOnDevice(RandomWeight(scheme, 1, N, K)), CasesOf({1, 3, 12, 29, 64}, DType::kBF16, DType::kF32));
      }
    }
  }
  ExpectRight(WeightOnDevice(RandomWeight(schemes::Int4(128, true), 1, 10944, 704)), CasesOf({4, 16, 64}));
  ExpectRight(WeightOnDevice(RandomWeight(schemes::kNvfp4, 1, 704, 10944)), CasesOf({4, 16, 64}));
}

TEST(LinearDecode, MultipliesRowsThatDoNotFitIntoSharedMemory) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(128, true), schemes::kMxfp4}) {
    ExpectRight(WeightOnDevice(RandomWeight(scheme, 1, 130, 73728)), CasesOf({1, 8, 16, 33}, DType::kBF16, DType::kF32));
  }
}

TEST(LinearDecode, MultipliesOneRowByWeightsThatTheGpuHolds) {
  BILLFISH_NEEDS_GPU();
  // Of an H200: every number of steps that there are kernels for, stretches of one block and of two, of one step and of none.
  for (const auto& [N, K] : {std::pair<int64_t, int64_t>{2048, 4096}, {5120, 2048}, {5120, 2880}, {6000, 4096}}) {
    ExpectRight(WeightOnDevice(RandomWeight(schemes::kBf16, 1, N, K)), CasesOf({1}, DType::kBF16, DType::kF32));
  }
}

TEST(LinearDecode, MultipliesOneRowByFewColumns) {
  BILLFISH_NEEDS_GPU();
  for (const auto& [N, K] : {std::pair<int64_t, int64_t>{2100, 200}, {6000, 1000}, {50, 72}}) {
    const PackedWeight weight = RandomWeight(schemes::kBf16, 1, N, K);
    ExpectRight(WeightOnDevice(weight, Bias(weight)),
                {{.M = 1, .y = DType::kF32}, {.M = 1}, {.M = 1, .y = DType::kF16}, {.M = 1, .y = DType::kF32, .x_offset = 1}});
    ExpectRight(WeightOnDevice(RandomWeight(schemes::kF16, 1, N, K)), CasesOf({1}, DType::kF16, DType::kF32));
  }
}

TEST(LinearDecode, TakesAnyStrideAndAlignment) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t K : {256, 255}) {
    const WeightOnDevice on_device(RandomWeight(schemes::Int4(32, true), 1, 200, K));
    std::vector<Case> cases;
    for (const int64_t M : {5, 60}) {
      for (const DType y : {DType::kF32, DType::kBF16, DType::kF16}) {
        for (const int64_t padding : {0, 1, 8}) {
          cases.push_back({.M = M, .y = y, .x_padding = padding, .y_padding = padding});
          cases.push_back({.M = M, .y = y, .x_padding = padding, .y_padding = 3, .x_offset = 1});
        }
      }
    }
    ExpectRight(on_device, cases);
  }
}

TEST(LinearDecode, GivesTheSameBitsEveryTime) {
  BILLFISH_NEEDS_GPU();
  for (const QuantScheme& scheme : {schemes::Int4(128, true), schemes::kNvfp4, schemes::kBf16}) {
    const int64_t N = scheme.codes == CodeBook::kBF16 ? 2048 : 4096, K = 2880;
    const WeightOnDevice on_device(RandomWeight(scheme, 1, N, K));
    const auto decode = LinearDecode::Create(Gpu(), on_device.View(), DType::kBF16);
    ASSERT_TRUE(decode) << decode.status().message();
    for (const int64_t M : {1, 16, 20, 64}) {
      const std::vector<float> first = ExpectRight(*decode, on_device, {.M = M, .y = DType::kF32});
      const test::DeviceNumbers x(Rounded(test::Gaussian(static_cast<size_t>(M * K), 7), DType::kBF16), DType::kBF16);
      for (int i = 0; i < 100; ++i) {
        const test::DeviceNumbers y(M * N, DType::kF32);
        ASSERT_TRUE(decode->Run(x.data(), K, M, {y.data(), N, DType::kF32}, nullptr).ok());
        const std::vector<float> again = y.Read();
        ASSERT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(float)), 0) << scheme.Name() << " M " << M << " run " << i;
      }
    }
  }
}

TEST(LinearDecode, RunsInsideAGraph) {
  BILLFISH_NEEDS_GPU();
  const int64_t N = 512, K = 512;
  const WeightOnDevice on_device(RandomWeight(schemes::kNvfp4, 1, N, K));
  const auto decode = LinearDecode::Create(Gpu(), on_device.View(), DType::kBF16);
  ASSERT_TRUE(decode) << decode.status().message();
  auto stream = Stream::Create(test::kGpu);
  ASSERT_TRUE(stream) << stream.status().message();
  auto* handle = static_cast<CUstream>(stream->get());
  for (const int64_t M : {3, 40}) {
    const test::DeviceNumbers x(Rounded(test::Gaussian(static_cast<size_t>(M * K), 7), DType::kBF16), DType::kBF16),
        middle(M * N, DType::kBF16), y(M * N, DType::kF32), direct(M * N, DType::kF32);
    // The second call reads what the first wrote.
    const auto twice = [&](const test::DeviceNumbers& to) {
      const Status first = decode->Run(x.data(), K, M, {middle.data(), N, DType::kBF16}, handle);
      return first.ok() ? decode->Run(middle.data(), K, M, {to.data(), N, DType::kF32}, handle) : first;
    };
    auto graph = CudaGraph::Capture(*stream, [&] { return twice(y); });
    ASSERT_TRUE(graph) << graph.status().message();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(graph->Launch(stream->get()).ok());
    ASSERT_TRUE(twice(direct).ok());
    ASSERT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(y.Read(), direct.Read());
  }
}

TEST(LinearDecode, NoRowsAreNoWork) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice on_device(RandomWeight(schemes::kNvfp4, 1, 64, 64));
  const auto decode = LinearDecode::Create(Gpu(), on_device.View(), DType::kBF16);
  ASSERT_TRUE(decode) << decode.status().message();
  EXPECT_TRUE(decode->Run(nullptr, 64, 0, {nullptr, 64, DType::kBF16}, nullptr).ok());
}

TEST(LinearDecode, SaysWhyItRefuses) {
  BILLFISH_NEEDS_GPU();
  const WeightOnDevice experts(RandomWeight(schemes::kNvfp4, 2, 64, 64)), one(RandomWeight(schemes::kMxfp4, 1, 64, 64)),
      paired(RandomWeight(schemes::kNvfp4, 1, 64, 64), {}, RowOrder::kGateUpConcatenated);
  const auto refusal = [](const WeightOnDevice& weight, DType x) {
    const auto decode = LinearDecode::Create(Gpu(), weight.View(), x);
    return std::string(decode.status().message());
  };
  EXPECT_NE(refusal(experts, DType::kBF16).find("2 experts in plain row order; it takes one matrix"), std::string::npos);
  EXPECT_NE(refusal(paired, DType::kBF16).find("1 experts in a gate-up row order"), std::string::npos);
  EXPECT_NE(refusal(one, DType::kF16).find("E8M0 scales; f16 has not their range"), std::string::npos);
  const auto decode = LinearDecode::Create(Gpu(), one.View(), DType::kBF16);
  ASSERT_TRUE(decode) << decode.status().message();
  const Status status = decode->Run(nullptr, 64, 1, {nullptr, 64, DType::kU8}, nullptr);
  EXPECT_NE(std::string(status.message()).find("output; it writes F32, BF16 or F16"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace billfish::cuda
