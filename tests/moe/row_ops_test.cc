// Activation and combination of every instruction set against fp64, with lengths that end inside a vector.
#include "moe/row_ops.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reference/activation.h"
#include "support/random_tensor.h"

namespace billfish::moe {
namespace {

using Kind = Activation::Kind;

std::vector<cpu::Tier> Tiers() {
  std::vector<cpu::Tier> tiers;
  for (const cpu::Tier tier : {cpu::Tier::kScalar, cpu::Tier::kAvx2, cpu::Tier::kAvx512, cpu::Tier::kAvx512Bf16}) {
    if (tier <= cpu::DetectCpu().tier) tiers.push_back(tier);
  }
  return tiers;
}

const std::vector<Activation>& Activations() {
  static const std::vector<Activation> all = {
      {Kind::kSwiglu}, {Kind::kSwigluClamped, 2.0f}, {Kind::kSwigluOai, 2.0f, 1.702f, 1.0f}, {Kind::kGegluTanh}, {Kind::kSilu},
      {Kind::kRelu2}};
  return all;
}

TEST(ActivateRow, EqualsTheDefinitionToAFewRoundings) {
  for (const cpu::Tier tier : Tiers()) {
    for (const Activation& activation : Activations()) {
      for (int64_t n : {1, 15, 16, 17, 500}) {
        const std::vector<float> gate = test::Gaussian(static_cast<size_t>(n), 1, 4.0f),
                                 up = test::Gaussian(static_cast<size_t>(n), 2, 3.0f);
        std::vector<float> h(static_cast<size_t>(n) + 1, 77.0f);
        std::vector<uint16_t> half(static_cast<size_t>(n) + 1, 0x1234);
        RowOpsFor(tier).activate(activation, {gate.data(), up.data(), n, h.data(), false});
        RowOpsFor(tier).activate(activation, {gate.data(), up.data(), n, half.data(), true});
        for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
          const double expected = reference::Activate(activation, gate[i], up[i]);
          // tanh GELU of a large negative gate loses digits in its argument; its value is tiny there.
          EXPECT_NEAR(h[i], expected, 6e-7 * std::fabs(expected) + 1e-9) << static_cast<int>(activation.kind) << " g " << gate[i];
          EXPECT_EQ(half[i], BF16FromF32(h[i]));
        }
        EXPECT_EQ(h.back(), 77.0f) << "written behind the end";
        EXPECT_EQ(half.back(), 0x1234);
      }
    }
  }
}

TEST(ActivateRow, ExtremesNeitherOverflowNorVanish) {
  const std::vector<float> gate = {1000.0f, -1000.0f, 88.5f, -88.5f, 0.0f, -0.0f, 1e-30f, 3e38f, -3e38f};
  const std::vector<float> up(gate.size(), 0.5f);
  for (const cpu::Tier tier : Tiers()) {
    std::vector<float> h(gate.size());
    RowOpsFor(tier).activate({Kind::kSwiglu}, {gate.data(), up.data(), static_cast<int64_t>(gate.size()), h.data(), false});
    for (size_t i = 0; i < gate.size(); ++i) {
      const double expected = gate[i] < -700 ? 0.0 : reference::Activate({Kind::kSwiglu}, gate[i], up[i]);
      EXPECT_NEAR(h[i], expected, 1e-6 * std::fabs(expected) + (gate[i] < -1e4f ? 2.0 : 1e-30)) << gate[i];
    }
  }
}

TEST(ActivateRow, ANanStaysOne) {
  const float gate[] = {NAN, 1.0f}, up[] = {1.0f, NAN};
  for (const cpu::Tier tier : Tiers()) {
    for (const Activation& activation : {Activation{Kind::kSwiglu}, Activation{Kind::kSwigluOai, 7, 1.702f, 1}}) {
      float h[2];
      uint16_t half[2];
      RowOpsFor(tier).activate(activation, {gate, up, 2, h, false});
      RowOpsFor(tier).activate(activation, {gate, up, 2, half, true});
      for (int i : {0, 1}) {
        EXPECT_TRUE(std::isnan(h[i]));
        EXPECT_TRUE(std::isnan(F32FromBF16(half[i])));
      }
    }
  }
}

TEST(CombineRow, AddsSlotsInOrderAndSkipsTheMissing) {
  const int64_t n = 37;
  const std::vector<float> rows = test::Gaussian(static_cast<size_t>(5 * n), 3);
  const int32_t positions[] = {4, -1, 0, 2};
  const float weights[] = {0.5f, NAN, 0.25f, -1.5f};
  for (const cpu::Tier tier : Tiers()) {
    std::vector<float> y(static_cast<size_t>(n) + 1, 77.0f);
    std::vector<uint16_t> half(static_cast<size_t>(n));
    RowOpsFor(tier).combine({rows.data(), n, positions, weights, 4, y.data(), false});
    RowOpsFor(tier).combine({rows.data(), n, positions, weights, 4, half.data(), true});
    for (int64_t c = 0; c < n; ++c) {
      const auto at = [&](int64_t r) { return static_cast<double>(rows[static_cast<size_t>(r * n + c)]); };
      EXPECT_NEAR(y[static_cast<size_t>(c)], 0.5 * at(4) + 0.25 * at(0) - 1.5 * at(2), 1e-6);
      EXPECT_EQ(half[static_cast<size_t>(c)], BF16FromF32(y[static_cast<size_t>(c)]));
    }
    EXPECT_EQ(y.back(), 77.0f);
  }
}

}  // namespace
}  // namespace billfish::moe
