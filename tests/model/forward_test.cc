// Model::Forward and KvCache: how a sequence may be cut, what is refused, and that decoding allocates nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "edited_model.h"
#include "support/count_allocations.h"

namespace billfish {
namespace {

using testing::HasSubstr;

std::vector<int32_t> Ids(size_t count) {
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>((i * 37 + 11) % 256);
  return ids;
}

class Forward : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto loaded = Model::Load(test::GoldenModel(GetParam()), {.max_context = 1024});
    ASSERT_TRUE(loaded) << loaded.error().message();
    model_ = std::move(*loaded);
  }
  KvCache Cache(int64_t tokens) {
    auto cache = model_.NewCache(tokens);
    EXPECT_TRUE(cache) << cache.error().message();
    return std::move(*cache);
  }
  std::vector<float> Run(std::span<const int32_t> ids, KvCache& cache, size_t rows) {
    std::vector<float> logits(rows * kVocab);
    const Status status = model_.Forward(ids, cache, {logits.data(), DType::kF32, {static_cast<int64_t>(rows), kVocab}}, ctx_);
    EXPECT_TRUE(status.ok()) << status.message();
    return logits;
  }
  static void ExpectClose(std::span<const float> a, std::span<const float> b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-3) << i;
  }

  static constexpr int64_t kVocab = 256;
  Model model_;
  Workspace workspace_;
  ExecContext ctx_{workspace_, 2};
};

