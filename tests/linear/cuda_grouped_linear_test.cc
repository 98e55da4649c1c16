// GroupedLinear on a GPU against fp64: every scheme, experts without rows, with one and with many, gathered rows, bias.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "billfish/cuda.h"
#include "support/device_numbers.h"
#include "support/linear_problem.h"
#include "support/scheme_test.h"

namespace billfish {
namespace {

using test::DeviceNumbers;
using test::kGpu;

// Rows that each expert gets, in turn: decode kernels serve few rows an expert, tile kernels many.
const std::vector<std::vector<int64_t>> kCounts = {{1},
                                                   {0, 0, 1, 0, 1},
                                                   {2, 0, 3, 1, 0},
                                                   {8, 9, 0, 16, 1},
                                                   {17, 24, 32, 0, 48},
                                                   {64, 65, 0, 1, 100},
                                                   {0, 128, 257, 3, 0},
                                                   {1000, 0, 1, 0, 0},
                                                   {4096, 5, 0, 7, 2}};
constexpr int64_t kExperts = 5, kTokens = 300;

class CudaGroupedLinear : public testing::TestWithParam<std::string_view> {};

std::vector<std::string_view> GpuSchemes() {
  std::vector<std::string_view> names;
  for (const std::string_view name : SchemeNames()) {
    if (name != "f32") names.push_back(name);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Schemes, CudaGroupedLinear, testing::ValuesIn(GpuSchemes()), test::SchemeTestName);

TEST_P(CudaGroupedLinear, AgreesWithTheDefinitionHoweverRowsFallOnExperts) {
  BILLFISH_NEEDS_GPU();
  const QuantScheme scheme = *SchemeByName(GetParam());
  const DType dtype = scheme.codes == CodeBook::kF16 ? DType::kF16 : DType::kBF16;
  test::Bounds bounds = test::Bounds::ExactF32();
  bounds.norm = 2e-6;  // the tensor cores' sums, docs/NUMERICS.md
  std::mt19937 random(7);
  for (const auto& [N, K] : {std::pair<int64_t, int64_t>{200, 320}, {65, 97}}) {
    const PackedWeight weight = test::RandomWeight(scheme, kExperts, N, K, 11);
    const std::vector<float> bias = test::Gaussian(static_cast<size_t>(kExperts * N), 12);
    LinearOptions options;
    options.activation = dtype;
    options.device = kGpu;
    options.bias = ConstTensorView(bias.data(), DType::kF32, {kExperts, N});
    const auto linear = GroupedLinear::Create(weight, options);
    ASSERT_TRUE(linear) << linear.status().message();
    std::vector<float> tokens = test::Gaussian(static_cast<size_t>(kTokens * K), 13);
    for (float& value : tokens) value = dtype == DType::kBF16 ? F32FromBF16(BF16FromF32(value)) : F32FromF16(F16FromF32(value));
    const DeviceNumbers x(tokens, dtype);
    for (const std::vector<int64_t>& counts : kCounts) {
      std::vector<int64_t> offsets = {0};
      for (const int64_t count : counts) offsets.push_back(offsets.back() + count);
      offsets.resize(kExperts + 1, offsets.back());
      const int64_t rows = offsets.back();
      std::vector<int32_t> gather;
      for (int64_t r = 0; r < rows; ++r) gather.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(kTokens)));
      const DeviceNumbers y(rows * N, DType::kF32);
      auto scratch = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, linear->WorkspaceBytes(rows, kTokens)));
      ASSERT_TRUE(scratch) << scratch.status().message();
      Workspace workspace(scratch->span());
      ExecContext ctx{workspace};
      const Status status = linear->Forward(x.View(kTokens, K), offsets, gather, y.View(rows, N), ctx);
      ASSERT_TRUE(status.ok()) << status.message();
      const std::vector<float> found = y.Read();
      const test::Expected expected = test::Multiply(weight, tokens, offsets, gather, bias);
      ASSERT_TRUE(test::NumericChecker(expected, bounds, std::string(linear->kernel())).Check([&](int64_t r, int64_t n) {
        return found[static_cast<size_t>(r * N + n)];
      })) << scheme.Name()
          << " [" << N << ", " << K << "], " << rows << " rows";
    }
  }
}

}  // namespace
}  // namespace billfish
