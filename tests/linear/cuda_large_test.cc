// Linears on a GPU with more than 2^31 weights, activations or results, checked near the ends. Skipped where memory is too small.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "billfish/cuda.h"
#include "support/device_numbers.h"
#include "support/linear_problem.h"

namespace billfish {
namespace {

using test::DeviceNumbers;
using test::kGpu;

constexpr int64_t kEdge = int64_t{1} << 31;

// Skips the test, naming what is missing, where the GPU has less than so many GB.
#define NEEDS_GPU_MEMORY(gigabytes)                                                      \
  BILLFISH_NEEDS_GPU();                                                                  \
  if (const size_t has = CudaDevices()->front().memory_bytes >> 30; has < (gigabytes)) { \
    GTEST_SKIP() << "needs " << (gigabytes) << " GB of GPU memory, there are " << has;   \
  }

test::Bounds BoundsOf(DType y) {
  test::Bounds bounds = test::BoundsFor(y);
  bounds.norm = 2e-6;  // the tensor cores' sums, docs/NUMERICS.md
  return bounds;
}

// One linear of so many weights at M = 1, 33 and 300, against some of its features.
void CheckManyWeights(const QuantScheme& scheme, int64_t N, int64_t K) {
  ASSERT_GT(N * K, kEdge);
  const auto weight = PackedWeight::Random(scheme, 1, N, K, 3);
  ASSERT_TRUE(weight) << weight.status().message();
  LinearOptions options;
  options.device = kGpu;
  const auto linear = Linear::Create(*weight, options);
  ASSERT_TRUE(linear) << linear.status().message();
  std::vector<int64_t> features = {0, 1, 63, 64, N / 2};
  for (const int64_t edge : {kEdge / K, N - 64}) {
    for (int64_t n = edge - 3; n < edge + 67; ++n) {
      if (n > features.back() && n < N) features.push_back(n);
    }
  }
  ASSERT_EQ(features.back(), N - 1);
  const auto some = weight->SelectRows(features);
  ASSERT_TRUE(some) << some.status().message();
  for (const int64_t M : {1, 33, 300}) {
    const std::vector<float> values = test::RoundedToBF16(test::Gaussian(static_cast<size_t>(M * K), static_cast<uint64_t>(M)));
    const DeviceNumbers x(values, DType::kBF16), y(M * N, DType::kF32);
    auto scratch = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, linear->WorkspaceBytes(M)));
    ASSERT_TRUE(scratch) << scratch.status().message();
    Workspace workspace(scratch->span());
    ExecContext ctx{workspace};
    const Status status = linear->Forward(x.View(M, K), y.View(M, N), ctx);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> found = y.Read();
    EXPECT_TRUE(std::all_of(found.begin(), found.end(), [](float value) { return std::isfinite(value); })) << "M = " << M;
    const test::Expected expected = test::Multiply(*some, values, {0, M}, {}, {});
    EXPECT_TRUE(test::NumericChecker(expected, BoundsOf(DType::kF32), std::string(linear->kernel())).Check([&](int64_t r, int64_t n) {
      return found[static_cast<size_t>(r * N + features[static_cast<size_t>(n)])];
    })) << scheme.Name()
        << " [" << N << ", " << K << "], M = " << M;
  }
}

TEST(CudaLarge, MoreThanTwoBillionWeightsInLongRows) {
  NEEDS_GPU_MEMORY(8);
  CheckManyWeights(schemes::Int4(128, true), 36864, 65536);
}

TEST(CudaLarge, MoreThanTwoBillionWeightsInManyRows) {
  NEEDS_GPU_MEMORY(8);
  CheckManyWeights(schemes::kNvfp4, 500032, 4352);
}

TEST(CudaLarge, MoreThanFourBillionBytes) {
  NEEDS_GPU_MEMORY(16);
  CheckManyWeights(schemes::kBf16, 500032, 4352);
}

