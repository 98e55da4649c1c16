// The GPU rows of the table, asked about GPUs that are described rather than present.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "billfish/backend.h"

namespace billfish {
namespace {

using testing::HasSubstr;

CudaDeviceInfo Gpu(const char* name, int major, int minor) {
  CudaDeviceInfo gpu;
  gpu.name = name;
  gpu.major = major, gpu.minor = minor;
  gpu.sms = 132;
  return gpu;
}

Problem Of(const QuantScheme& scheme, Op op = Op::kLinear) {
  Problem problem;
  problem.op = op;
  problem.scheme = scheme;
  problem.N = 4096, problem.K = 4096;
  problem.E = op == Op::kGroupedLinear ? 8 : 1;
  return problem;
}

std::string FirstSupported(const Problem& problem, const CudaDeviceInfo& gpu) {
  for (const Verdict& verdict : Explain(problem, gpu)) {
    if (verdict.supported) return std::string(verdict.kernel);
  }
  return "none";
}

void ExpectRefusal(const Problem& problem, const CudaDeviceInfo& gpu, const char* text) {
  const std::vector<Verdict> verdicts = Explain(problem, gpu);
  ASSERT_GE(verdicts.size(), 2U);
  for (const Verdict& verdict : verdicts) {
    EXPECT_FALSE(verdict.supported) << verdict.kernel;
    EXPECT_THAT(verdict.reason, HasSubstr(text));
  }
}

class CudaRegistry : public testing::Test {
 protected:
  void SetUp() override { unsetenv("BILLFISH_KERNEL"); }
  void TearDown() override { unsetenv("BILLFISH_KERNEL"); }
  const CudaDeviceInfo a100_ = Gpu("NVIDIA A100", 8, 0), h200_ = Gpu("NVIDIA H200", 9, 0), t4_ = Gpu("Tesla T4", 7, 5);
};

TEST_F(CudaRegistry, EverySchemeHasAKernelOnEverySupportedGpu) {
  for (const std::string_view name : SchemeNames()) {
    if (name == "f32") continue;
    for (const CudaDeviceInfo& gpu : {a100_, h200_, Gpu("RTX 4090", 8, 9), Gpu("B200", 10, 0), Gpu("RTX PRO 6000", 12, 0)}) {
      for (const Op op : {Op::kLinear, Op::kGroupedLinear}) {
        Problem problem = Of(*SchemeByName(name), op);
        if (name == "f16") problem.activation = DType::kF16;
        EXPECT_NE(FirstSupported(problem, gpu), "none") << name << " on " << gpu.name;
        for (const Verdict& verdict : Explain(problem, gpu)) EXPECT_GE(verdict.reason.size(), 10U) << verdict.kernel;
      }
    }
  }
}

TEST_F(CudaRegistry, NamesFollowTheBitsOfTheWeightAndTheOperation) {
  EXPECT_EQ(FirstSupported(Of(schemes::kNvfp4), h200_), "w4a16_linear_decode_sm80");
  EXPECT_EQ(FirstSupported(Of(schemes::kFp8Block128), h200_), "w8a16_linear_decode_sm80");
  EXPECT_EQ(FirstSupported(Of(schemes::kBf16), a100_), "w16a16_linear_decode_sm80");
  EXPECT_EQ(FirstSupported(Of(schemes::kMxfp4, Op::kGroupedLinear), a100_), "w4a16_grouped_decode_sm80");
}

TEST_F(CudaRegistry, ManyRowsLeaveTheDecodeKernelOut) {
  Problem problem = Of(schemes::kMxfp4);
  problem.M = 17;
  EXPECT_EQ(FirstSupported(problem, h200_), "w4a16_linear_tile_sm80");
  EXPECT_THAT(Explain(problem, h200_).front().reason, HasSubstr("up to 16 rows and the problem has 17"));
  problem.M = 16;
  EXPECT_EQ(FirstSupported(problem, h200_), "w4a16_linear_decode_sm80");
}

TEST_F(CudaRegistry, OldGpusAreRefusedByName) {
  ExpectRefusal(Of(schemes::kMxfp4), t4_, "needs compute capability 8.0 (bf16 tensor cores, asynchronous copies) and Tesla T4 has 7.5");
}

TEST_F(CudaRegistry, NothingRoundsActivationsThatWasNotAskedTo) {
  Problem problem = Of(schemes::kMxfp4);
  problem.mode = Mode::kFast;
  ExpectRefusal(problem, h200_, "keeps activations in 16 bits and fast mode rounds them to int8; use exact mode");
  problem.mode = Mode::kExact;
  problem.activation = DType::kF32;
  ExpectRefusal(problem, h200_, "it takes BF16 or F16");
}

TEST_F(CudaRegistry, CombinationsThatCannotBeRightAreRefused) {
  Problem problem = Of(schemes::kMxfp4);
  problem.activation = DType::kF16;
  ExpectRefusal(problem, h200_, "use");
  problem = Of(schemes::kBf16);
  problem.activation = DType::kF16;
  ExpectRefusal(problem, h200_, "f16 has not their range: use bf16 activations");
  problem = Of(schemes::Int4(128, true));
  problem.activation = DType::kF16;
  EXPECT_EQ(FirstSupported(problem, h200_), "w4a16_linear_decode_sm80");
  problem = Of(schemes::Int4(128, true), Op::kGroupedLinear);
  problem.act_order = true;
  ExpectRefusal(problem, h200_, "act-order has another order of columns for each");
  ExpectRefusal(Of(schemes::kF32), h200_, "convert the weight to bf16 or f16");
  ExpectRefusal(Of(schemes::Int4(24, true)), h200_, "multiple of 16 columns");
}

TEST_F(CudaRegistry, TheVariableKeepsOneGpuKernelAndLeavesTheCpuAlone) {
  setenv("BILLFISH_KERNEL", "w4a16_linear_tile_sm80", 1);
  EXPECT_EQ(FirstSupported(Of(schemes::kMxfp4), h200_), "w4a16_linear_tile_sm80");
  EXPECT_THAT(Explain(Of(schemes::kMxfp4), h200_).front().reason, HasSubstr("BILLFISH_KERNEL=w4a16_linear_tile_sm80 leaves it out"));
  EXPECT_TRUE(Explain(Of(schemes::kMxfp4)).back().supported);
  setenv("BILLFISH_KERNEL", "scalar", 1);
  EXPECT_EQ(FirstSupported(Of(schemes::kMxfp4), h200_), "w4a16_linear_decode_sm80");
}

TEST_F(CudaRegistry, WithoutAGpuEveryRowSaysWhatIsMissing) {
  if (CudaDevices()) GTEST_SKIP() << "there is a GPU";
  Problem problem = Of(schemes::kMxfp4);
  problem.device = {Device::Kind::kCuda, 0};
  const std::vector<Verdict> verdicts = Explain(problem);
  ASSERT_GE(verdicts.size(), 2U);
  for (const Verdict& verdict : verdicts) EXPECT_THAT(verdict.reason, HasSubstr("a GPU was asked for"));
}

}  // namespace
}  // namespace billfish
