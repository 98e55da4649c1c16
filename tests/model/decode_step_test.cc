// Model::DecodeStep: sequences of several lengths in one step answer as they do alone, whatever goes on in the others. On the CPU and,
// where there is one, on the GPU.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "billfish/cuda.h"
#include "edited_model.h"

namespace billfish {
namespace {

using test::GoldenModel;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;
using Rows = std::vector<float>;

// Prompts of sequences 0, 1, ...: of all lengths from 1 on, so that windows, chunks of keys and tiles end at different places.
Ids Prompt(const Model& model, int64_t sequence, int64_t seed = 0) {
  Ids ids(static_cast<size_t>(1 + sequence * 7 % 41));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] =
        static_cast<int32_t>((i * 7919 + static_cast<size_t>(sequence * 104729 + seed) + 13) % static_cast<size_t>(model.config().vocab));
  }
  return ids;
}

class DecodeStep : public testing::TestWithParam<Device::Kind> {
 protected:
  static constexpr int64_t kRoom = 64;

  void SetUp() override {
    if (GetParam() == Device::Kind::kCpu) return;
    options_.device = {Device::Kind::kCuda, 0};
    options_.activation = DType::kBF16;
    if (const auto devices = CudaDevices(); !devices) GTEST_SKIP() << devices.error().message();
  }

  Model Make(const char* folder) const {
    auto model = Model::Load(GoldenModel(folder), options_);
    EXPECT_TRUE(model) << model.status().message();
    return model ? std::move(*model) : Model();
  }

  KvCache Cache(const Model& model, int64_t sequences, int64_t room = kRoom) const {
    auto cache = model.NewCache(room, sequences);
    EXPECT_TRUE(cache) << cache.status().message();
    return std::move(*cache);
  }

  void Prefill(const Model& model, KvCache& cache, int64_t sequence, const Ids& prompt) {
    const Status status = model.Forward(prompt, cache, TensorView(), ctx_, sequence);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  Rows Step(const Model& model, KvCache& cache, const Ids& ids) {
    const auto B = static_cast<int64_t>(ids.size()), V = model.config().vocab;
    Rows logits(static_cast<size_t>(B * V), NAN);
    const Status status = model.DecodeStep(ids, cache, {logits.data(), DType::kF32, {B, V}}, ctx_);
    EXPECT_TRUE(status.ok()) << status.message();
    return logits;
  }

  static Rows RowOf(const Rows& rows, const Model& model, int64_t row) {
    const auto V = model.config().vocab;
    return {rows.begin() + row * V, rows.begin() + (row + 1) * V};
  }

  // Largest difference of a row, relative to its largest logit.
  static double Difference(const Rows& found, const Rows& expected) {
    double largest = 0, difference = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (!std::isfinite(found[i])) return INFINITY;
      largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
      difference = std::max(difference, std::fabs(static_cast<double>(expected[i]) - found[i]));
    }
    return difference / largest;
  }

  // fp32 sums in another order; on a GPU an intermediate may round to the next bf16 in turn.
  double Tolerance() const { return GetParam() == Device::Kind::kCpu ? 1e-4 : 0.03; }

  ModelOptions options_;
  Workspace workspace_;
  ExecContext ctx_{workspace_, 2};
};

constexpr const char* kFolders[] = {"gpt-oss-plain-tiny", "qwen2-tiny", "qwen3-tiny"};

