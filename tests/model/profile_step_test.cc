// Model::ProfileStep: three parts of a step's time, and a cache that goes on as if nothing had been timed. On the CPU and, where there is
// one, on the GPU.
#include <gmock/gmock.h>

#include <chrono>

#include "billfish/cuda.h"
#include "edited_model.h"

namespace billfish {
namespace {

using test::GoldenModel;
using testing::HasSubstr;

class ProfileStep : public testing::TestWithParam<Device::Kind> {
 protected:
  void SetUp() override {
    if (GetParam() == Device::Kind::kCpu) return;
    options_.device = {Device::Kind::kCuda, 0};
    if (const auto devices = CudaDevices(); !devices) GTEST_SKIP() << devices.error().message();
  }

  Model Make(const char* folder) {
    options_.activation = DType::kBF16;
    nlohmann::json config = nlohmann::json::parse(std::ifstream(GoldenModel(folder) / "config.json"));
    auto model = Model::Random({.config_json = config.dump(), .attention = schemes::Int4(32, true)}, options_);
    EXPECT_TRUE(model) << model.error().message();
    return model ? std::move(*model) : Model();
  }

  ModelOptions options_;
  Workspace workspace_;
  ExecContext ctx_{workspace_, 2};
};

TEST_P(ProfileStep, SplitsTheTimeOfAStep) {
  for (const char* folder : {"gpt-oss-plain-tiny", "qwen2-tiny"}) {
    const Model model = Make(folder);
    auto cache = model.NewCache(16);
    ASSERT_TRUE(cache);
    const auto begin = std::chrono::steady_clock::now();
    const auto profile = model.ProfileStep(std::vector<int32_t>{7}, *cache, 5, ctx_);
    const double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
    ASSERT_TRUE(profile) << profile.error().message();
    EXPECT_GT(profile->weights_us, 0) << folder;
    EXPECT_GT(profile->attention_us, 0) << folder;
    EXPECT_GE(profile->other_us, 0) << folder;
    // A median is at most the longest of five runs, and each of at least three was no shorter.
    EXPECT_LT(3 * std::max({profile->weights_us, profile->attention_us, profile->other_us}), us) << folder;
  }
}

TEST_P(ProfileStep, LeavesTheSequenceAsItWas) {
  for (const char* folder : {"gpt-oss-plain-tiny", "qwen3-tiny"}) {
    const Model model = Make(folder);
    const int64_t V = model.config().vocab;
    const auto logits = [&](bool profiled) {
      std::vector<float> row(static_cast<size_t>(V));
      auto cache = model.NewCache(16);
      EXPECT_TRUE(cache);
      const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
      EXPECT_TRUE(model.Forward(prompt, *cache, TensorView(), ctx_).ok());
      if (profiled) {
        const auto profile = model.ProfileStep(std::vector<int32_t>{9}, *cache, 3, ctx_);
        EXPECT_TRUE(profile) << profile.error().message();
        EXPECT_EQ(cache->length(), 5);
      }
      for (const int32_t id : {2, 6, 5}) {
        const Status status = model.Forward({&id, 1}, *cache, {row.data(), DType::kF32, {1, V}}, ctx_);
        EXPECT_TRUE(status.ok()) << status.message();
      }
      return row;
    };
    EXPECT_EQ(logits(true), logits(false)) << folder;
  }
}

TEST_P(ProfileStep, RefusesWhatForwardRefuses) {
  const Model model = Make("qwen3-tiny"), other = Make("qwen3-tiny");
  auto cache = model.NewCache(1);
  ASSERT_TRUE(cache);
  const auto error = [&](const Model& asked, int32_t id, int repetitions) {
    const auto profile = asked.ProfileStep({&id, 1}, *cache, repetitions, ctx_);
    return profile ? "no error" : std::string(profile.error().message());
  };
  EXPECT_THAT(error(model, 1, 0), HasSubstr("0 repetitions of a step were asked for"));
  EXPECT_THAT(error(model, -1, 1), HasSubstr("token id -1"));
  EXPECT_THAT(error(other, 1, 1), HasSubstr("the cache belongs to another model"));
  const int32_t id = 1;
  ASSERT_TRUE(model.Forward({&id, 1}, *cache, TensorView(), ctx_).ok());
  EXPECT_THAT(error(model, 1, 1), HasSubstr("holds 1 of at most 1"));
}

INSTANTIATE_TEST_SUITE_P(Devices, ProfileStep, testing::Values(Device::Kind::kCpu, Device::Kind::kCuda),
                         [](const auto& device) { return device.param == Device::Kind::kCpu ? "Cpu" : "Cuda"; });

}  // namespace
}  // namespace billfish
