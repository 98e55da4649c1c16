#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "backend/kernel.h"
#include "billfish/backend.h"
#include "support/random_tensor.h"

namespace billfish {
namespace {

using testing::HasSubstr;

Problem Small(const QuantScheme& scheme) {
  Problem problem;
  problem.scheme = scheme;
  problem.N = 64;
  problem.K = 128;
  return problem;
}

class KernelVariable : public testing::Test {
 protected:
  void SetUp() override { unsetenv("BILLFISH_KERNEL"); }
  void TearDown() override { unsetenv("BILLFISH_KERNEL"); }
};

std::string FirstSupported(const Problem& problem) {
  for (const Verdict& verdict : Explain(problem)) {
    if (verdict.supported) return std::string(verdict.kernel);
  }
  return "none";
}

using Registry = KernelVariable;

TEST_F(Registry, EveryVerdictGivesAReasonForEveryScheme) {
  for (std::string_view name : SchemeNames()) {
    for (DType activation : {DType::kBF16, DType::kF32, DType::kI8}) {
      for (Mode mode : {Mode::kExact, Mode::kFast}) {
        for (Op op : {Op::kLinear, Op::kGroupedLinear}) {
          Problem problem = Small(*SchemeByName(name));
          problem.activation = activation;
          problem.mode = mode;
          problem.op = op;
          const std::vector<Verdict> verdicts = Explain(problem);
          ASSERT_GE(verdicts.size(), 2U);
          for (const Verdict& verdict : verdicts) {
            EXPECT_FALSE(verdict.kernel.empty());
            EXPECT_GE(verdict.reason.size(), 10U) << verdict.kernel;
          }
          EXPECT_EQ(FirstSupported(problem) == "none", activation == DType::kI8);
        }
      }
    }
  }
}

TEST_F(Registry, TheReferenceIsTheLastRowAndTakesEverything) {
  for (std::string_view name : SchemeNames()) {
    const Verdict last = Explain(Small(*SchemeByName(name))).back();
    EXPECT_THAT(std::string(last.kernel), testing::EndsWith("_linear_reference"));
    EXPECT_TRUE(last.supported);
  }
}

TEST_F(Registry, ExactModeNeverRoundsActivationsToInt8) {
  Problem problem = Small(schemes::kMxfp4);
  for (const Verdict& verdict : Explain(problem)) {
    if (verdict.supported) {
      EXPECT_THAT(std::string(verdict.kernel), testing::Not(HasSubstr("a8_")));
    }
  }
}

TEST_F(Registry, ProblemsThatMeanNothingAreRefusedByEveryRowInWords) {
  const auto refuses = [](const Problem& problem, const char* text) {
    for (const Verdict& verdict : Explain(problem)) {
      EXPECT_FALSE(verdict.supported);
      EXPECT_THAT(verdict.reason, HasSubstr(text));
    }
  };
  Problem problem = Small(schemes::kMxfp4);
  problem.N = 0;
  refuses(problem, "N = 0");
  problem = Small(schemes::kMxfp4);
  problem.E = 4;
  refuses(problem, "a linear has one weight and E = 4 were given");
  problem = Small(schemes::kMxfp4);
  problem.scheme.scale = DType::kI64;
  refuses(problem, "I64 scales");
  problem = Small(schemes::kMxfp4);
  problem.K = int64_t{1} << 31;
  refuses(problem, "above 2^30");
}

TEST_F(Registry, ATierInTheVariableKeepsHigherTiersOut) {
  const Problem problem = Small(schemes::kMxfp4);
  setenv("BILLFISH_KERNEL", "scalar", 1);
  EXPECT_EQ(FirstSupported(problem), "w4a32_linear_scalar");
  EXPECT_THAT(Explain(problem).front().reason, HasSubstr("BILLFISH_KERNEL=scalar leaves it out; unset the variable"));
  setenv("BILLFISH_KERNEL", "reference", 1);
  EXPECT_EQ(FirstSupported(problem), "w4a32_linear_reference");
  EXPECT_EQ(FirstSupported(Small(schemes::kBf16)), "w16a32_linear_reference");
}

TEST_F(Registry, AKernelInTheVariableHoldsForWeightsOfEveryWidth) {
  setenv("BILLFISH_KERNEL", "w4a32_linear_scalar", 1);
  EXPECT_EQ(FirstSupported(Small(schemes::kMxfp4)), "w4a32_linear_scalar");
  EXPECT_EQ(FirstSupported(Small(schemes::kBf16)), "w16a32_linear_scalar");
}

TEST_F(Registry, AnUnknownNameIsAnErrorThatListsTheNames) {
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 1, 64, 128, 1);
  const auto by_option = backend::MakeKernel(Small(schemes::kMxfp4), weight, {}, "sse9");
  ASSERT_FALSE(by_option);
  EXPECT_EQ(by_option.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(by_option.error().message()), testing::AllOf(HasSubstr("the kernel option asks for kernel \"sse9\""),
                                                                       HasSubstr("scalar"), HasSubstr("w4a32_linear_scalar")));
  setenv("BILLFISH_KERNEL", "sse9", 1);
  const auto by_variable = backend::MakeKernel(Small(schemes::kMxfp4), weight, {}, "");
  ASSERT_FALSE(by_variable);
  EXPECT_THAT(std::string(by_variable.error().message()), HasSubstr("BILLFISH_KERNEL asks for kernel \"sse9\""));
  for (const Verdict& verdict : Explain(Small(schemes::kMxfp4))) {
    EXPECT_FALSE(verdict.supported);
    EXPECT_THAT(verdict.reason, HasSubstr("BILLFISH_KERNEL asks for kernel \"sse9\""));
  }
}

TEST_F(Registry, AProblemThatNothingSupportsListsEveryRefusal) {
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 1, 64, 128, 1);
  const auto kernel = backend::MakeKernel(Small(schemes::kMxfp4), weight, {}, "w8a32_linear_scalar");
  ASSERT_FALSE(kernel);
  EXPECT_EQ(kernel.error().code(), ErrorCode::kUnsupported);
  const std::string message(kernel.error().message());
  EXPECT_THAT(message, HasSubstr("no kernel computes linear mxfp4 [64, 128], bf16 activations, exact, cpu:\n"));
  for (const Verdict& verdict : Explain(Small(schemes::kMxfp4)))
    EXPECT_THAT(message, HasSubstr("\n  " + std::string(verdict.kernel) + ": "));
  EXPECT_THAT(message, HasSubstr("w8a32_linear_scalar was insisted on"));
}

