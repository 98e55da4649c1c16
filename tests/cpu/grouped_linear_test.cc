// Every kernel of this machine against the formula in fp64, over schemes, odd shapes, experts, gathers and act-order.
//
// Tolerance per element. Products of a16 and a32 kernels are exact or rounded once, and a sum of K terms in fp32 with at least 2 and at
// most K terms per chain errs by at most about (chain + 4) eps * sum |w x|; chains behave like random walks, so sqrt replaces the
// count. The factor 4 is the slack over one standard deviation that 10^5 elements need.
#include "cpu/grouped_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "problem.h"

namespace billfish::cpu {
namespace {

using test::DotRow;
using test::Expected;
using test::RandomWeight;
using test::WeightOptions;

struct Shape {
  int64_t E, N, K, rows;
};

struct Outcome {
  double worst = 0;          ///< largest |error| / (sum |w x|)
  double relative_norm = 0;  ///< ||y - ref|| / ||ref||
  int64_t row = 0, col = 0;
  double got = 0, expected = 0;
  std::string kernel;
  std::vector<float> y;
};

std::vector<float> RandomActivations(int64_t count, uint64_t seed, bool bf16) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = bf16 ? F32FromBF16(BF16FromF32(normal(rng))) : normal(rng);
  return x;
}

/// Runs `weight` over shape.rows rows dealt to experts unevenly (some experts get none) with a gather; checks nothing itself.
Result<Outcome> RunCase(const PackedWeight& weight, int64_t rows, DType x_type, Precision precision, std::string_view tier, int threads,
                        bool y_bf16 = false, bool with_bias = true, bool outliers = false) {
  const int64_t E = weight.E(), N = weight.N(), K = weight.K();
  Result<CpuWeight> packed = CpuWeight::Pack(weight, threads);
  if (!packed) return packed.error();
  Result<GroupedLinear> linear = GroupedLinear::Create(&*packed, x_type, precision, tier);
  if (!linear) return linear.error();

  const int64_t tokens = rows + 3;
  std::vector<float> x = RandomActivations(tokens * K, 11, x_type == DType::kBF16);
  std::vector<bool> large(static_cast<size_t>(K));
  std::mt19937 channels(7);
  for (int64_t left = outliers ? K / 200 : 0; left > 0;) {  // 0.5 % of the channels, at random
    const size_t channel = channels() % uint32_t(K);
    if (large[channel]) continue;
    large[channel] = true;
    --left;
  }
  for (int64_t i = 0; outliers && i < tokens * K; ++i) {
    if (large[size_t(i % K)]) x[size_t(i)] *= 20;
    if (x_type == DType::kBF16) x[size_t(i)] = F32FromBF16(BF16FromF32(x[size_t(i)]));
  }
  std::vector<uint16_t> x16(x.size());
  for (size_t i = 0; i < x.size(); ++i) x16[i] = BF16FromF32(x[i]);
  std::mt19937_64 rng(5);
  std::vector<int32_t> offsets(size_t(E + 1), 0), source(static_cast<size_t>(rows));
  std::vector<int64_t> expert(static_cast<size_t>(rows));
  for (int64_t& e : expert) e = int64_t(rng() % uint64_t(E)) / 2 * 2 % E;  // odd experts stay empty
  std::sort(expert.begin(), expert.end());
  for (const int64_t e : expert) ++offsets[size_t(e) + 1];
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  for (int32_t& s : source) s = int32_t(rng() % uint64_t(tokens));
  std::vector<float> bias(size_t(E * N));
  for (float& b : bias) b = float(int64_t(rng() % 17) - 8) / 8;

  Outcome out;
  out.kernel = linear->kernel_name();
  out.y.assign(size_t(rows * N), -777.0f);
  std::vector<uint16_t> y16(size_t(rows * N));
  std::vector<std::byte> workspace(linear->workspace_bytes(rows, threads));
  GroupedRows groups{rows, E == 1 ? std::span<const int32_t>() : std::span<const int32_t>(offsets), source.data()};
  ConstTensorView xv =
      x_type == DType::kBF16 ? ConstTensorView(x16.data(), DType::kBF16, {tokens, K}) : ConstTensorView(x.data(), DType::kF32, {tokens, K});
  TensorView yv = y_bf16 ? TensorView(y16.data(), DType::kBF16, {rows, N}) : TensorView(out.y.data(), DType::kF32, {rows, N});
  const Status status = linear->Run(xv, groups, with_bias ? bias.data() : nullptr, yv, workspace, threads);
  if (!status.ok()) return status;
  if (y_bf16) std::transform(y16.begin(), y16.end(), out.y.begin(), F32FromBF16);

  double error = 0, norm = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t e = E == 1 ? 0 : expert[size_t(r)];
    for (int64_t n = 0; n < N; ++n) {
      const Expected ref = DotRow(weight, e, n, std::span(x).subspan(size_t(source[size_t(r)]) * size_t(K), size_t(K)));
      const double b = with_bias ? double(bias[size_t(e * N + n)]) : 0.0;
      const double expected = ref.value + b, got = double(out.y[size_t(r * N + n)]);
      error += (got - expected) * (got - expected);
      norm += expected * expected;
      const double scaled = std::abs(got - expected) / (ref.magnitude + std::abs(b) + 1e-30);
      if (!(scaled <= out.worst)) {
        out.worst = std::isnan(scaled) ? 1e9 : scaled;
        out.row = r, out.col = n, out.got = got, out.expected = expected;
      }
    }
  }
  out.relative_norm = norm > 0 ? std::sqrt(error / norm) : 0;
  return out;
}

