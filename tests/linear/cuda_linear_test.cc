// Linear on a GPU against fp64: every scheme, odd shapes, every row count at which a kernel or tile changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "billfish/cuda.h"
#include "support/device_numbers.h"
#include "support/linear_problem.h"
#include "support/scheme_test.h"

namespace billfish {
namespace {

using test::DeviceNumbers;
using test::kGpu;

constexpr int64_t kRowCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 24, 32, 48, 64, 65, 100, 128, 257, 1000, 4096};

// Tensor cores align the products of a step to the largest of them and of the running sum and cut off what lies below: sums of 22-bit
// products (f16 by f16) lose up to 1.5e-6 of what was added at K = 704, where rounding would lose 1e-7. docs/NUMERICS.md.
test::Bounds BoundsOf(DType y) {
  test::Bounds bounds = y == DType::kF32 ? test::Bounds::ExactF32() : test::Bounds::ExactBF16();
  if (y == DType::kF16) bounds.output = 0x1p-11;
  bounds.norm = 2e-6;
  return bounds;
}

std::vector<float> Rounded(std::vector<float> values, DType dtype) {
  for (float& value : values) value = dtype == DType::kBF16 ? F32FromBF16(BF16FromF32(value)) : F32FromF16(F16FromF32(value));
  return values;
}

struct Case {
  DType x = DType::kBF16, y = DType::kF32;
  std::string kernel;
  bool strided = false;
};

// Rows 0..M-1 of one linear for each M, against the first rows of one expected product.
void CheckRowCounts(const PackedWeight& weight, std::span<const int64_t> row_counts, const Case& c, const std::vector<float>& bias,
                    uint64_t seed) {
  const int64_t N = weight.N(), K = weight.K();
  const int64_t most = *std::max_element(row_counts.begin(), row_counts.end());
  const std::vector<float> x = Rounded(test::Gaussian(static_cast<size_t>(most * K), seed), c.x);
  const test::Expected all = test::Multiply(weight, x, {0, most}, {}, bias);
  LinearOptions options;
  options.activation = c.x;
  options.device = kGpu;
  options.kernel = c.kernel;
  if (!bias.empty()) options.bias = ConstTensorView(bias.data(), DType::kF32, {N});
  const auto linear = Linear::Create(weight, options);
  ASSERT_TRUE(linear) << linear.status().message();
  const int64_t x_stride = K + (c.strided ? 3 : 0), y_stride = N + (c.strided ? 5 : 0);
  std::vector<float> x_rows(static_cast<size_t>(most * x_stride), NAN);
  for (int64_t r = 0; r < most; ++r) std::copy_n(x.begin() + r * K, K, x_rows.begin() + r * x_stride);
  const DeviceNumbers device_x(x_rows, c.x);
  for (const int64_t M : row_counts) {
    const DeviceNumbers y(M * y_stride, c.y);
    auto scratch = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, linear->WorkspaceBytes(M)));
    ASSERT_TRUE(scratch) << scratch.status().message();
    Workspace workspace(scratch->span());
    ExecContext ctx{workspace};
    const Status status = linear->Forward(device_x.View(M, K, x_stride), y.View(M, N, y_stride), ctx);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> found = y.Read();
    test::Expected expected{
        M, N, K, {all.values.begin(), all.values.begin() + M * N}, {all.magnitude.begin(), all.magnitude.begin() + M * N}};
    ASSERT_TRUE(test::NumericChecker(expected, BoundsOf(c.y), std::string(linear->kernel())).Check([&](int64_t r, int64_t n) {
      return found[static_cast<size_t>(r * y_stride + n)];
    })) << weight.scheme().Name()
        << " [" << N << ", " << K << "], M = " << M << ", x " << DTypeName(c.x) << ", y " << DTypeName(c.y);
    for (int64_t r = 0; r < M; ++r) {
      for (int64_t n = N; n < y_stride; ++n)
        ASSERT_TRUE(std::isnan(found[static_cast<size_t>(r * y_stride + n)])) << "wrote past row " << r;
    }
  }
}

