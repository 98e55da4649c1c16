// The router on the device chooses the experts that RouteTopK chooses on the CPU, bit for bit.
#include <gtest/gtest.h>

#include <cmath>

#include "billfish/moe.h"
#include "cuda/route.h"
#include "support/device_numbers.h"
#include "support/random_tensor.h"

namespace billfish {
namespace {

using test::kGpu;

TEST(CudaRouter, ChoosesAsTheCpuDoes) {
  BILLFISH_NEEDS_GPU();
  const auto device = cuda::GpuDevice::Get(0);
  ASSERT_TRUE(device);
  constexpr int64_t kTokens = 4096;
  for (int variant = 0; variant < 12; ++variant) {
    RouterRule rule{static_cast<RouterRule::Score>(variant % 4)};
    rule.E = variant < 4 ? 128 : 256;
    rule.top_k = 8;
    rule.renormalize = variant % 2 == 0;
    rule.routed_scaling = 2.5f;
    if (variant >= 4) rule.correction = test::Gaussian(256, 7, 0.1f);
    if (variant >= 8) rule.n_group = 8, rule.topk_group = 4;
    const auto logits = test::Gaussian(static_cast<size_t>(kTokens * rule.E), 100 + static_cast<uint64_t>(variant), 2.0f);
    const int64_t slots = kTokens * rule.top_k;
    std::vector<int32_t> wanted(static_cast<size_t>(slots)), found(wanted);
    std::vector<float> wanted_weights(wanted.size());
    Workspace workspace;
    ASSERT_TRUE(workspace.Reserve(RouteWorkspaceBytes(kTokens, rule)).ok());
    ExecContext ctx{workspace, 2};
    const Routing out{TensorView(wanted.data(), DType::kI32, {kTokens, rule.top_k}),
                      TensorView(wanted_weights.data(), DType::kF32, {kTokens, rule.top_k})};
    ASSERT_TRUE(RouteTopK(ConstTensorView(logits.data(), DType::kF32, {kTokens, rule.E}), rule, {}, out, ctx).ok());

    const auto router = cuda::Router::Create(rule, **device);
    ASSERT_TRUE(router) << router.status().message();
    test::DeviceNumbers input(logits, DType::kF32), weights(slots, DType::kF32);
    auto ids = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(slots) * 4);
    ASSERT_TRUE(ids);
    ASSERT_TRUE(router
                    ->Run(reinterpret_cast<const float*>(input.data()), rule.E, kTokens, nullptr, reinterpret_cast<int32_t*>(ids->data()),
                          reinterpret_cast<float*>(weights.data()), nullptr)
                    .ok());
    ASSERT_TRUE(CopyTensor(TensorView(found.data(), DType::kI32, {slots}), ConstTensorView(ids->data(), DType::kI32, {slots}, kGpu)).ok());
    EXPECT_EQ(found, wanted) << "variant " << variant;
    const std::vector<float> found_weights = weights.Read();
    for (size_t i = 0; i < found_weights.size(); ++i) {
      // In units of 2^-24, for a score over a sum of scores, on each side: 4 for an exponential within 2 ulp, 4 for those of the sum, 8 for
      // the additions of at most 8 positive terms, 1 for the division, 1 for the scaling.
      ASSERT_NEAR(found_weights[i], wanted_weights[i], 36 * 0x1p-24f * std::fabs(wanted_weights[i]))
          << "variant " << variant << " slot " << i;
    }
  }
}

}  // namespace
}  // namespace billfish