// Activations whose rows repeat every kPeriod, so that few products tell all results.
constexpr int64_t kPeriod = 64, kBlocks = 625, kRows = kPeriod * kBlocks;

class Repeated {
 public:
  explicit Repeated(int64_t K) : values_(test::RoundedToBF16(test::Gaussian(static_cast<size_t>(kPeriod * K), 5))) {
    const DeviceNumbers block(values_, DType::kBF16);
    auto buffer = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(kRows * K) * 2);
    EXPECT_TRUE(buffer) << buffer.status().message();
    if (!buffer) return;
    buffer_ = std::move(*buffer);
    for (int64_t b = 0; b < kBlocks; ++b) {
      const TensorView to(buffer_.data() + b * kPeriod * K * 2, DType::kBF16, {kPeriod, K}, kGpu);
      EXPECT_TRUE(CopyTensor(to, block.View(kPeriod, K)).ok());
    }
  }
  const std::vector<float>& values() const { return values_; }
  TensorView View(int64_t K) const { return TensorView(buffer_.data(), DType::kBF16, {kRows, K}, kGpu); }

 private:
  std::vector<float> values_;
  DeviceBuffer buffer_;
};

// One linear on kRows rows; checks the given blocks of kPeriod rows.
void CheckManyRows(const QuantScheme& scheme, int64_t N, int64_t K, const std::vector<int64_t>& blocks) {
  const auto weight = PackedWeight::Random(scheme, 1, N, K, 4);
  ASSERT_TRUE(weight) << weight.status().message();
  LinearOptions options;
  options.device = kGpu;
  const auto linear = Linear::Create(*weight, options);
  ASSERT_TRUE(linear) << linear.status().message();
  const Repeated x(K);
  const auto y = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(kRows * N) * 2);
  ASSERT_TRUE(y) << y.status().message();
  auto scratch = DeviceBuffer::Allocate(kGpu, std::max<size_t>(256, linear->WorkspaceBytes(kRows)));
  ASSERT_TRUE(scratch) << scratch.status().message();
  Workspace workspace(scratch->span());
  ExecContext ctx{workspace};
  const Status status = linear->Forward(x.View(K), TensorView(y->data(), DType::kBF16, {kRows, N}, kGpu), ctx);
  ASSERT_TRUE(status.ok()) << status.message();
  const test::Expected expected = test::Multiply(*weight, x.values(), {0, kPeriod}, {}, {});
  std::vector<uint16_t> found(static_cast<size_t>(kPeriod * N));
  for (const int64_t b : blocks) {
    ASSERT_TRUE(CopyTensor(TensorView(found.data(), DType::kBF16, {kPeriod, N}),
                           ConstTensorView(y->data() + b * kPeriod * N * 2, DType::kBF16, {kPeriod, N}, kGpu))
                    .ok());
    ASSERT_TRUE(test::NumericChecker(expected, BoundsOf(DType::kBF16), std::string(linear->kernel())).Check([&](int64_t r, int64_t n) {
      return F32FromBF16(found[static_cast<size_t>(r * N + n)]);
    })) << "rows from "
        << b * kPeriod;
  }
}

TEST(CudaLarge, MoreThanTwoBillionResults) {
  NEEDS_GPU_MEMORY(16);
  constexpr int64_t kN = 57344;
  static_assert(kRows * kN > kEdge);
  constexpr int64_t kAtEdge = kEdge / kN / kPeriod;
  CheckManyRows(schemes::kNvfp4, kN, 128, {0, kAtEdge / 2, kAtEdge, kAtEdge + 1, kBlocks - 1});
}

TEST(CudaLarge, MoreThanTwoBillionActivations) {
  NEEDS_GPU_MEMORY(16);
  constexpr int64_t kK = 57344;
  static_assert(kRows * kK > kEdge);
  std::vector<int64_t> every;
  for (int64_t b = 0; b < kBlocks; ++b) every.push_back(b);
  CheckManyRows(schemes::Int4(128, false), 128, kK, every);
}

}  // namespace
}  // namespace billfish
