#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "support/linear_problem.h"
#include "support/scheme_test.h"

namespace billfish {
namespace {

using test::Numbers;
using testing::HasSubstr;

class GroupedProperty : public test::SchemeTest {};
INSTANTIATE_TEST_SUITE_P(Schemes, GroupedProperty, test::EverySchemeName(), test::SchemeTestName);

// `rows` sorted rows over E experts, the experts given a share that depends on the seed; some stay empty.
std::vector<int64_t> RandomOffsets(int64_t E, int64_t rows, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<int64_t> counts(static_cast<size_t>(E), 0);
  for (int64_t r = 0; r < rows; ++r) ++counts[rng() % static_cast<size_t>(E) / 2 * 2 % static_cast<size_t>(E)];
  std::vector<int64_t> offsets(1, 0);
  for (int64_t count : counts) offsets.push_back(offsets.back() + count);
  return offsets;
}

void CheckGrouped(const PackedWeight& weight, int64_t T, int64_t rows, bool with_gather, DType x_type, DType y_type, uint64_t seed) {
  const int64_t N = weight.N(), K = weight.K();
  Numbers x(test::Gaussian(static_cast<size_t>(T * K), seed), x_type);
  const std::vector<float> bias = test::Gaussian(static_cast<size_t>(weight.E() * N), seed + 1);
  std::vector<int32_t> gather;
  std::mt19937_64 rng(seed);
  if (with_gather) {
    for (int64_t r = 0; r < rows; ++r) gather.push_back(static_cast<int32_t>(rng() % static_cast<size_t>(T)));
  }
  const std::vector<int64_t> offsets = RandomOffsets(weight.E(), rows, seed);
  const test::Expected expected = test::Multiply(weight, x.Values(), offsets, gather, bias);
  for (const std::string& kernel : test::SupportedKernels(test::ProblemOf(Op::kGroupedLinear, weight, x_type))) {
    LinearOptions options;
    options.activation = x_type;
    options.kernel = kernel;
    options.bias = ConstTensorView(bias.data(), DType::kF32, {weight.E(), N});
    const auto linear = GroupedLinear::Create(weight, options);
    ASSERT_TRUE(linear) << linear.status().message();
    Workspace workspace;
    ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(rows, T)).ok());
    std::vector<float> first;
    for (int threads : {2, 1, 3, 8}) {
      ExecContext ctx{workspace, threads};
      Numbers y(rows * N, y_type);
      const Status status = linear->Forward(x.View(T, K), offsets, gather, y.View(rows, N), ctx);
      ASSERT_TRUE(status.ok()) << status.message();
      if (first.empty()) {
        first = y.Values();
        EXPECT_TRUE(test::NumericChecker(expected, test::BoundsFor(y_type), kernel).Check([&](int64_t r, int64_t c) {
          return y[r * N + c];
        })) << weight.scheme().Name()
            << " rows " << rows;
      }
      EXPECT_EQ(y.Values(), first) << kernel << ", " << threads << " threads";
    }
  }
}

TEST_P(GroupedProperty, EveryKernelAgreesWithTheDefinition) {
  CheckGrouped(test::RandomWeight(scheme(), 5, 33, 64, 1), 4, 4, false, DType::kBF16, DType::kF32, 2);
  CheckGrouped(test::RandomWeight(scheme(), 6, 40, 96, 3), 5, 23, true, DType::kBF16, DType::kBF16, 4);
  CheckGrouped(test::RandomWeight(scheme(), 3, 17, 45, 5), 2, 9, true, DType::kF32, DType::kF32, 6);
  CheckGrouped(test::RandomWeight(scheme(), 1, 8, 32, 7), 3, 3, false, DType::kF32, DType::kF32, 8);
  CheckGrouped(test::WithRandomPerm(test::RandomWeight(scheme(), 4, 20, 64, 9), 10), 3, 11, true, DType::kBF16, DType::kF32, 11);
}

TEST(GroupedLinear, ManyRowsOverManyExpertsAgree) {
  CheckGrouped(test::RandomWeight(schemes::kMxfp4, 40, 64, 64, 1), 700, 2500, true, DType::kBF16, DType::kF32, 2);
}

// A fp32 stack whose expert `poisoned` is NaN throughout.
PackedWeight PoisonedStack(int64_t E, int64_t N, int64_t K, int64_t poisoned) {
  PackedWeight stack = test::RandomWeight(schemes::kF32, E, N, K, 1);
  std::vector<float> values = test::DecodedF32(stack);
  std::fill_n(values.begin() + poisoned * N * K, N * K, NAN);
  WeightParts parts;
  parts.codes = Bytes::Own(values);
  return *PackedWeight::FromParts(schemes::kF32, E, N, K, parts);
}