double SumTolerance(int64_t K) { return 4 * 0x1p-24 * (std::sqrt(double(K)) / 4 + 4); }

const std::vector<std::pair<std::string, QuantScheme>>& Schemes() {
  static const std::vector<std::pair<std::string, QuantScheme>> schemes = [] {
    std::vector<std::pair<std::string, QuantScheme>> list = {{"mxfp4", schemes::kMxfp4},
                                                             {"nvfp4", schemes::kNvfp4},
                                                             {"fp8_tensor", schemes::kFp8Tensor},
                                                             {"fp8_channel", schemes::kFp8Channel},
                                                             {"fp8_block", schemes::kFp8Block128},
                                                             {"bf16", schemes::kBf16},
                                                             {"f16", schemes::kF16},
                                                             {"f32", schemes::kF32}};
    for (const int64_t group : {0, 16, 32, 64, 128, 512}) {
      for (const bool symmetric : {true, false}) {
        for (const DType scale : {DType::kBF16, DType::kF16, DType::kF32}) {
          std::string name = "int4_g" + std::to_string(group) + (symmetric ? "_" : "_zero_") + std::string(DTypeName(scale));
          list.emplace_back(name, schemes::Int4(group, symmetric, scale));
        }
      }
    }
    return list;
  }();
  return schemes;
}

constexpr std::string_view kTiers[] = {"scalar", "avx2", "avx512", "avx512bf16"};

void ExpectClose(const Result<Outcome>& outcome, double tolerance, const std::string& what) {
  ASSERT_TRUE(outcome.has_value()) << what << ": " << outcome.error().message();
  EXPECT_LE(outcome->worst, tolerance) << what << " with " << outcome->kernel << " at row " << outcome->row << ", column " << outcome->col
                                       << ": got " << outcome->got << ", expected " << outcome->expected;
}

TEST(GroupedLinear, EverySchemeOnEveryTierMatchesTheFormula) {
  for (const auto& [name, scheme] : Schemes()) {
    for (const Shape shape : {Shape{1, 40, 304, 11}, Shape{3, 33, 161, 9}}) {
      const PackedWeight weight = RandomWeight(scheme, shape.E, shape.N, shape.K, 1);
      ASSERT_GT(weight.N(), 0) << name;
      for (const std::string_view tier : kTiers) {
        for (const DType x : {DType::kBF16, DType::kF32}) {
          ExpectClose(RunCase(weight, shape.rows, x, Precision::kExact, tier, 2), SumTolerance(shape.K),
                      name + " " + std::string(tier) + " " + std::string(DTypeName(x)));
        }
      }
    }
  }
}

