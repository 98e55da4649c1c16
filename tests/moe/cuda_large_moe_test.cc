// Experts with more than 2^31 weights on a GPU: the last of them against a CPU layer of these alone. Skipped where memory is too small.
#include <gtest/gtest.h>

#include "support/device_moe.h"

namespace billfish {
namespace {

using test::kGpu;

TEST(CudaLargeMoe, TheLastOfMoreThanTwoBillionWeightsAreUsed) {
  BILLFISH_NEEDS_GPU();
  if (const size_t has = CudaDevices()->front().memory_bytes >> 30; has < 16) {
    GTEST_SKIP() << "needs 16 GB of GPU memory, there are " << has;
  }
  constexpr int64_t kExperts = 64, kHidden = 4352, kIntermediate = 4096, kLast = 3;
  static_assert(kExperts * 2 * kIntermediate * kHidden > int64_t{1} << 31);
  const auto gate_up = PackedWeight::Random(schemes::kMxfp4, kExperts, 2 * kIntermediate, kHidden, 1),
             down = PackedWeight::Random(schemes::kMxfp4, kExperts, kHidden, kIntermediate, 2);
  ASSERT_TRUE(gate_up && down);
  MoeOptions options{{Activation::Kind::kSwiglu}};
  const auto last_of = [](const PackedWeight& weight) {
    std::vector<PackedWeight> experts;
    for (int64_t e = kExperts - kLast; e < kExperts; ++e) experts.push_back(std::move(*weight.Expert(e)));
    return std::move(*PackedWeight::StackExperts(experts));
  };
  const auto cpu = MoeLayer::Create(last_of(*gate_up), last_of(*down), options);
  ASSERT_TRUE(cpu) << cpu.status().message();
  options.device = kGpu;
  const auto gpu = MoeLayer::Create(*gate_up, *down, options);
  ASSERT_TRUE(gpu) << gpu.status().message();
  for (const int64_t T : {1, 33, 300}) {
    const test::Slots few = test::MakeSlots(T, 2, kLast, test::Spread::kEven, static_cast<uint64_t>(T));
    test::Slots slots = few;
    for (int32_t& id : slots.ids) id += static_cast<int32_t>(kExperts - kLast);
    const std::vector<float> x = test::RoundedToBF16(test::Gaussian(static_cast<size_t>(T * kHidden), 3));
    EXPECT_LE(test::RelativeError(test::OnGpu(*gpu, x, slots), test::OnCpu(*cpu, x, few, DefaultThreads())), 2e-4) << "T = " << T;
  }
}

}  // namespace
}  // namespace billfish