TEST(GroupedLinear, ExpertWithoutRowsAddsNothing) {
  const auto linear = GroupedLinear::Create(PoisonedStack(3, 33, 64, 1), {});
  ASSERT_TRUE(linear);
  Numbers x(test::Gaussian(4 * 64, 2), DType::kBF16);
  Workspace workspace;
  ASSERT_TRUE(workspace.Reserve(linear->WorkspaceBytes(4, 4)).ok());
  ExecContext ctx{workspace, 2};
  const auto nans = [&](const std::vector<int64_t>& offsets) {
    Numbers y(4 * 33, DType::kF32);
    EXPECT_TRUE(linear->Forward(x.View(4, 64), offsets, {}, y.View(4, 33), ctx).ok());
    const std::vector<float> values = y.Values();
    return std::count_if(values.begin(), values.end(), [](float value) { return std::isnan(value); });
  };
  EXPECT_EQ(nans({0, 2, 2, 4}), 0);
  EXPECT_EQ(nans({0, 2, 3, 4}), 33);
}

struct Bench {
  GroupedLinear linear = std::move(*GroupedLinear::Create(test::RandomWeight(schemes::kMxfp4, 3, 8, 32, 1), {}));
  Workspace workspace;
  Numbers x{test::Gaussian(4 * 32, 2), DType::kBF16};
  Numbers y{5 * 8, DType::kF32};

  Bench() { EXPECT_TRUE(workspace.Reserve(linear.WorkspaceBytes(5, 4)).ok()); }
  std::string Refusal(const std::vector<int64_t>& offsets, const std::vector<int32_t>& gather) {
    ExecContext ctx{workspace, 2};
    return std::string(linear.Forward(x.View(4, 32), offsets, gather, y.View(5, 8), ctx).message());
  }
};

TEST(GroupedLinear, RefusesOffsetsAndGatherWithValuesAndAdvice) {
  Bench bench;
  const std::vector<int32_t> gather = {0, 1, 2, 3, 0};
  EXPECT_EQ(bench.Refusal({0, 1, 2, 5}, gather), "");
  EXPECT_THAT(bench.Refusal({0, 1, 5}, gather), HasSubstr("3 offsets were given for 3 experts; give 4"));
  EXPECT_THAT(bench.Refusal({0, 1, 2, 4}, gather), HasSubstr("offsets go from 0 to 4; they must go from 0 to the 5 rows"));
  EXPECT_THAT(bench.Refusal({1, 1, 2, 5}, gather), HasSubstr("offsets go from 1 to 5"));
  EXPECT_THAT(bench.Refusal({0, 3, 2, 5}, gather), HasSubstr("offsets fall from 3 to 2 at expert 1"));
  EXPECT_THAT(bench.Refusal({0, 1, 2, 5}, {0, 1, 2}), HasSubstr("gather has 3 entries and y has 5 rows"));
  EXPECT_THAT(bench.Refusal({0, 1, 2, 5}, {0, 1, 2, 4, 0}), HasSubstr("gather entry 3 is 4; x has rows 0..3"));
  EXPECT_THAT(bench.Refusal({0, 1, 2, 5}, {0, -1, 2, 3, 0}), HasSubstr("gather entry 1 is -1"));
  EXPECT_THAT(bench.Refusal({0, 1, 2, 5}, {}), HasSubstr("x has 4 rows and y has 5; without gather they must be equal"));
}

TEST(GroupedLinear, NoRowsIsNoWorkAndAnEmptyOneSaysSo) {
  Bench bench;
  ExecContext ctx{bench.workspace, 2};
  EXPECT_TRUE(bench.linear
                  .Forward(ConstTensorView(nullptr, DType::kBF16, {0, 32}), std::vector<int64_t>{0, 0, 0, 0}, {},
                           TensorView(nullptr, DType::kF32, {0, 8}), ctx)
                  .ok());
  const GroupedLinear empty;
  EXPECT_THAT(std::string(empty.Forward({}, {}, {}, {}, ctx).message()), HasSubstr("make it with GroupedLinear::Create"));
  EXPECT_EQ(empty.E() + empty.N() + empty.K(), 0);
}

TEST(GroupedLinear, SaysHowLargeTheWorkspaceMustBe) {
  Bench bench;
  Workspace small;
  ASSERT_TRUE(small.Reserve(64).ok());
  ExecContext ctx{small, 2};
  const Status status = bench.linear.Forward(bench.x.View(4, 32), std::vector<int64_t>{0, 1, 2, 4}, {}, bench.y.View(4, 8), ctx);
  EXPECT_EQ(status.code(), ErrorCode::kOutOfMemory);
  EXPECT_THAT(std::string(status.message()), HasSubstr("GroupedLinear: 4 rows need a workspace of"));
}

}  // namespace
}  // namespace billfish