TEST(GroupedLinear, EveryRowCountUsesItsOwnTileCorrectly) {
  for (const QuantScheme& scheme :
       {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(32, false), schemes::Int4(128, true), schemes::kFp8Channel, schemes::kBf16}) {
    const PackedWeight weight = RandomWeight(scheme, 1, 64, 256, 2);
    for (const std::string_view tier : kTiers) {
      for (int64_t rows = 1; rows <= 26; ++rows) {
        ExpectClose(RunCase(weight, rows, DType::kBF16, Precision::kExact, tier, 2), SumTolerance(256),
                    scheme.Name() + " rows " + std::to_string(rows));
      }
    }
  }
}

TEST(GroupedLinear, OddShapesArePaddedInsideThePackedForm) {
  for (const QuantScheme& scheme : {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(32, true), schemes::Int4(128, false, DType::kF16),
                                    schemes::Int4(24, true), schemes::Int4(300, false), schemes::Int4(384, true), schemes::Int4(0, false),
                                    schemes::kFp8Block128, schemes::kBf16, schemes::kF16, schemes::kF32}) {
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{1, 1}, {1, 64}, {31, 15}, {32, 17}, {33, 257}, {65, 704}, {5, 1030}}) {
      const PackedWeight weight = RandomWeight(scheme, 1, N, K, 3);
      ASSERT_EQ(weight.N(), N);
      for (const std::string_view tier : kTiers) {
        ExpectClose(RunCase(weight, 3, DType::kBF16, Precision::kExact, tier, 2), SumTolerance(K),
                    scheme.Name() + " N " + std::to_string(N) + " K " + std::to_string(K) + " " + std::string(tier));
      }
    }
  }
}

TEST(GroupedLinear, ActOrderGathersTheColumnsOfEachExpert) {
  const PackedWeight weight = RandomWeight(schemes::Int4(64, false), 4, 40, 200, 4, {.perm = true});
  for (const std::string_view tier : kTiers) {
    ExpectClose(RunCase(weight, 21, DType::kBF16, Precision::kExact, tier, 2), SumTolerance(200), std::string(tier));
  }
}

TEST(GroupedLinear, AllE4M3ScalesIncludingSubnormalsAndZeroAreExact) {
  const PackedWeight weight = RandomWeight(schemes::kNvfp4, 1, 64, 2048, 6, {.every_e4m3 = true});
  for (const std::string_view tier : kTiers) {
    for (const int64_t rows : {2, 8})
      ExpectClose(RunCase(weight, rows, DType::kBF16, Precision::kExact, tier, 2), SumTolerance(2048), std::string(tier));
  }
}

/// One-hot activations read single weights, so the result must be the weight to the last bit.
TEST(GroupedLinear, OneHotActivationsReadEveryWeightExactly) {
  struct Case {
    QuantScheme scheme;
    WeightOptions options;
  };
  for (const Case& c :
       {Case{schemes::kMxfp4, {}}, Case{schemes::kMxfp4, {.wide_exponents = true}}, Case{schemes::kNvfp4, {.every_e4m3 = true}},
        Case{schemes::Int4(32, false), {}}, Case{schemes::Int4(16, true), {}}, Case{schemes::kFp8Block128, {}}, Case{schemes::kBf16, {}}}) {
    const int64_t N = 33, K = 160;
    PackedWeight weight = RandomWeight(c.scheme, 1, N, K, 7, c.options);
    for (const std::string_view tier : kTiers) {
      const CpuWeight packed = *CpuWeight::Pack(weight, 2);
      const GroupedLinear linear = *GroupedLinear::Create(&packed, DType::kBF16, Precision::kExact, tier);
      std::vector<uint16_t> x(size_t(K * K), 0);
      for (int64_t k = 0; k < K; ++k) x[size_t(k * K + k)] = 0x3F80;
      std::vector<float> y(size_t(K * N));
      std::vector<std::byte> workspace(linear.workspace_bytes(K, 2));
      ASSERT_TRUE(
          linear.Run({x.data(), DType::kBF16, {K, K}}, {K, {}, nullptr}, nullptr, {y.data(), DType::kF32, {K, N}}, workspace, 2).ok());
      for (int64_t k = 0; k < K; ++k) {
        for (int64_t n = 0; n < N; ++n) {
          const double expected = test::WeightAt(weight, 0, n, k);
          if (std::isinf(float(expected)) && y[size_t(k * N + n)] == float(expected)) continue;
          const double slack = c.scheme.row_scale ? std::abs(expected) * 0x1p-23 : 0.0;  // two fp32 factors round once
          ASSERT_NEAR(double(y[size_t(k * N + n)]), double(float(expected)), slack)
              << c.scheme.Name() << " " << linear.kernel_name() << " n " << n << " k " << k;
        }
      }
    }
  }
}

