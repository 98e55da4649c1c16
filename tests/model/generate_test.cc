// The sampler, the generation loop and perplexity.
#include "billfish/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "edited_model.h"

namespace billfish {
namespace {

using testing::HasSubstr;

std::map<int32_t, int> Draw(const SamplingOptions& options, const std::vector<float>& logits, int times) {
  auto sampler = Sampler::Create(options);
  std::map<int32_t, int> counts;
  for (int i = 0; i < times; ++i) ++counts[sampler->Next(logits)];
  return counts;
}

TEST(Sampler, GreedyTakesTheLargestAndTheSmallerIdAmongEquals) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  auto greedy = Sampler::Create({});
  EXPECT_EQ(greedy->Next(std::vector<float>{1, 3, 2, 3}), 1);
  EXPECT_EQ(greedy->Next(std::vector<float>{nan, -5, nan, -4}), 3);
  EXPECT_EQ(greedy->Next(std::vector<float>{nan, nan}), 0);
  EXPECT_EQ(greedy->Next(std::vector<float>{1, infinity, nan}), 1);
}

TEST(Sampler, DrawsInProportionToTheProbabilities) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  const auto counts = Draw({.temperature = 1, .seed = 4}, logits, 80000);
  EXPECT_NEAR(counts.at(0), 10000, 400);
  EXPECT_NEAR(counts.at(1), 20000, 500);
  EXPECT_NEAR(counts.at(2), 50000, 600);
  const auto sharp = Draw({.temperature = 0.5f, .seed = 4}, logits, 30000);  // squares: 1, 4, 25
  EXPECT_NEAR(sharp.at(0), 1000, 150);
  EXPECT_NEAR(sharp.at(2), 25000, 300);
}

TEST(Sampler, TopKTopPAndMinPCutTheTail) {
  const std::vector<float> logits = {std::log(4.0f), std::log(1.0f), std::log(3.0f), std::log(2.0f)};  // of 10
  EXPECT_EQ(Draw({.temperature = 1, .top_k = 2}, logits, 500).size(), 2U);
  EXPECT_EQ(Draw({.temperature = 1, .top_k = 9}, logits, 500).size(), 4U);
  EXPECT_EQ(Draw({.temperature = 1, .top_p = 0.35f}, logits, 500).size(), 1U);
  EXPECT_EQ(Draw({.temperature = 1, .top_p = 0.69f}, logits, 500).size(), 2U);
  EXPECT_EQ(Draw({.temperature = 1, .top_p = 0.71f}, logits, 500).size(), 3U);
  EXPECT_EQ(Draw({.temperature = 1, .min_p = 0.45f}, logits, 500).size(), 3U);
  EXPECT_EQ(Draw({.temperature = 1, .min_p = 1}, logits, 500).size(), 1U);
  // top_p is of what top_k left: 4/7 and 3/7.
  EXPECT_EQ(Draw({.temperature = 1, .top_k = 2, .top_p = 0.56f}, logits, 500).size(), 1U);
}

TEST(Sampler, SkipsNanAndSurvivesInfinities) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Draw({.temperature = 1}, {nan, 0, nan}, 50).at(1), 50);
  EXPECT_EQ(Draw({.temperature = 1}, {nan, nan}, 50).at(0), 50);
  EXPECT_EQ(Draw({.temperature = 1}, {0, infinity, -infinity}, 50).at(1), 50);
  EXPECT_EQ(Draw({.temperature = 1}, {0, -infinity}, 50).at(0), 50);
}

TEST(Sampler, TheSeedFixesTheIdsOnEveryPlatform) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  auto a = Sampler::Create({.temperature = 1, .seed = 42}), b = Sampler::Create({.temperature = 1, .seed = 42}),
       c = Sampler::Create({.temperature = 1, .seed = 43});
  std::vector<int32_t> first, second, third;
  for (int i = 0; i < 30; ++i) {
    first.push_back(a->Next(logits));
    second.push_back(b->Next(logits));
    third.push_back(c->Next(logits));
  }
  EXPECT_EQ(first, second);
  EXPECT_NE(first, third);
  // SplitMix64 of seed 0 begins with 0xe220a8397b1dcdaf = 0.8833108082... of 2^64 and 0x6e789e6aa1b965f4 = 0.4315...
  auto zero = Sampler::Create({.temperature = 1, .seed = 0});
  const std::vector<float> even(1000, 0.0f);
  EXPECT_EQ(zero->Next(even), 883);
  EXPECT_EQ(zero->Next(even), 431);
}

