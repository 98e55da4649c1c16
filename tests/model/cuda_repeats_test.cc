// Decoding on a GPU gives the same bits every time, alone and beside another sequence on another stream.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <thread>
#include <vector>

#include "billfish/model.h"
#include "support/device_numbers.h"

namespace billfish {
namespace {

using test::kGpu;

constexpr size_t kPrompt = 37, kSteps = 6;

class CudaRepeats : public testing::Test {
 protected:
  void SetUp() override {
    BILLFISH_NEEDS_GPU();
    ModelOptions options;
    options.activation = DType::kBF16;
    options.device = kGpu;
    options.max_context = 512;
    auto model = Model::Load(std::filesystem::path(BILLFISH_SOURCE_DIR) / "models/tiny-moe-mxfp4", options);
    ASSERT_TRUE(model) << model.status().message();
    model_ = std::move(*model);
  }

  std::vector<int32_t> Ids(uint64_t seed) const {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < kPrompt + kSteps; ++i)
      ids.push_back(static_cast<int32_t>((i * 7919 + seed * 104729 + 13) % static_cast<size_t>(model_.config().vocab)));
    return ids;
  }

  // The logits of kSteps single tokens after a prompt; the first step of a cache records a graph, the later ones replay it.
  std::vector<float> Decode(const std::vector<int32_t>& ids, KvCache& cache, CudaStream stream) const {
    const int64_t V = model_.config().vocab;
    std::vector<float> logits(kSteps * static_cast<size_t>(V), NAN);
    Workspace workspace;
    ExecContext ctx{workspace, 1, stream};
    EXPECT_TRUE(cache.Truncate(0).ok());
    EXPECT_TRUE(model_.Forward(std::span(ids).first(kPrompt), cache, TensorView(), ctx).ok());
    for (size_t s = 0; s < kSteps; ++s) {
      const TensorView row(logits.data() + s * static_cast<size_t>(V), DType::kF32, {1, V});
      const Status status = model_.Forward(std::span(ids).subspan(kPrompt + s, 1), cache, row, ctx);
      EXPECT_TRUE(status.ok()) << status.message();
    }
    return logits;
  }

  Model model_;
};

TEST_F(CudaRepeats, AHundredDecodesGiveTheSameBits) {
  const std::vector<int32_t> ids = Ids(1);
  auto cache = model_.NewCache(kPrompt + kSteps);
  ASSERT_TRUE(cache) << cache.status().message();
  const std::vector<float> first = Decode(ids, *cache, nullptr);
  for (int run = 1; run < 100; ++run) ASSERT_EQ(Decode(ids, *cache, nullptr), first) << "run " << run;
}

TEST_F(CudaRepeats, TwoSequencesOnTwoStreamsGiveWhatEachGivesAlone) {
  struct Lane {
    std::vector<int32_t> ids;
    KvCache cache;
    Stream stream;
    std::vector<float> alone;
    int differences = 0;
  };
  std::array<Lane, 2> lanes;
  for (size_t i = 0; i < 2; ++i) {
    lanes[i].ids = Ids(i + 2);
    lanes[i].cache = std::move(*model_.NewCache(kPrompt + kSteps));
    lanes[i].stream = std::move(*Stream::Create(kGpu));
    lanes[i].alone = Decode(lanes[i].ids, lanes[i].cache, lanes[i].stream.get());
  }
  EXPECT_NE(lanes[0].alone, lanes[1].alone);
  const auto run = [&](Lane& lane) {
    for (int i = 0; i < 100; ++i) lane.differences += Decode(lane.ids, lane.cache, lane.stream.get()) != lane.alone ? 1 : 0;
  };
  std::thread other(run, std::ref(lanes[1]));
  run(lanes[0]);
  other.join();
  EXPECT_EQ(lanes[0].differences, 0);
  EXPECT_EQ(lanes[1].differences, 0);
}

}  // namespace
}  // namespace billfish
