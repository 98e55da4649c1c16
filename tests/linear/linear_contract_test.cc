// What Linear::Create and Forward take and refuse, in which words, and that Forward allocates nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "support/count_allocations.h"
#include "support/linear_problem.h"

namespace billfish {
namespace {

using test::Numbers;
using testing::HasSubstr;

constexpr int64_t kM = 3, kN = 40, kK = 96;

Linear Make(const LinearOptions& options = {}) {
  auto linear = Linear::Create(test::RandomWeight(schemes::kMxfp4, 1, kN, kK, 1), options);
  EXPECT_TRUE(linear) << linear.status().message();
  return linear ? std::move(*linear) : Linear();
}

struct Bench {
  Linear linear = Make();
  Workspace workspace;
  Numbers x{test::Gaussian(kM * kK, 2), DType::kBF16};
  Numbers y{kM * kN, DType::kF32};

  Bench() { EXPECT_TRUE(workspace.Reserve(linear.WorkspaceBytes(kM)).ok()); }
  Status Forward(ConstTensorView input, TensorView output) {
    ExecContext ctx{workspace, 2};
    return linear.Forward(input, output, ctx);
  }
  Status Forward() { return Forward(x.View(kM, kK), y.View(kM, kN)); }
};

void ExpectRefusal(const Status& status, ErrorCode code, const char* text) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

TEST(Linear, TellsItsShapeKernelAndBytes) {
  const Linear linear = Make();
  EXPECT_EQ(linear.N(), kN);
  EXPECT_EQ(linear.K(), kK);
  EXPECT_EQ(linear.weight_bytes(), static_cast<size_t>(kN * (kK / 2 + kK / 32)));
  EXPECT_GE(linear.bytes(), linear.weight_bytes());
  EXPECT_THAT(std::string(linear.kernel()), testing::StartsWith("w4a"));
  EXPECT_EQ(linear.WorkspaceBytes(0), 0U);
}

TEST(Linear, ForwardAllocatesNothing) {
  for (const std::string& kernel :
       test::SupportedKernels(test::ProblemOf(Op::kLinear, test::RandomWeight(schemes::kMxfp4, 1, kN, kK, 1), DType::kBF16))) {
    LinearOptions options;
    options.kernel = kernel;
    Bench bench;
    bench.linear = Make(options);
    ASSERT_TRUE(bench.workspace.Reserve(bench.linear.WorkspaceBytes(kM)).ok());
    ASSERT_TRUE(bench.Forward().ok());
    const int64_t before = test::allocations;
    ASSERT_TRUE(bench.Forward().ok());
    EXPECT_EQ(test::allocations, before) << kernel;
  }
}

TEST(Linear, NoRowsIsNoWork) {
  Bench bench;
  Workspace none;
  ExecContext ctx{none, 2};
  EXPECT_TRUE(bench.linear.Forward(ConstTensorView(nullptr, DType::kBF16, {0, kK}), TensorView(nullptr, DType::kF32, {0, kN}), ctx).ok());
}

TEST(Linear, RowsMayBeStrided) {
  Bench bench;
  ASSERT_TRUE(bench.Forward().ok());
  std::vector<float> wide(static_cast<size_t>(kM * 100), 7.0f);
  const std::vector<float> values = bench.x.Values();
  for (int64_t r = 0; r < kM; ++r) std::copy_n(values.begin() + r * kK, kK, wide.begin() + r * 100);
  Numbers x(wide, DType::kBF16), y(kM * 64, DType::kF32);
  ASSERT_TRUE(bench.Forward(x.View(kM, kK, 100), y.View(kM, kN, 64)).ok());
  for (int64_t r = 0; r < kM; ++r) {
    for (int64_t n = 0; n < kN; ++n) EXPECT_EQ(y[r * 64 + n], bench.y[r * kN + n]);
    for (int64_t n = kN; n < 64; ++n) EXPECT_TRUE(std::isnan(y[r * 64 + n])) << "written between the rows";
  }
}

TEST(Linear, WhatIsNoFiniteNumberReachesItsRowAndNoOther) {
  for (const Mode mode : {Mode::kExact, Mode::kFast}) {
    LinearOptions options;
    options.mode = mode;
    Bench plain;
    plain.linear = Make(options);
    ASSERT_TRUE(plain.Forward().ok());
    for (const float odd : {NAN, INFINITY, -INFINITY}) {
      Bench bench;
      bench.linear = Make(options);
      std::vector<float> values = bench.x.Values();
      values[kK + 5] = odd;
      Numbers x(values, DType::kBF16);
      ASSERT_TRUE(bench.Forward(x.View(kM, kK), bench.y.View(kM, kN)).ok());
      for (int64_t i = 0; i < kM * kN; ++i) {
        if (i / kN == 1) {
          EXPECT_FALSE(std::isfinite(bench.y[i])) << bench.linear.kernel() << " x " << odd << " output " << i % kN;
        } else {
          EXPECT_EQ(bench.y[i], plain.y[i]) << bench.linear.kernel() << " x " << odd << " row " << i / kN;
        }
      }
    }
  }
}

TEST(Linear, BiasOfEveryTypeIsAdded) {
  Bench plain;
  ASSERT_TRUE(plain.Forward().ok());
  const std::vector<float> bias = test::RoundedToBF16(test::Gaussian(kN, 5));
  const std::vector<uint16_t> bf16 = test::ToBF16(bias);
  std::vector<uint16_t> f16;
  for (float value : bias) f16.push_back(F16FromF32(value));
  for (const ConstTensorView& view : {ConstTensorView(bias.data(), DType::kF32, {kN}), ConstTensorView(bf16.data(), DType::kBF16, {kN}),
                                      ConstTensorView(f16.data(), DType::kF16, {kN})}) {
    LinearOptions options;
    options.bias = view;
    Bench bench;
    bench.linear = Make(options);
    ASSERT_TRUE(bench.Forward().ok());
    for (int64_t i = 0; i < kM * kN; ++i) EXPECT_NEAR(bench.y[i], plain.y[i] + bias[static_cast<size_t>(i % kN)], 1e-3) << view.ToString();
  }
}

TEST(Linear, RefusesABiasOfTheWrongShapeOrType) {
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 1, kN, kK, 1);
  const std::vector<float> bias(200, 0.0f);
  LinearOptions options;
  options.bias = ConstTensorView(bias.data(), DType::kF32, {kN + 1});
  ExpectRefusal(Linear::Create(weight, options).status(), ErrorCode::kShapeMismatch,
                "bias of a weight [1, 40, 96] is f32[41]; give a contiguous [40]");
  options.bias = ConstTensorView(bias.data(), DType::kI32, {kN});
  ExpectRefusal(Linear::Create(weight, options).status(), ErrorCode::kInvalidArgument, "give f32, f16 or bf16");
  options.bias = ConstTensorView(bias.data(), DType::kF32, {kN});
  ExpectRefusal(GroupedLinear::Create(weight, options).status(), ErrorCode::kShapeMismatch, "give a contiguous [1, 40]");
}

TEST(Linear, RefusesOperandsWithValuesAndAdvice) {
  Bench bench;
  ExpectRefusal(bench.Forward(bench.x.View(kM, kK - 1), bench.y.View(kM, kN)), ErrorCode::kShapeMismatch,
                "x is bf16[3, 95]; its weight has K = 96");
  ExpectRefusal(bench.Forward(bench.x.View(kM, kK), bench.y.View(kM, kN - 1)), ErrorCode::kShapeMismatch,
                "y is f32[3, 39]; its weight has N = 40");
  ExpectRefusal(bench.Forward(bench.x.View(kM, kK), bench.y.View(kM - 1, kN)), ErrorCode::kShapeMismatch, "the same number of rows");
  Numbers wide(test::Gaussian(kM * kK, 2), DType::kF32);
  ExpectRefusal(bench.Forward(wide.View(kM, kK), bench.y.View(kM, kN)), ErrorCode::kInvalidArgument, "created for BF16 activations");
  ExpectRefusal(bench.Forward(bench.x.View(kM, kK), TensorView(bench.y.data(), DType::kF16, {kM, kN})), ErrorCode::kInvalidArgument,
                "y is f16[3, 40]; give F32 or BF16");
  ExpectRefusal(bench.Forward(bench.x.View(kM, kK), bench.y.View(kM, kN, kN - 1)), ErrorCode::kInvalidArgument, "at least N = 40 apart");
  TensorView columns = bench.x.View(kM, kK);
  columns.set_strides(std::vector<int64_t>{1, 3});
  ExpectRefusal(bench.Forward(columns, bench.y.View(kM, kN)), ErrorCode::kInvalidArgument, "x has strides [1, 3]");
  ExpectRefusal(bench.Forward(ConstTensorView(nullptr, DType::kBF16, {kM, kK}), bench.y.View(kM, kN)), ErrorCode::kInvalidArgument,
                "x has no memory");
  const Device cuda{Device::Kind::kCuda, 0};
  ExpectRefusal(bench.Forward(ConstTensorView(bench.x.data(), DType::kBF16, {kM, kK}, cuda), bench.y.View(kM, kN)),
                ErrorCode::kInvalidArgument, "on another device");
}

TEST(Linear, SaysHowLargeTheWorkspaceMustBe) {
  Bench bench;
  Workspace small;
  ASSERT_TRUE(small.Reserve(1000).ok());
  ExecContext ctx{small, 2};
  const Status status = bench.linear.Forward(bench.x.View(kM, kK), bench.y.View(kM, kN), ctx);
  ExpectRefusal(status, ErrorCode::kOutOfMemory, std::to_string(bench.linear.WorkspaceBytes(kM)).c_str());
  ctx.threads = 0;
  ExpectRefusal(bench.linear.Forward(bench.x.View(kM, kK), bench.y.View(kM, kN), ctx), ErrorCode::kInvalidArgument,
                "0 threads were asked for");
}

TEST(Linear, ManyMoreThreadsThanTheWorkspaceHasRoomForAreNotUsed) {
  Bench bench;
  ASSERT_TRUE(bench.Forward().ok());
  Numbers y(kM * kN, DType::kF32);
  ExecContext ctx{bench.workspace, 1000};
  ASSERT_TRUE(bench.linear.Forward(bench.x.View(kM, kK), y.View(kM, kN), ctx).ok());
  EXPECT_EQ(y.Values(), bench.y.Values());
}

TEST(Linear, AnEmptyOneSaysSo) {
  const Linear empty;
  Workspace workspace;
  ExecContext ctx{workspace, 1};
  ExpectRefusal(empty.Forward({}, {}, ctx), ErrorCode::kInvalidArgument, "make it with Linear::Create");
  EXPECT_EQ(empty.WorkspaceBytes(1), 0U);
  EXPECT_EQ(empty.N() + empty.K(), 0);
  ExpectRefusal(Linear::Create(PackedWeight(), {}).status(), ErrorCode::kInvalidArgument, "the weight is empty");
}

TEST(Linear, AStackOfExpertsIsNotALinear) {
  ExpectRefusal(Linear::Create(test::RandomWeight(schemes::kMxfp4, 2, 4, 32, 1), {}).status(), ErrorCode::kInvalidArgument,
                "use a grouped linear, or one expert of the stack");
}

TEST(Linear, WrongActivationTypeIsRefusedWhenItIsMade) {
  LinearOptions options;
  options.activation = DType::kF16;
  ExpectRefusal(Linear::Create(test::RandomWeight(schemes::kMxfp4, 1, 4, 32, 1), options).status(), ErrorCode::kInvalidArgument,
                "activations are F16; kernels take BF16 or F32");
}

}  // namespace
}  // namespace billfish