TEST(GroupedLinear, ResultDoesNotDependOnThreads) {
  const PackedWeight weight = RandomWeight(schemes::kNvfp4, 5, 100, 512, 8);
  for (const Precision precision : {Precision::kExact, Precision::kInt8}) {
    const Result<Outcome> one = RunCase(weight, 70, DType::kBF16, precision, "", 1),
                          four = RunCase(weight, 70, DType::kBF16, precision, "", 4);
    ASSERT_TRUE(one.has_value() && four.has_value());
    EXPECT_EQ(one->y, four->y);
  }
}

TEST(GroupedLinear, ManyRowsCrossBlocksAndSegments) {
  const PackedWeight weight = RandomWeight(schemes::kMxfp4, 3, 32, 64, 9);
  ExpectClose(RunCase(weight, 2500, DType::kBF16, Precision::kExact, "", 2), SumTolerance(64), "");
}

TEST(GroupedLinear, ExactErrorIsBelowOneMillionthInNorm) {
  for (const QuantScheme& scheme :
       {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(32, false), schemes::Int4(128, true), schemes::kFp8Block128, schemes::kBf16}) {
    const PackedWeight weight = RandomWeight(scheme, 1, 64, 4096, 10);
    for (const DType x : {DType::kBF16, DType::kF32}) {
      for (const int64_t rows : {1, 16}) {
        const Result<Outcome> outcome = RunCase(weight, rows, x, Precision::kExact, "", 2, false, false);
        ASSERT_TRUE(outcome.has_value());
        EXPECT_LE(outcome->relative_norm, 1e-6) << scheme.Name() << " " << outcome->kernel << " rows " << rows;
      }
    }
  }
}

TEST(GroupedLinear, Bf16OutputRoundsToNearestEven) {
  const PackedWeight weight = RandomWeight(schemes::kMxfp4, 1, 50, 256, 12);
  for (const std::string_view tier : kTiers) {
    const Result<Outcome> narrow = RunCase(weight, 5, DType::kBF16, Precision::kExact, tier, 2, true);
    const Result<Outcome> wide = RunCase(weight, 5, DType::kBF16, Precision::kExact, tier, 2, false);
    ASSERT_TRUE(narrow.has_value() && wide.has_value());
    for (size_t i = 0; i < wide->y.size(); ++i) ASSERT_EQ(narrow->y[i], F32FromBF16(BF16FromF32(wide->y[i]))) << tier << " " << i;
  }
}

TEST(GroupedLinear, Int8ActivationsStayWithinTheirErrorBudget) {
  if (DetectCpu().tier < Tier::kAvx512Bf16) GTEST_SKIP() << "needs AVX-512 VNNI";
  for (const QuantScheme& scheme : {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(32, true), schemes::Int4(32, false),
                                    schemes::Int4(128, true), schemes::Int4(64, false), schemes::Int4(0, true), schemes::Int4(0, false)}) {
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{64, 2048}, {33, 1008}, {70, 2000}}) {
      const PackedWeight weight = RandomWeight(scheme, 1, N, K, 13);
      for (const int64_t rows : {1, 5, 14, 24}) {
        const Result<Outcome> outcome = RunCase(weight, rows, DType::kBF16, Precision::kInt8, "", 2, false, false);
        ASSERT_TRUE(outcome.has_value()) << outcome.error().message();
        EXPECT_TRUE(outcome->kernel.starts_with("w4a8_linear")) << outcome->kernel;
        // One row is one draw of the errors' sum where all weights of a channel lie on one side of zero, hence the width.
        EXPECT_LE(outcome->relative_norm, 1e-2) << scheme.Name() << " K " << K << " rows " << rows;
        EXPECT_GE(outcome->relative_norm, 1.5e-3) << "int8 noise is expected here";
      }
    }
  }
}