INSTANTIATE_TEST_SUITE_P(Models, Forward, testing::Values("qwen2-tiny", "qwen3-yarn-tiny", "mixtral-window-tiny", "gpt-oss-plain-tiny"),
                         [](const auto& folder) {
                           std::string name = folder.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(Forward, ALongPromptEqualsItsPieces) {
  const std::vector<int32_t> ids = Ids(Model::kPrefillChunk * 2 + 89);
  KvCache whole = Cache(1024), pieces = Cache(1024);
  const std::vector<float> expected = Run(ids, whole, ids.size());
  EXPECT_EQ(whole.length(), static_cast<int64_t>(ids.size()));
  std::vector<float> found;
  for (size_t begin = 0, count = 1; begin < ids.size(); begin += count, count = std::min<size_t>(count * 3, ids.size() - begin)) {
    count = std::min(count, ids.size() - begin);
    const std::vector<float> part = Run(std::span(ids).subspan(begin, count), pieces, count);
    found.insert(found.end(), part.begin(), part.end());
  }
  ExpectClose(found, expected);
  for (const float logit : expected) ASSERT_TRUE(std::isfinite(logit));
}

TEST_P(Forward, TheLastRowAloneIsTheLastOfAll) {
  const std::vector<int32_t> ids = Ids(Model::kPrefillChunk + 10);
  KvCache a = Cache(512), b = Cache(512), c = Cache(512);
  const std::vector<float> all = Run(ids, a, ids.size());
  const std::vector<float> last = Run(ids, b, 1);
  ExpectClose(last, std::span(all).last(kVocab));
  // Without logits the cache fills just the same.
  ASSERT_TRUE(model_.Forward(std::span(ids).first(ids.size() - 1), c, TensorView(), ctx_).ok());
  ExpectClose(Run(std::span(ids).last(1), c, 1), last);
}

TEST_P(Forward, LogitRowsMayBeStrided) {
  const std::vector<int32_t> ids = Ids(5);
  KvCache a = Cache(8), b = Cache(8);
  const std::vector<float> expected = Run(ids, a, 5);
  std::vector<float> wide(5 * 300, -7.0f);
  TensorView view(wide.data(), DType::kF32, {5, kVocab});
  const int64_t strides[] = {300, 1};
  view.set_strides(strides);
  ASSERT_TRUE(model_.Forward(ids, b, view, ctx_).ok());
  for (size_t t = 0; t < 5; ++t) {
    for (size_t i = 0; i < 300; ++i) ASSERT_EQ(wide[t * 300 + i], i < kVocab ? expected[t * kVocab + i] : -7.0f);
  }
}

TEST_P(Forward, ATruncatedCacheContinuesAsIfTheRestHadNeverBeen) {
  const std::vector<int32_t> ids = Ids(100);
  KvCache cache = Cache(128), fresh = Cache(128);
  Run(ids, cache, 1);
  ASSERT_TRUE(cache.Truncate(33).ok());
  EXPECT_EQ(cache.length(), 33);
  const std::vector<int32_t> other(40, 9);
  const std::vector<float> found = Run(other, cache, 40);
  Run(std::span(ids).first(33), fresh, 1);
  ExpectClose(found, Run(other, fresh, 40));
  EXPECT_THAT(std::string(cache.Truncate(74).message()), HasSubstr("asked to keep 74 tokens; it holds 73"));
  EXPECT_THAT(std::string(cache.Truncate(-1).message()), HasSubstr("asked to keep -1 tokens"));
}

TEST_P(Forward, DecodingAllocatesNothing) {
  const std::vector<int32_t> ids = Ids(64);
  KvCache cache = Cache(256);
  std::vector<float> logits(kVocab);
  const TensorView view(logits.data(), DType::kF32, {1, kVocab});
  ASSERT_TRUE(model_.Forward(ids, cache, view, ctx_).ok());
  ASSERT_TRUE(model_.Forward(std::span(ids).first(1), cache, view, ctx_).ok());
  const int64_t before = test::allocations;
  for (size_t i = 0; i < 50; ++i) (void)model_.Forward(std::span(ids).subspan(i, 1), cache, view, ctx_);
  EXPECT_EQ(test::allocations, before);
  EXPECT_EQ(cache.length(), 115);
}

TEST_P(Forward, Bf16ActivationsStayNear) {
  const auto rounded = Model::Load(test::GoldenModel(GetParam()), {.activation = DType::kBF16});
  ASSERT_TRUE(rounded) << rounded.error().message();
  const test::GoldenFile golden(test::GoldenModel(GetParam()) / "golden.safetensors");
  const std::vector<int32_t> ids = golden["input_ids"].As<int32_t>();
  const std::vector<float> expected = golden["logits"].Floats();
  auto cache = rounded->NewCache(static_cast<int64_t>(ids.size()));
  ASSERT_TRUE(cache);
  std::vector<float> logits(expected.size());
  ASSERT_TRUE(rounded->Forward(ids, *cache, {logits.data(), DType::kF32, {static_cast<int64_t>(ids.size()), kVocab}}, ctx_).ok());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    difference += std::pow(static_cast<double>(logits[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  // A few roundings of 2^-9 per layer, amplified by random weights; a wrong tensor would give about 1. Never zero: it did round.
  EXPECT_LT(std::sqrt(difference / norm), 0.1);
  EXPECT_GT(std::sqrt(difference / norm), 1e-4);
}

TEST_P(Forward, RefusesWhatItCannotDoAndKeepsTheCache) {
  KvCache cache = Cache(16);
  std::vector<float> logits(20 * kVocab);
  const auto error = [&](std::span<const int32_t> ids, TensorView view) {
    const Status status = model_.Forward(ids, cache, view, ctx_);
    return std::string(ErrorCodeName(status.code())) + ": " + std::string(status.message());
  };
  const TensorView one(logits.data(), DType::kF32, {1, kVocab});
  ASSERT_TRUE(model_.Forward(Ids(10), cache, one, ctx_).ok());
  EXPECT_THAT(error(Ids(7), one), HasSubstr("invalid argument: 7 tokens were given and the cache holds 10 of at most 16"));
  EXPECT_THAT(error({}, one), HasSubstr("no token ids were given"));
  EXPECT_THAT(error(std::vector<int32_t>{1, 2, 256}, one), HasSubstr("token id 256 at place 2 is outside the vocabulary of 256"));
  EXPECT_THAT(error(std::vector<int32_t>{-1}, one), HasSubstr("token id -1 at place 0"));
  EXPECT_THAT(error(Ids(3), {logits.data(), DType::kF32, {2, kVocab}}), HasSubstr("shape mismatch: logits are"));
  EXPECT_THAT(error(Ids(3), {logits.data(), DType::kF32, {3, kVocab - 1}}), HasSubstr("they must be f32[3, 256] or f32[1, 256]"));
  EXPECT_THAT(error(Ids(3), {logits.data(), DType::kBF16, {3, kVocab}}), HasSubstr("shape mismatch: logits are"));
  EXPECT_EQ(cache.length(), 10);
  EXPECT_TRUE(model_.Forward(Ids(6), cache, one, ctx_).ok());
}

TEST_P(Forward, RefusesTheCacheOfAnotherModel) {
  const auto other = Model::Load(test::GoldenModel(GetParam()));
  auto cache = other->NewCache(8);
  EXPECT_THAT(std::string(model_.Forward(Ids(1), *cache, TensorView(), ctx_).message()), HasSubstr("belongs to another model"));
  KvCache empty;
  EXPECT_THAT(std::string(model_.Forward(Ids(1), empty, TensorView(), ctx_).message()), HasSubstr("belongs to another model"));
}

TEST_P(Forward, CachesHaveTheSizeThatWasAskedFor) {
  EXPECT_EQ(Cache(100).capacity(), 100);
  EXPECT_GT(Cache(100).bytes(), 0U);
  EXPECT_THAT(std::string(model_.NewCache(0).error().message()), HasSubstr("0 tokens was asked for; this model takes 1 to 1024"));
  EXPECT_FALSE(model_.NewCache(1025));
  const auto endless = Model::Load(test::GoldenModel(GetParam()), {.max_context = 0x7fffffff});
  ASSERT_TRUE(endless);
  EXPECT_EQ(endless->NewCache(0x7fffffff).status().code(), ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace billfish