TEST_P(DecodeStep, EverySequenceAnswersAsItDoesAlone) {
  for (const char* folder : kFolders) {
    const Model model = Make(folder);
    for (const int64_t B : {1, 3, 16, 64}) {
      KvCache together = Cache(model, B);
      std::vector<KvCache> alone;
      for (int64_t b = 0; b < B; ++b) {
        alone.push_back(Cache(model, 1));
        Prefill(model, together, b, Prompt(model, b));
        Prefill(model, alone.back(), 0, Prompt(model, b));
      }
      std::vector<double> differences;
      for (int step = 0; step < 3; ++step) {
        Ids ids(static_cast<size_t>(B));
        for (int64_t b = 0; b < B; ++b) ids[static_cast<size_t>(b)] = static_cast<int32_t>((b * 31 + step) % model.config().vocab);
        const Rows rows = Step(model, together, ids);
        for (int64_t b = 0; b < B; ++b) {
          EXPECT_EQ(together.length(b), static_cast<int64_t>(Prompt(model, b).size()) + step + 1);
          differences.push_back(
              Difference(RowOf(rows, model, b), Step(model, alone[static_cast<size_t>(b)], {ids[static_cast<size_t>(b)]})));
        }
      }
      // A router that decides between two experts of nearly equal worth may go the other way: there the bound is for nine rows of ten.
      std::sort(differences.begin(), differences.end());
      const double place = model.config().experts > 0 ? 0.9 : 1.0;
      EXPECT_LE(differences[static_cast<size_t>(place * static_cast<double>(differences.size() - 1))], Tolerance())
          << folder << ", B " << B;
    }
  }
}

TEST_P(DecodeStep, AStepOfOneSequenceIsForward) {
  for (const char* folder : kFolders) {
    const Model model = Make(folder);
    KvCache stepped = Cache(model, 1), called = Cache(model, 1);
    const int64_t V = model.config().vocab;
    for (const int32_t id : {3, 1, 4, 1, 5}) {
      Rows row(static_cast<size_t>(V));
      ASSERT_TRUE(model.Forward({&id, 1}, called, {row.data(), DType::kF32, {1, V}}, ctx_).ok());
      EXPECT_EQ(Step(model, stepped, {id}), row) << folder;
    }
  }
}

TEST_P(DecodeStep, ARowDependsOnItsOwnSequenceAlone) {
  for (const char* folder : kFolders) {
    const Model model = Make(folder);
    constexpr int64_t kSequences = 5, kWatched = 2;
    std::vector<Rows> answers;
    for (const int64_t seed : {0, 999}) {
      KvCache cache = Cache(model, kSequences);
      Ids ids(kSequences, 7);
      for (int64_t b = 0; b < kSequences; ++b) {
        const bool watched = b == kWatched;
        // The others differ in length too.
        Prefill(model, cache, b, Prompt(model, watched ? b : b + seed % 7, watched ? 0 : seed));
        if (!watched) ids[static_cast<size_t>(b)] = static_cast<int32_t>((seed + b) % model.config().vocab);
      }
      Step(model, cache, ids);
      answers.push_back(RowOf(Step(model, cache, ids), model, kWatched));
    }
    if (model.config().experts == 0) {
      EXPECT_EQ(answers[0], answers[1]) << folder;
    } else {  // how many rows meet at an expert may decide the order of its sums
      EXPECT_LE(Difference(answers[1], answers[0]), Tolerance()) << folder;
    }
  }
}

TEST_P(DecodeStep, GreedyIdsAreThoseOfTheLargestLogits) {
  const Model model = Make("qwen3-tiny");
  const int64_t V = model.config().vocab;
  KvCache cache = Cache(model, 6), other = Cache(model, 6);
  Ids ids = {1, 2, 3, 4, 5, 6};
  for (int step = 0; step < 4; ++step) {
    const Rows rows = Step(model, cache, ids);
    Ids next(ids.size());
    ASSERT_TRUE(model.DecodeStepGreedy(ids, other, next, ctx_).ok());
    for (int64_t b = 0; b < 6; ++b) {
      const auto row = rows.begin() + b * V;
      EXPECT_EQ(next[static_cast<size_t>(b)], std::max_element(row, row + V) - row) << step << ", " << b;
      EXPECT_EQ(other.length(b), step + 1);
    }
    // In place, on a second cache that has seen the same.
    ids = next;
  }
  Ids in_place = {1, 2, 3, 4, 5, 6};
  KvCache third = Cache(model, 6);
  for (int step = 0; step < 4; ++step) ASSERT_TRUE(model.DecodeStepGreedy(in_place, third, in_place, ctx_).ok());
  EXPECT_EQ(in_place, ids);
}