class CudaLinear : public testing::TestWithParam<std::string_view> {
 protected:
  QuantScheme scheme() const { return *SchemeByName(GetParam()); }
};

std::vector<std::string_view> GpuSchemes() {
  std::vector<std::string_view> names;
  for (const std::string_view name : SchemeNames()) {
    if (name != "f32") names.push_back(name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Schemes, CudaLinear, testing::ValuesIn(GpuSchemes()), test::SchemeTestName);

// The activations that the scheme takes: bf16 wherever it can, f16 too unless numbers would leave its range.
std::vector<DType> ActivationsOf(const QuantScheme& scheme) {
  if (scheme.codes == CodeBook::kF16) return {DType::kF16};
  if (scheme.codes == CodeBook::kBF16 || scheme.scale == DType::kF8E8M0) return {DType::kBF16};
  return {DType::kBF16, DType::kF16};
}

TEST_P(CudaLinear, AgreesWithTheDefinitionForEveryRowCount) {
  BILLFISH_NEEDS_GPU();
  uint64_t seed = 40;
  for (const DType x : ActivationsOf(scheme())) {
    const PackedWeight weight = test::RandomWeight(scheme(), 1, 192, 384, ++seed);
    CheckRowCounts(weight, kRowCounts, {x, DType::kF32}, {}, seed);
    const PackedWeight odd = test::RandomWeight(scheme(), 1, 259, 353, seed);
    CheckRowCounts(odd, kRowCounts, {x, x, "", true}, test::Gaussian(259, seed), seed);
  }
}

TEST_P(CudaLinear, AgreesWithTheDefinitionForOddShapes) {
  BILLFISH_NEEDS_GPU();
  uint64_t seed = 70;
  const int64_t few[] = {1, 3, 9, 17, 64, 65, 130};
  for (const auto& [N, K] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 64}, {63, 128}, {65, 96}, {704, 17}, {33, 2880}, {704, 704}, {5, 10944}, {2880, 64}}) {
    const PackedWeight weight = test::RandomWeight(scheme(), 1, N, K, ++seed);
    const DType x = ActivationsOf(scheme()).back();
    CheckRowCounts(weight, few, {x, seed % 2 == 0 ? DType::kF32 : x, "", true}, test::Gaussian(static_cast<size_t>(N), seed), seed);
  }
}

TEST_P(CudaLinear, EachKernelOfTheTableAgreesOnItsOwn) {
  BILLFISH_NEEDS_GPU();
  const PackedWeight weight = test::RandomWeight(scheme(), 1, 130, 320, 5);
  Problem problem = test::ProblemOf(Op::kLinear, weight, ActivationsOf(scheme()).front());
  problem.device = kGpu;
  const std::vector<std::string> kernels = test::SupportedKernels(problem);
  EXPECT_GE(kernels.size(), 2U);
  const int64_t few[] = {1, 8, 16, 33, 64};
  for (const std::string& kernel : kernels) CheckRowCounts(weight, few, {problem.activation, DType::kF32, kernel}, {}, 6);
}

TEST_P(CudaLinear, ActOrderReadsTheRightColumns) {
  BILLFISH_NEEDS_GPU();
  const PackedWeight weight = test::WithRandomPerm(test::RandomWeight(scheme(), 1, 96, 320, 7), 8);
  const int64_t few[] = {1, 6, 40, 100};
  CheckRowCounts(weight, few, {ActivationsOf(scheme()).front(), DType::kF32}, {}, 9);
}