TEST(Sampler, RefusesOptionsThatMeanNothing) {
  const auto error = [](const SamplingOptions& options) {
    const auto sampler = Sampler::Create(options);
    return sampler ? std::string("no error") : std::string(sampler.error().message());
  };
  EXPECT_THAT(error({.temperature = -1}), HasSubstr("temperature is -1; it must be a finite number of at least 0"));
  EXPECT_THAT(error({.temperature = std::nanf("")}), HasSubstr("temperature is nan"));
  EXPECT_THAT(error({.top_k = -2}), HasSubstr("top_k is -2"));
  EXPECT_THAT(error({.top_p = 0}), HasSubstr("top_p is 0; it must be above 0 and at most 1"));
  EXPECT_THAT(error({.top_p = 1.5f}), HasSubstr("top_p is 1.5"));
  EXPECT_THAT(error({.min_p = -0.5f}), HasSubstr("min_p is -0.5; it must be from 0 to 1"));
}

class GenerateText : public testing::Test {
 protected:
  void SetUp() override {
    auto loaded = Model::Load(test::GoldenModel("qwen3-tiny"));
    ASSERT_TRUE(loaded) << loaded.error().message();
    model_ = std::move(*loaded);
  }
  Result<GenerateResult> Run(const GenerateOptions& options, int64_t room = 64, const std::function<bool(int32_t)>& on_token = {}) {
    cache_ = std::move(*model_.NewCache(room));
    return Generate(model_, prompt_, options, cache_, ctx_, on_token);
  }
  std::vector<int32_t> prompt_ = {5, 6, 7};
  Model model_;
  KvCache cache_;
  Workspace workspace_;
  ExecContext ctx_{workspace_, 2};
};

TEST_F(GenerateText, StopsAtTheLengthAndCountsItsSteps) {
  std::vector<int32_t> seen;
  const auto result = Run({.max_new_tokens = 9}, 64, [&](int32_t id) {
    seen.push_back(id);
    return true;
  });
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->stop, StopReason::kLength);
  EXPECT_EQ(result->ids.size(), 9U);
  EXPECT_EQ(seen, result->ids);
  EXPECT_EQ(result->prompt_tokens, 3);
  EXPECT_EQ(result->decode_steps, 8);
  EXPECT_EQ(cache_.length(), 3 + 8);
  EXPECT_GT(result->prefill_tokens_per_second(), 0);
  EXPECT_GT(result->decode_tokens_per_second(), 0);
}

TEST_F(GenerateText, StopsAtAStopId) {
  const auto free = Run({.max_new_tokens = 20});
  const int32_t stop = free->ids[4];
  const auto first = std::find(free->ids.begin(), free->ids.end(), stop);
  const auto result = Run({.max_new_tokens = 20, .stop_ids = {stop}});
  EXPECT_EQ(result->stop, StopReason::kStopId);
  EXPECT_EQ(result->ids, std::vector<int32_t>(free->ids.begin(), first + 1));
  EXPECT_EQ(StopReasonName(result->stop), "stop id");

  // The same through the model's own configuration, unless it is to be ignored.
  test::EditedModel edited("qwen3-tiny");
  edited.config["eos_token_id"] = stop;
  auto loaded = edited.Load();
  ASSERT_TRUE(loaded) << loaded.error().message();
  cache_ = {};
  model_ = std::move(*loaded);
  EXPECT_EQ(Run({.max_new_tokens = 20})->ids, result->ids);
  EXPECT_EQ(Run({.max_new_tokens = 20, .ignore_eos = true})->ids, free->ids);
}