TEST_P(DecodeStep, RunsTheFirstSequencesOfACache) {
  const Model model = Make("gpt-oss-plain-tiny");
  KvCache cache = Cache(model, 4), two = Cache(model, 2);
  for (int64_t b = 0; b < 4; ++b) Prefill(model, cache, b, Prompt(model, b + 1));
  for (int64_t b = 0; b < 2; ++b) Prefill(model, two, b, Prompt(model, b + 1));
  const std::vector<int64_t> before = {cache.length(2), cache.length(3)};
  EXPECT_EQ(Step(model, cache, {8, 9}), Step(model, two, {8, 9}));
  EXPECT_EQ((std::vector<int64_t>{cache.length(2), cache.length(3)}), before);
  // One sequence begins anew while the others go on.
  ASSERT_TRUE(cache.Truncate(0, 0).ok());
  ASSERT_TRUE(two.Truncate(0, 0).ok());
  Prefill(model, cache, 0, Prompt(model, 9));
  Prefill(model, two, 0, Prompt(model, 9));
  EXPECT_EQ(Step(model, cache, {1, 2}), Step(model, two, {1, 2}));
  // One token by Forward is a step of its sequence; the whole cache goes on from there.
  Rows row(static_cast<size_t>(model.config().vocab));
  const int32_t id = 5;
  ASSERT_TRUE(model.Forward({&id, 1}, cache, {row.data(), DType::kF32, {1, model.config().vocab}}, ctx_, 3).ok());
  KvCache alone = Cache(model, 1);
  Prefill(model, alone, 0, Prompt(model, 4));
  EXPECT_EQ(row, Step(model, alone, {5}));
  EXPECT_EQ(cache.length(3), alone.length());
  EXPECT_EQ(Step(model, cache, {1, 2, 3, 4}).size(), 4 * row.size());
}

TEST_P(DecodeStep, LogitsMayBeStridedOrLeftOut) {
  const Model model = Make("qwen3-tiny");
  const int64_t V = model.config().vocab;
  KvCache cache = Cache(model, 3), other = Cache(model, 3);
  const Ids ids = {5, 6, 7};
  ASSERT_TRUE(model.DecodeStep(ids, cache, TensorView(), ctx_).ok());
  ASSERT_TRUE(model.DecodeStep(ids, other, TensorView(), ctx_).ok());
  Rows gaps(static_cast<size_t>(3 * (V + 5)), NAN);
  TensorView view(gaps.data(), DType::kF32, {3, V});
  view.set_strides(std::array<int64_t, 2>{V + 5, 1});
  ASSERT_TRUE(model.DecodeStep(ids, other, view, ctx_).ok());
  const Rows rows = Step(model, cache, ids);
  for (int64_t b = 0; b < 3; ++b) {
    EXPECT_TRUE(std::equal(rows.begin() + b * V, rows.begin() + (b + 1) * V, gaps.begin() + b * (V + 5))) << b;
    EXPECT_TRUE(std::isnan(gaps[static_cast<size_t>(b * (V + 5) + V)]));
  }
}