TEST(GroupedLinear, Int8ErrorOfManyGaussianProductsIsBelowFiveAndAHalfThousandths) {
  if (DetectCpu().tier < Tier::kAvx512Bf16) GTEST_SKIP() << "needs AVX-512 VNNI";
  for (const QuantScheme& scheme : {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(32, false)}) {
    for (uint64_t seed = 20; seed < 24; ++seed) {
      const PackedWeight weight = RandomWeight(scheme, 1, 128, 2048, seed);
      const Result<Outcome> outcome = RunCase(weight, 64, DType::kBF16, Precision::kInt8, "", 2, false, false);
      ASSERT_TRUE(outcome.has_value());
      EXPECT_LE(outcome->relative_norm, 5.5e-3) << scheme.Name() << " seed " << seed;
    }
  }
}

/// A block of 32 with an outlier 20 times larger has a step 20 times larger. What those few blocks add differs from weight to weight by a
/// few per cent, so the bound is one of the mean over weights, and a single one has a little more room.
TEST(GroupedLinear, Int8ErrorWithOutlierChannelsIsAboutOneHundredth) {
  if (DetectCpu().tier < Tier::kAvx512Bf16) GTEST_SKIP() << "needs AVX-512 VNNI";
  constexpr int kSeeds = 4;
  for (const QuantScheme& scheme : {schemes::kMxfp4, schemes::kNvfp4, schemes::Int4(128, true)}) {
    double squares = 0;
    for (uint64_t seed = 21; seed < 21 + kSeeds; ++seed) {
      const PackedWeight weight = RandomWeight(scheme, 1, 128, 4096, seed);
      const Result<Outcome> outcome = RunCase(weight, 64, DType::kBF16, Precision::kInt8, "", 2, false, false, true);
      ASSERT_TRUE(outcome.has_value());
      EXPECT_LE(outcome->relative_norm, 1.1e-2) << scheme.Name() << " seed " << seed;
      squares += outcome->relative_norm * outcome->relative_norm;
    }
    EXPECT_LE(std::sqrt(squares / kSeeds), 1.05e-2) << scheme.Name();
  }
}

TEST(GroupedLinear, Fp32ActivationsMayBeRoundedToBf16WhenAllowed) {
  const PackedWeight weight = RandomWeight(schemes::kMxfp4, 1, 64, 1024, 22);
  const Result<Outcome> outcome = RunCase(weight, 32, DType::kF32, Precision::kBF16, "", 2, false, false);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_LE(outcome->relative_norm, 2.2e-3);
  if (DetectCpu().tier >= Tier::kAvx512Bf16) {
    EXPECT_EQ(outcome->kernel, "w4a16_linear_avx512bf16");
  }
}

/// Averaging removes random rounding, so a slope different from 1 means a scale applied wrongly.
TEST(GroupedLinear, SlopeOfInt8ResultsIsOne) {
  if (DetectCpu().tier < Tier::kAvx512Bf16) GTEST_SKIP() << "needs AVX-512 VNNI";
  const PackedWeight weight = RandomWeight(schemes::kMxfp4, 1, 256, 1024, 14);
  const Result<Outcome> fast = RunCase(weight, 64, DType::kBF16, Precision::kInt8, "", 2, false, false);
  const Result<Outcome> exact = RunCase(weight, 64, DType::kBF16, Precision::kExact, "", 2, false, false);
  ASSERT_TRUE(fast.has_value() && exact.has_value());
  double cross = 0, square = 0;
  for (size_t i = 0; i < exact->y.size(); ++i) {
    cross += double(fast->y[i]) * double(exact->y[i]);
    square += double(exact->y[i]) * double(exact->y[i]);
  }
  EXPECT_NEAR(cross / square, 1.0, 2e-4);
}

// FNV-1a.
uint64_t HashOf(std::span<const std::byte> bytes) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const std::byte b : bytes) hash = (hash ^ uint64_t(b)) * 0x100000001B3;
  return hash;
}