TEST(CudaLinearRepeats, AHundredRunsGiveTheSameBits) {
  BILLFISH_NEEDS_GPU();
  for (const int64_t M : {1, 16, 64, 200}) {
    const PackedWeight weight = test::RandomWeight(schemes::kNvfp4, 1, 2048, 2880, 3);
    LinearOptions options;
    options.device = kGpu;
    const auto linear = Linear::Create(weight, options);
    ASSERT_TRUE(linear) << linear.status().message();
    const DeviceNumbers x(test::Gaussian(static_cast<size_t>(M * 2880), 4), DType::kBF16);
    auto scratch = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, linear->WorkspaceBytes(M)));
    ASSERT_TRUE(scratch);
    Workspace workspace(scratch->span());
    ExecContext ctx{workspace};
    std::vector<float> first;
    for (int run = 0; run < 100; ++run) {
      const DeviceNumbers y(M * 2048, DType::kF32);
      ASSERT_TRUE(linear->Forward(x.View(M, 2880), y.View(M, 2048), ctx).ok());
      std::vector<float> found = y.Read();
      if (run == 0)
        first = std::move(found);
      else
        ASSERT_EQ(0, std::memcmp(found.data(), first.data(), first.size() * sizeof(float))) << "run " << run << ", M = " << M;
    }
  }
}

TEST(CudaLinearGraphs, TwoGraphsOnTwoStreamsGiveWhatEagerCallsGive) {
  BILLFISH_NEEDS_GPU();
  const PackedWeight weight = test::RandomWeight(schemes::Int4(128, true), 1, 1024, 1024, 3);
  LinearOptions options;
  options.device = kGpu;
  const auto linear = Linear::Create(weight, options);
  ASSERT_TRUE(linear) << linear.status().message();
  struct Lane {
    DeviceNumbers x, y, eager;
    DeviceBuffer scratch;
    Stream stream;
    CudaGraph graph;
    int64_t M;
  };
  std::vector<Lane> lanes;
  for (const int64_t M : {3, 70}) {
    Lane lane{DeviceNumbers(test::Gaussian(static_cast<size_t>(M * 1024), static_cast<uint64_t>(M)), DType::kBF16),
              DeviceNumbers(M * 1024, DType::kF32),
              DeviceNumbers(M * 1024, DType::kF32),
              {},
              {},
              {},
              M};
    lane.scratch = std::move(*DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, linear->WorkspaceBytes(M))));
    lane.stream = std::move(*Stream::Create(kGpu));
    Workspace workspace(lane.scratch.span());
    ExecContext ctx{workspace, 1, lane.stream.get()};
    ASSERT_TRUE(linear->Forward(lane.x.View(M, 1024), lane.eager.View(M, 1024), ctx).ok());
    ASSERT_TRUE(lane.stream.Synchronize().ok());
    auto graph = CudaGraph::Capture(lane.stream, [&] { return linear->Forward(lane.x.View(M, 1024), lane.y.View(M, 1024), ctx); });
    ASSERT_TRUE(graph) << graph.status().message();
    lane.graph = std::move(*graph);
    lanes.push_back(std::move(lane));
  }
  for (int replay = 0; replay < 20; ++replay) {
    for (const Lane& lane : lanes) ASSERT_TRUE(lane.graph.Launch(lane.stream.get()).ok());
  }
  for (const Lane& lane : lanes) {
    ASSERT_TRUE(lane.stream.Synchronize().ok());
    EXPECT_EQ(lane.y.Read(), lane.eager.Read()) << "M = " << lane.M;
  }
}

TEST(CudaLinearErrors, OperandsOfAnotherDeviceAreRefusedInWords) {
  BILLFISH_NEEDS_GPU();
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 1, 64, 64, 3);
  LinearOptions options;
  options.device = kGpu;
  const auto linear = Linear::Create(weight, options);
  ASSERT_TRUE(linear) << linear.status().message();
  test::Numbers x(64, DType::kBF16), y(64, DType::kF32);
  Workspace workspace;
  ExecContext ctx{workspace};
  EXPECT_THAT(std::string(linear->Forward(x.View(1, 64), y.View(1, 64), ctx).message()),
              testing::HasSubstr("runs on cuda:0, copy them there"));
  options.activation = DType::kF16;
  const auto refused = Linear::Create(weight, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(std::string(refused.error().message()), testing::HasSubstr("use bf16 activations"));
}

}  // namespace
}  // namespace billfish