TEST_P(DecodeStep, RefusesWhatACacheCannotHold) {
  const Model model = Make("qwen3-tiny"), other = Make("qwen3-tiny");
  const int64_t V = model.config().vocab;
  KvCache cache = Cache(model, 2, 3);
  Rows rows(static_cast<size_t>(3 * V));
  const auto error = [&](const Model& asked, const Ids& ids, int64_t count) {
    const Status status = asked.DecodeStep(ids, cache, {rows.data(), DType::kF32, {count, V}}, ctx_);
    return status.ok() ? "no error" : std::string(status.message());
  };
  EXPECT_THAT(error(model, {}, 0), HasSubstr("no token ids were given"));
  EXPECT_THAT(error(model, {1, 2, 3}, 3), HasSubstr("ids of 3 sequences were given and the cache holds 2"));
  EXPECT_THAT(error(model, {1, -1}, 2), HasSubstr("token id -1 at place 1 is outside the vocabulary"));
  EXPECT_THAT(error(model, {1, 2}, 1), HasSubstr(fmt::format("they must be f32[2, {}]", V)));
  EXPECT_THAT(error(other, {1, 2}, 2), HasSubstr("the cache belongs to another model"));
  Ids one(1);
  EXPECT_THAT(std::string(model.DecodeStepGreedy(Ids{1, 2}, cache, one, ctx_).message()), HasSubstr("room for 1 next ids was given"));

  Prefill(model, cache, 1, {1, 2, 3});
  EXPECT_THAT(error(model, {1, 2}, 2), HasSubstr("1 tokens were given and sequence 1 of the cache holds 3 of at most 3"));
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(error(model, {1}, 1), "no error");
  EXPECT_THAT(std::string(cache.Truncate(4, 1).message()), HasSubstr("asked to keep 4 tokens; it holds 3"));
  EXPECT_THAT(std::string(cache.Truncate(0, 2).message()), HasSubstr("sequence 2 of the cache was named; it holds sequences 0 to 1"));
  EXPECT_EQ(cache.length(2), 0);
  EXPECT_THAT(std::string(model.Forward(Ids{1}, cache, TensorView(), ctx_, -1).message()), HasSubstr("sequence -1 of the cache was named"));
  for (const int64_t sequences : {0, 65}) {
    const auto refused = model.NewCache(3, sequences);
    ASSERT_FALSE(refused);
    EXPECT_THAT(std::string(refused.error().message()),
                HasSubstr(fmt::format("a cache for {} sequences was asked for; it takes 1 to 64", sequences)));
  }
}

TEST_P(DecodeStep, IsTheSameWithMoreThreads) {
  if (GetParam() == Device::Kind::kCuda) GTEST_SKIP() << "threads are the CPU's";
  const Model model = Make("gpt-oss-plain-tiny");
  std::vector<Rows> answers;
  for (const int threads : {1, 4}) {
    ctx_.threads = threads;
    KvCache cache = Cache(model, 7);
    for (int64_t b = 0; b < 7; ++b) Prefill(model, cache, b, Prompt(model, b));
    answers.push_back(Step(model, cache, {1, 2, 3, 4, 5, 6, 7}));
  }
  EXPECT_EQ(answers[0], answers[1]);
}

TEST_P(DecodeStep, ARecordedStepEqualsTheLaunchesOneByOne) {
  if (GetParam() == Device::Kind::kCpu) GTEST_SKIP() << "steps are recorded on a GPU";
  for (const char* folder : kFolders) {
    const Model recorded = Make(folder);
    options_.record_decode = false;
    const Model launched = Make(folder);
    options_.record_decode = true;
    KvCache a = Cache(recorded, 16), b = Cache(launched, 16);
    for (int64_t s = 0; s < 16; ++s) {
      Prefill(recorded, a, s, Prompt(recorded, s));
      Prefill(launched, b, s, Prompt(launched, s));
    }
    // Batches take turns: each has its own recording, and larger buffers drop those before.
    for (const size_t B : {4, 16, 4, 1, 16, 16}) {
      Ids ids(B);
      std::iota(ids.begin(), ids.end(), 1);
      EXPECT_EQ(Step(recorded, a, ids), Step(launched, b, ids)) << folder << ", B " << B;
    }
  }
}

TEST_P(DecodeStep, ProfilesABatchAndLeavesItAsItWas) {
  const Model model = Make("gpt-oss-plain-tiny");
  KvCache cache = Cache(model, 4), other = Cache(model, 4);
  for (int64_t b = 0; b < 4; ++b) {
    Prefill(model, cache, b, Prompt(model, b));
    Prefill(model, other, b, Prompt(model, b));
  }
  const auto profile = model.ProfileStep(Ids{1, 2, 3, 4}, cache, 3, ctx_);
  ASSERT_TRUE(profile) << profile.error().message();
  EXPECT_GT(profile->weights_us, 0);
  EXPECT_GT(profile->attention_us, 0);
  EXPECT_GE(profile->other_us, 0);
  EXPECT_EQ(Step(model, cache, {1, 2, 3, 4}), Step(model, other, {1, 2, 3, 4}));
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeStep, testing::Values(Device::Kind::kCpu, Device::Kind::kCuda),
                         [](const auto& device) { return device.param == Device::Kind::kCpu ? "Cpu" : "Cuda"; });

}  // namespace
}  // namespace billfish
