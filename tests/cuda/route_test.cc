// The router on the device against its definition, for every rule.
#include "cuda/route.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/float_formats.h"
#include "cuda/model_ops.h"
#include "reference/route.h"
#include "support/device_array.h"
#include "support/device_numbers.h"
#include "support/random_tensor.h"

namespace billfish::cuda {
namespace {

using test::kGpu;
using ::testing::HasSubstr;
using Score = RouterRule::Score;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

std::vector<int32_t> ReadInts(const DeviceBuffer& buffer, int64_t count) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  const Status status =
      CopyTensor(TensorView(values.data(), DType::kI32, {count}), ConstTensorView(buffer.data(), DType::kI32, {count}, kGpu));
  EXPECT_TRUE(status.ok()) << status.message();
  return values;
}

DeviceBuffer Ints(const std::vector<int32_t>& values) {
  auto buffer = DeviceBuffer::Allocate(kGpu, std::max<size_t>(values.size(), 1) * 4);
  EXPECT_TRUE(buffer) << buffer.status().message();
  const auto count = static_cast<int64_t>(values.size());
  if (count > 0) {
    EXPECT_TRUE(
        CopyTensor(TensorView(buffer->data(), DType::kI32, {count}, kGpu), ConstTensorView(values.data(), DType::kI32, {count})).ok());
  }
  return std::move(*buffer);
}

Routed RunRouter(const RouterRule& rule, const std::vector<float>& logits, const std::vector<int32_t>& token_ids = {}) {
  const int64_t T = static_cast<int64_t>(logits.size()) / rule.E;
  const auto device = GpuDevice::Get(0);
  EXPECT_TRUE(device);
  const auto router = Router::Create(rule, **device);
  EXPECT_TRUE(router) << router.status().message();
  if (!router) return {};
  test::DeviceNumbers input(logits, DType::kF32), weights(T * rule.top_k, DType::kF32);
  const DeviceBuffer ids = Ints(std::vector<int32_t>(static_cast<size_t>(T * rule.top_k), -7));
  const DeviceBuffer tokens = Ints(token_ids);
  const Status status = router->Run(reinterpret_cast<const float*>(input.data()), rule.E, T,
                                    token_ids.empty() ? nullptr : reinterpret_cast<const int32_t*>(tokens.data()),
                                    reinterpret_cast<int32_t*>(ids.data()), reinterpret_cast<float*>(weights.data()), nullptr);
  EXPECT_TRUE(status.ok()) << status.message();
  return {ReadInts(ids, T * rule.top_k), weights.Read()};
}

// Ids may differ from the definition's only where fp32 cannot tell the two scores apart.
void ExpectDefinition(const RouterRule& rule, const std::vector<float>& logits, const Routed& found,
                      const std::vector<int32_t>& token_ids = {}) {
  const int64_t T = static_cast<int64_t>(logits.size()) / rule.E;
  ASSERT_EQ(static_cast<int64_t>(found.ids.size()), T * rule.top_k);
  int64_t other = 0;
  for (int64_t t = 0; t < T; ++t) {
    const std::vector<double> row(logits.begin() + t * rule.E, logits.begin() + (t + 1) * rule.E);
    const reference::Route wanted = reference::RouteToken(row, rule, token_ids.empty() ? 0 : token_ids[static_cast<size_t>(t)]);
    const auto first = found.ids.begin() + t * rule.top_k;
    if (!std::equal(wanted.ids.begin(), wanted.ids.end(), first)) {
      ++other;
      continue;
    }
    for (int64_t j = 0; j < rule.top_k; ++j) {
      const double weight = wanted.weights[static_cast<size_t>(j)];
      EXPECT_NEAR(found.weights[static_cast<size_t>(t * rule.top_k + j)], weight, 2e-6 * std::fabs(weight) + 1e-30) << "token " << t;
    }
  }
  EXPECT_LE(other, T / 500 + 1) << "tokens with other experts than the definition's, of " << T;
}

TEST(Router, EveryScoreFollowsItsDefinition) {
  BILLFISH_NEEDS_GPU();
  for (const Score score : {Score::kSoftmax, Score::kTopKSoftmax, Score::kSigmoid, Score::kSqrtSoftplus}) {
    for (const auto& [E, top_k] :
         std::vector<std::pair<int64_t, int64_t>>{{8, 2}, {128, 8}, {128, 4}, {60, 4}, {256, 6}, {257, 3}, {1024, 40}, {1, 1}, {5, 5}}) {
      for (const bool renormalize : {false, true}) {
        RouterRule rule{score, E, top_k};
        rule.renormalize = renormalize;
        rule.routed_scaling = renormalize ? 2.5f : 1.0f;
        SCOPED_TRACE(testing::Message() << "score " << static_cast<int>(score) << " E " << E << " top_k " << top_k);
        const auto logits = test::Gaussian(static_cast<size_t>(37 * E), 11, 3.0f);
        ExpectDefinition(rule, logits, RunRouter(rule, logits));
      }
    }
  }
}

TEST(Router, CorrectionAndGroupsSteerTheChoiceButNotTheWeights) {
  BILLFISH_NEEDS_GPU();
  for (const Score score : {Score::kSigmoid, Score::kSoftmax, Score::kSqrtSoftplus}) {
    for (const auto& [E, groups, kept] :
         std::vector<std::array<int64_t, 3>>{{256, 8, 4}, {160, 1, 1}, {96, 32, 20}, {64, 64 / 4, 8}, {12, 3, 1}, {24, 24, 9}}) {
      RouterRule rule{score, E, std::min<int64_t>(8, kept * (E / groups))};
      rule.correction = test::Gaussian(static_cast<size_t>(E), 5, 0.2f);
      rule.n_group = groups;
      rule.topk_group = kept;
      rule.renormalize = true;
      SCOPED_TRACE(testing::Message() << "score " << static_cast<int>(score) << " E " << E << " groups " << groups);
      const auto logits = test::Gaussian(static_cast<size_t>(501 * E), 23);
      ExpectDefinition(rule, logits, RunRouter(rule, logits));
    }
  }
}

TEST(Router, TiesGoToTheSmallerId) {
  BILLFISH_NEEDS_GPU();
  RouterRule rule{Score::kTopKSoftmax, 100, 6};
  std::vector<float> logits(200, 0.5f);
  for (size_t e = 0; e < 100; e += 2) logits[100 + e] = e % 4 == 0 ? -0.0f : 0.0f;  // equal, whatever their sign
  for (size_t e = 1; e < 100; e += 2) logits[100 + e] = -1.0f;
  const Routed found = RunRouter(rule, logits);
  EXPECT_EQ(std::vector<int32_t>(found.ids.begin(), found.ids.begin() + 6), (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(std::vector<int32_t>(found.ids.begin() + 6, found.ids.end()), (std::vector<int32_t>{0, 2, 4, 6, 8, 10}));
}

TEST(Router, IdsAreValidAndDistinctWhateverTheLogitsAre) {
  BILLFISH_NEEDS_GPU();
  for (const float value : {NAN, -INFINITY, INFINITY}) {
    for (const int64_t groups : {1, 4}) {
      RouterRule rule{Score::kSigmoid, 64, 8};
      rule.n_group = groups;
      rule.topk_group = groups == 1 ? 1 : 2;
      std::vector<float> logits(3 * 64, value);
      logits[70] = 1.0f;
      const Routed found = RunRouter(rule, logits);
      for (int t = 0; t < 3; ++t) {
        const std::set<int32_t> ids(found.ids.begin() + t * 8, found.ids.begin() + (t + 1) * 8);
        EXPECT_EQ(ids.size(), 8U);
        EXPECT_GE(*ids.begin(), 0);
        EXPECT_LT(*ids.rbegin(), 64);
      }
    }
  }
}

TEST(Router, HashRoutingReadsTheTable) {
  BILLFISH_NEEDS_GPU();
  RouterRule rule{Score::kSqrtSoftplus, 16, 3};
  rule.renormalize = true;
  for (int32_t i = 0; i < 10 * 3; ++i) rule.hash_table.push_back(i * 7 % 16);
  const auto logits = test::Gaussian(5 * 16, 3);
  const std::vector<int32_t> tokens = {9, 0, 3, 3, 1};
  ExpectDefinition(rule, logits, RunRouter(rule, logits, tokens), tokens);
  const Routed unknown = RunRouter(rule, logits, {10, -1, 0, 0, 0});
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(unknown.ids[i], -1);
    EXPECT_EQ(unknown.weights[i], 0.0f);
  }
}

// The three launches that RunNormed replaces, from the norm that it made: the order of a sum may round that differently.
TEST(Router, NormMatrixAndRuleAtOnceAreWhatTheyAreOneByOne) {
  BILLFISH_NEEDS_GPU();
  const auto device = GpuDevice::Get(0);
  ASSERT_TRUE(device);
  if ((*device)->arch().major < 9) GTEST_SKIP() << "the GPU has no clusters";
  const auto ops = ModelOps::Create(**device, 64);
  const auto linear = LinearPlain::Create(**device);
  ASSERT_TRUE(ops && linear);
  struct Case {
    int T, E, H, top_k;
    Score score;
    bool delta, bias, grouped;
  };
  for (const Case& c :
       {Case{1, 128, 2048, 8, Score::kSoftmax, true, false, false}, Case{16, 128, 2048, 8, Score::kSoftmax, true, false, false},
        Case{1, 32, 2880, 4, Score::kTopKSoftmax, true, true, false}, Case{5, 60, 64, 4, Score::kSoftmax, false, false, false},
        Case{3, 8, 96, 2, Score::kSigmoid, true, true, false}, Case{2, 512, 4096, 10, Score::kSoftmax, true, false, false},
        Case{2, 256, 7168, 8, Score::kSigmoid, true, false, true}, Case{1, 100, 16384, 3, Score::kSqrtSoftplus, false, true, false},
        Case{1, 1, 32, 1, Score::kSoftmax, true, false, false}, Case{3, 250, 2048, 32, Score::kSoftmax, true, true, false}}) {
    SCOPED_TRACE(testing::Message() << c.T << " rows of " << c.H << " to " << c.E << " experts");
    RouterRule rule{c.score, c.E, c.top_k};
    rule.renormalize = true;
    if (c.grouped) {
      rule.n_group = 8, rule.topk_group = 4;
      rule.correction = test::Gaussian(static_cast<size_t>(c.E), 5, 0.2f);
    }
    const auto router = Router::Create(rule, **device);
    ASSERT_TRUE(router) << router.status().message();
    ASSERT_TRUE(router->CanNorm(c.H));
    const auto count = static_cast<size_t>(c.T * c.H), slots = static_cast<size_t>(c.T * c.top_k), scores = static_cast<size_t>(c.T * c.E);
    const std::vector<float> rows = test::Gaussian(count, 31);
    const test::DeviceArray<float> x(rows), x_once(count, NAN), delta(test::Gaussian(count, 32)),
        norm(test::Gaussian(static_cast<size_t>(c.H), 33)), bias(test::Gaussian(static_cast<size_t>(c.E), 34)), logits(scores, NAN);
    const test::DeviceArray<float> weights(slots, NAN), weights_once(slots, NAN);
    const test::DeviceArray<int32_t> ids(slots, -7), ids_once(slots, -7);
    const test::DeviceArray<uint16_t> y(count, 0x7fc0), y_once(count, 0x7fc0),
        matrix(test::ToBF16(test::Gaussian(static_cast<size_t>(c.E * c.H), 35, 1 / std::sqrt(static_cast<float>(c.H)))));
    NormRouteArgs args;
    args.norm = {.x = x.get(),
                 .delta = c.delta ? delta.get() : nullptr,
                 .weight = norm.get(),
                 .sum = x_once.get(),
                 .y = y_once.get(),
                 .eps = 1e-6f,
                 .M = c.T,
                 .H = c.H};
    args.weight = matrix.get();
    args.bias = c.bias ? bias.get() : nullptr;
    args.route.ids = ids_once.get();
    args.route.weights = weights_once.get();
    ASSERT_TRUE(router->RunNormed(args, nullptr).ok());
    ASSERT_EQ(x.Read(), rows);
    ASSERT_TRUE(ops->RmsNorm({.x = x.get(), .delta = args.norm.delta, .weight = norm.get(), .y = y.get(), .eps = 1e-6f, .T = c.T, .H = c.H},
                             nullptr)
                    .ok());
    ASSERT_EQ(x_once.Read(), x.Read());
    const auto y_found = y_once.Read(), y_wanted = y.Read();
    for (size_t i = 0; i < count; ++i) {
      const float wanted = F32FromBF16(y_wanted[i]);
      ASSERT_NEAR(F32FromBF16(y_found[i]), wanted, std::fabs(wanted) * 0x1p-7f) << i;
    }
    ASSERT_TRUE(linear
                    ->Run({.x = y_once.get(),
                           .weight = matrix.get(),
                           .bias = args.bias,
                           .y = logits.get(),
                           .x_stride = c.H,
                           .y_stride = c.E,
                           .type = PlainType::kBF16,
                           .M = c.T,
                           .N = c.E,
                           .K = c.H},
                          nullptr)
                    .ok());
    ASSERT_TRUE(router->Run(logits.get(), c.E, c.T, nullptr, ids.get(), weights.get(), nullptr).ok());
    EXPECT_EQ(ids_once.Read(), ids.Read());
    const auto found = weights_once.Read(), wanted = weights.Read();
    for (size_t i = 0; i < slots; ++i) EXPECT_NEAR(found[i], wanted[i], 3e-6f * std::fabs(wanted[i]) + 1e-7f) << i;
    // The same again: nothing depends on which block ends first.
    ASSERT_TRUE(
        router
            ->RunNormed({.norm = {.x = x_once.get(), .weight = norm.get(), .sum = x.get(), .y = y.get(), .eps = 1e-6f, .M = c.T, .H = c.H},
                         .weight = args.weight,
                         .bias = args.bias,
                         .route = args.route},
                        nullptr)
            .ok());
    EXPECT_EQ(y.Read(), y_found);
    EXPECT_EQ(weights_once.Read(), found);
  }
}

// Of a matrix of zeros the logits are the bias, so that they can be anything.
TEST(Router, RoutingWithTheNormChoosesAmongStrangeLogitsAsWithoutIt) {
  BILLFISH_NEEDS_GPU();
  const auto device = GpuDevice::Get(0);
  ASSERT_TRUE(device);
  if ((*device)->arch().major < 9) GTEST_SKIP() << "the GPU has no clusters";
  constexpr int kH = 64;
  for (const int E : {7, 100, 128, 130, 256, 300}) {
    for (const bool all_equal : {true, false}) {
      SCOPED_TRACE(testing::Message() << E << " experts, " << (all_equal ? "equal" : "mixed"));
      constexpr std::array<float, 7> kMixed = {0.0f, -0.0f, 1.0f, -INFINITY, NAN, 1.0f, -2.0f};
      std::vector<float> logits(static_cast<size_t>(E), 0.5f);
      for (size_t e = 0; e < logits.size() && !all_equal; ++e) logits[e] = kMixed[e * e % kMixed.size()];
      const int top_k = std::min(E, 20);
      const auto router = Router::Create({Score::kTopKSoftmax, E, top_k}, **device);
      ASSERT_TRUE(router) << router.status().message();
      const auto slots = static_cast<size_t>(top_k);
      const test::DeviceArray<float> x(std::vector<float>(kH, 1.0f)), sum(kH, 0.0f), norm(std::vector<float>(kH, 1.0f)), bias(logits),
          weights(slots, NAN);
      const test::DeviceArray<uint16_t> y(kH, 0), matrix(static_cast<size_t>(E * kH), 0);
      const test::DeviceArray<int32_t> ids(slots, -7), ids_once(slots, -7);
      NormRouteArgs args;
      args.norm = {.x = x.get(), .weight = norm.get(), .sum = sum.get(), .y = y.get(), .eps = 1e-6f, .M = 1, .H = kH};
      args.weight = matrix.get();
      args.bias = bias.get();
      args.route.ids = ids_once.get();
      args.route.weights = weights.get();
      ASSERT_TRUE(router->RunNormed(args, nullptr).ok());
      ASSERT_TRUE(router->Run(bias.get(), E, 1, nullptr, ids.get(), weights.get(), nullptr).ok());
      EXPECT_EQ(ids_once.Read(), ids.Read());
    }
  }
}

TEST(Router, RefusesWhatItCannotHold) {
  BILLFISH_NEEDS_GPU();
  const auto device = GpuDevice::Get(0);
  ASSERT_TRUE(device);
  const auto message = [&](const RouterRule& rule) { return std::string(Router::Create(rule, **device).status().message()); };
  EXPECT_THAT(message(RouterRule{Score::kSoftmax, 2000, 2}), HasSubstr("at most 1024 experts and this one has 2000"));
  RouterRule grouped{Score::kSoftmax, 128, 2};
  grouped.n_group = 64;
  grouped.topk_group = 2;
  EXPECT_THAT(message(grouped), HasSubstr("at most 32 groups and this one has 64"));
  RouterRule hashed{Score::kSoftmax, 4, 1};
  hashed.hash_table = {0, 1};
  const auto router = Router::Create(hashed, **device);
  ASSERT_TRUE(router) << router.status().message();
  EXPECT_THAT(std::string(router->Run(nullptr, 4, 2, nullptr, nullptr, nullptr, nullptr).message()), HasSubstr("got no token ids"));
  if ((*device)->arch().major < 9) return;
  NormRouteArgs normed;
  normed.norm.M = 3;
  EXPECT_THAT(std::string(router->RunNormed(normed, nullptr).message()), HasSubstr("hash routing of 3 tokens got no token ids"));
  EXPECT_FALSE(router->CanNorm(48));
  EXPECT_FALSE(router->CanNorm(16416));
  const auto wide = Router::Create(RouterRule{Score::kSoftmax, 513, 2}, **device);
  ASSERT_TRUE(wide) << wide.status().message();
  EXPECT_FALSE(wide->CanNorm(64));
}

}  // namespace
}  // namespace billfish::cuda