TEST_F(GenerateText, StopsWhenTheCacheIsFullOrTheCallerSaysSo) {
  const auto full = Run({.max_new_tokens = 50}, 10);
  EXPECT_EQ(full->stop, StopReason::kContext);
  EXPECT_EQ(full->ids.size(), 8U);  // 3 of the prompt, 7 fed back, and the last one drawn
  EXPECT_EQ(cache_.length(), 10);
  const auto cancelled = Run({.max_new_tokens = 50}, 64, [](int32_t) { return false; });
  EXPECT_EQ(cancelled->stop, StopReason::kCancelled);
  EXPECT_EQ(cancelled->ids.size(), 1U);
}

TEST_F(GenerateText, SamplingRepeatsWithItsSeed) {
  const GenerateOptions options{.max_new_tokens = 20, .sampling = {.temperature = 1.5f, .seed = 11}};
  GenerateOptions other = options;
  other.sampling.seed = 12;
  EXPECT_EQ(Run(options)->ids, Run(options)->ids);
  EXPECT_NE(Run(options)->ids, Run(other)->ids);
}

TEST_F(GenerateText, RefusesWhatItCannotDo) {
  EXPECT_THAT(std::string(Run({.max_new_tokens = 0}).error().message()), HasSubstr("max_new_tokens is 0"));
  EXPECT_THAT(std::string(Run({.sampling = {.top_p = 2}}).error().message()), HasSubstr("top_p is 2"));
  EXPECT_THAT(std::string(Run({}, 2).error().message()), HasSubstr("3 tokens were given and the cache holds 0 of at most 2"));
  prompt_.clear();
  EXPECT_THAT(std::string(Run({}).error().message()), HasSubstr("no token ids were given"));
}

TEST_F(GenerateText, PerplexityIsTheMeanOverWindowsOfTheMeanLoss) {
  std::vector<int32_t> ids(33);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 29 % 256);
  double sum = 0;
  std::vector<float> logits(16 * 256);
  for (size_t window = 0; window < 2; ++window) {
    KvCache cache = std::move(*model_.NewCache(16));
    ASSERT_TRUE(model_.Forward(std::span(ids).subspan(window * 16, 16), cache, {logits.data(), DType::kF32, {16, 256}}, ctx_).ok());
    for (size_t t = 0; t < 16; ++t) {
      double total = 0;
      for (size_t i = 0; i < 256; ++i) total += std::exp(static_cast<double>(logits[t * 256 + i]));
      sum += std::log(total) - static_cast<double>(logits[t * 256 + static_cast<size_t>(ids[window * 16 + t + 1])]);
    }
  }
  std::vector<int64_t> done;
  const auto result = Perplexity(model_, ids, 16, 0, ctx_, [&](const PerplexityProgress& progress) {
    done.push_back(progress.windows_done);
    return progress.windows == 2;
  });
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_NEAR(result->mean_nll, sum / 32, 1e-5);
  EXPECT_NEAR(result->perplexity, std::exp(sum / 32), 1e-3 * std::exp(sum / 32));
  EXPECT_EQ(result->tokens, 32);
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2}));
  // Without the 33rd id the last window scores one token less.
  EXPECT_EQ(Perplexity(model_, std::span(ids).first(32), 16, 2, ctx_)->tokens, 31);
}

TEST_F(GenerateText, PerplexityRefusesWindowsThatTheIdsDoNotHold) {
  const std::vector<int32_t> ids(20, 1);
  const auto error = [&](int64_t window, int64_t windows) {
    return std::string(Perplexity(model_, ids, window, windows, ctx_).error().message());
  };
  EXPECT_THAT(error(1, 1), HasSubstr("the window is 1 tokens; it must be at least 2"));
  EXPECT_THAT(error(8, 3), HasSubstr("3 windows of 8 tokens were asked for; the 20 ids hold 2"));
  EXPECT_THAT(error(21, 0), HasSubstr("the 20 ids hold 0"));
  EXPECT_THAT(error(8, -1), HasSubstr("-1 windows"));
  EXPECT_THAT(std::string(Perplexity(model_, ids, 8, 2, ctx_, [](const auto&) { return false; }).error().message()),
              HasSubstr("stopped after 1 of 2 windows"));
}

}  // namespace
}  // namespace billfish