// Images are kept in files between runs. Where this test fails the form has changed: raise kVersion of cpu_weight.cc, so that older files
// are packed anew, and write the new hashes here.
TEST(CpuWeight, ThePackedFormIsThatOfItsVersion) {
  struct Case {
    QuantScheme scheme;
    uint64_t hash;
  };
  for (const Case& c : {Case{schemes::kMxfp4, 10697558539408957959U}, Case{schemes::kNvfp4, 15876465694376359961U},
                        Case{schemes::Int4(32, false), 10093686203163200545U}, Case{schemes::kFp8Block128, 12685057987762604327U},
                        Case{schemes::kBf16, 363400450933518078U}}) {
    const CpuWeight packed = *CpuWeight::Pack(RandomWeight(c.scheme, 2, 40, 160, 30), 2);
    EXPECT_EQ(HashOf(packed.image()), c.hash) << c.scheme.Name();
  }
}

TEST(GroupedLinear, ASmallWorkspaceIsRefusedWithBothSizes) {
  const CpuWeight packed = *CpuWeight::Pack(RandomWeight(schemes::kMxfp4, 1, 8, 32, 15), 1);
  const GroupedLinear linear = *GroupedLinear::Create(&packed, DType::kF32, Precision::kExact, "");
  float x[32] = {}, y[8];
  std::byte workspace[16];
  const Status status = linear.Run({x, DType::kF32, {1, 32}}, {1, {}, nullptr}, nullptr, {y, DType::kF32, {1, 8}}, workspace, 1);
  EXPECT_EQ(status.code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(status.message().find("the workspace has 16 bytes"), std::string_view::npos);
}

TEST(CpuWeight, ImageCanBeReadBackAndDamageIsNoticed) {
  const PackedWeight weight = RandomWeight(schemes::kNvfp4, 2, 40, 100, 16);
  const CpuWeight packed = *CpuWeight::Pack(weight, 2);
  const auto adopt = [](std::span<const std::byte> image) {
    auto copy = std::make_shared<HugeBuffer>(*HugeBuffer::Allocate(image.size()));
    std::copy(image.begin(), image.end(), copy->data());
    return CpuWeight::FromImage(Bytes(copy, {copy->data(), copy->size()}));
  };
  const Result<CpuWeight> same = adopt(packed.image());
  ASSERT_TRUE(same.has_value()) << same.error().message();
  EXPECT_TRUE(std::equal(same->image().begin(), same->image().end(), packed.image().begin(), packed.image().end()));
  for (const size_t cut : {size_t{0}, size_t{100}, size_t{300}, packed.image().size() - 1}) {
    EXPECT_FALSE(adopt(packed.image().first(cut)).has_value()) << cut;
  }
  for (size_t byte = 0; byte < sizeof(ImageHeader) - sizeof(ImageHeader::padding); ++byte) {
    std::vector<std::byte> damaged(packed.image().begin(), packed.image().end());
    damaged[byte] ^= std::byte{0x80};
    const Result<CpuWeight> read = adopt(damaged);
    if (!read.has_value()) {
      EXPECT_EQ(read.error().code(), ErrorCode::kCorruptFile);
    }
  }
}

TEST(KernelTable, EveryRefusalGivesAReasonAndTheScalarKernelTakesEverything) {
  for (const auto& [name, scheme] : Schemes()) {
    const CpuWeight packed = *CpuWeight::Pack(RandomWeight(scheme, 1, 4, 64, 17), 1);
    for (const CpuKernel& kernel : CpuKernels()) {
      for (const DType x : {DType::kBF16, DType::kF32}) {
        for (const Precision precision : {Precision::kExact, Precision::kBF16, Precision::kInt8}) {
          const KernelVerdict verdict = kernel.Supports({packed.layout(), x, precision}, Tier::kScalar);
          EXPECT_FALSE(verdict.reason.empty());
          EXPECT_EQ(verdict.supported, kernel.tier == Tier::kScalar) << verdict.reason;
        }
      }
    }
  }
}

TEST(KernelTable, AnUnknownForcedNameIsRefusedByName) {
  const CpuWeight packed = *CpuWeight::Pack(RandomWeight(schemes::kMxfp4, 1, 4, 64, 18), 1);
  const Result<GroupedLinear> linear = GroupedLinear::Create(&packed, DType::kF32, Precision::kExact, "w4a16_linear_avx1024");
  ASSERT_FALSE(linear.has_value());
  EXPECT_NE(linear.error().message().find("w4a16_linear_avx1024"), std::string_view::npos);
}

}  // namespace
}  // namespace billfish::cpu