TEST_F(Registry, EveryTierCanBeInsistedOn) {
  const PackedWeight weight = test::RandomWeight(schemes::kMxfp4, 1, 64, 128, 1);
  for (const char* tier : {"reference", "scalar", "avx2", "avx512", "avx512bf16"}) {
    const auto kernel = backend::MakeKernel(Small(schemes::kMxfp4), weight, {}, tier);
    EXPECT_TRUE(kernel) << tier;
  }
  EXPECT_EQ((*backend::MakeKernel(Small(schemes::kMxfp4), weight, {}, "reference"))->name(), "w4a32_linear_reference");
}

TEST_F(Registry, ExplainAgreesWithWhatIsMade) {
  for (std::string_view name : SchemeNames()) {
    Problem problem = Small(*SchemeByName(name));
    const auto kernel = backend::MakeKernel(problem, test::RandomWeight(problem.scheme, 1, 64, 128, 1), {}, "");
    ASSERT_TRUE(kernel);
    EXPECT_EQ((*kernel)->name(), FirstSupported(problem)) << name;
  }
}

TEST(Problem, DescribesItself) {
  Problem problem = Small(schemes::kNvfp4);
  EXPECT_EQ(problem.ToString(), "linear nvfp4 [64, 128], bf16 activations, exact, cpu");
  problem.op = Op::kGroupedLinear;
  problem.E = 8;
  problem.act_order = true;
  problem.mode = Mode::kFast;
  problem.activation = DType::kF32;
  problem.device = {Device::Kind::kCuda, 2};
  EXPECT_EQ(problem.ToString(), "grouped linear nvfp4 [8, 64, 128] with act-order, f32 activations, fast, cuda:2");
}

}  // namespace
}  // namespace billfish
