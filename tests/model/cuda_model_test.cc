// Models on a GPU: the golden logits within what bf16 activations leave, and the same answers however a call is cut, recorded or read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "billfish/cuda.h"
#include "billfish/generate.h"
#include "billfish/model.h"
#include "billfish/npy.h"
#include "support/golden_file.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr Device kGpu{Device::Kind::kCuda, 0};

std::string WhyNoGpu() {
  const auto devices = CudaDevices();
  return devices ? std::string() : std::string(devices.error().message());
}

#define REQUIRE_GPU() \
  if (const std::string why = WhyNoGpu(); !why.empty()) GTEST_SKIP() << why

Model LoadOnGpu(const fs::path& folder, bool record_decode = true) {
  ModelOptions options;
  options.activation = DType::kBF16;
  options.device = kGpu;
  options.record_decode = record_decode;
  options.max_context = 4096;  // longer than a chunk of a long prompt
  auto model = Model::Load(folder, options);
  EXPECT_TRUE(model) << model.status().message();
  return model ? std::move(*model) : Model();
}

Model LoadOnCpu(const fs::path& folder) {
  ModelOptions options;
  options.activation = DType::kBF16;
  auto model = Model::Load(folder, options);
  EXPECT_TRUE(model) << model.status().message();
  return model ? std::move(*model) : Model();
}

fs::path TinyMoe() { return fs::path(BILLFISH_SOURCE_DIR) / "models/tiny-moe-mxfp4"; }

std::vector<int32_t> SomeIds(const Model& model, size_t count) {
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>((i * 7919 + 13) % static_cast<size_t>(model.config().vocab));
  return ids;
}

// All logits of ids, fed in the given pieces.
std::vector<float> Logits(const Model& model, const std::vector<int32_t>& ids, const std::vector<size_t>& pieces) {
  const int64_t V = model.config().vocab;
  std::vector<float> logits(ids.size() * static_cast<size_t>(V), NAN);
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  auto cache = model.NewCache(static_cast<int64_t>(ids.size()));
  EXPECT_TRUE(cache) << cache.status().message();
  size_t begin = 0;
  for (const size_t count : pieces) {
    const Status status =
        model.Forward(std::span(ids).subspan(begin, count), *cache,
                      {logits.data() + begin * static_cast<size_t>(V), DType::kF32, {static_cast<int64_t>(count), V}}, ctx);
    EXPECT_TRUE(status.ok()) << status.message();
    begin += count;
  }
  EXPECT_EQ(begin, ids.size());
  return logits;
}

// Largest difference of a row relative to the row's largest logit: of the row at `place` among all rows sorted by it.
double RowDifference(const std::vector<float>& found, const std::vector<float>& golden, int64_t vocab, double place) {
  std::vector<double> rows;
  for (size_t begin = 0; begin < golden.size(); begin += static_cast<size_t>(vocab)) {
    double largest = 0, difference = 0;
    for (size_t i = begin; i < begin + static_cast<size_t>(vocab); ++i) {
      if (!std::isfinite(found[i])) return INFINITY;
      largest = std::max(largest, std::fabs(static_cast<double>(golden[i])));
      difference = std::max(difference, std::fabs(static_cast<double>(golden[i]) - found[i]));
    }
    rows.push_back(difference / largest);
  }
  std::sort(rows.begin(), rows.end());
  return rows[static_cast<size_t>(place * static_cast<double>(rows.size() - 1))];
}

std::vector<fs::path> FixtureFolders() {
  std::vector<fs::path> folders;
  const auto supported = SupportedArchitectures();
  for (const fs::path& root : {test::TestData() / "fixtures", fs::path(BILLFISH_SOURCE_DIR) / "tests/golden/models"}) {
    if (!fs::exists(root)) continue;
    for (const auto& entry : fs::directory_iterator(root)) {
      if (!fs::exists(entry.path() / "golden.safetensors")) continue;
      const auto config = nlohmann::json::parse(std::ifstream(entry.path() / "config.json"));
      const std::string name = config["architectures"][0];
      if (std::find(supported.begin(), supported.end(), name) != supported.end()) folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

class CudaFixture : public testing::TestWithParam<fs::path> {};

// The CPU's own bf16 run says how sensitive a model is: it rounds before each of four matrices of a layer. The GPU also rounds queries,
// keys, values, attention weights and the experts' hidden values, about twice as many roundings, whose errors add up like noise; the
// largest error of a few rows scatters by another factor of two. A router that decides between two experts of nearly equal worth may go the
// other way, so that single rows of a mixture may differ by anything: there the bound is for three rows of four.
constexpr double kTimesCpu = 4;
constexpr double kLeastTolerance = 0.01;

TEST_P(CudaFixture, LogitsAreThoseOfTransformersWithinBF16) {
  REQUIRE_GPU();
  const Model model = LoadOnGpu(GetParam());
  const test::GoldenFile golden(GetParam() / "golden.safetensors");
  const std::vector<int32_t> ids = golden["input_ids"].As<int32_t>();
  std::vector<float> expected = golden["logits"].Floats();
  const fs::path fp32 = fs::path(BILLFISH_SOURCE_DIR) / "tests/golden/models" / (GetParam().filename().string() + ".fp32.safetensors");
  if (fs::exists(fp32)) expected = test::GoldenFile(fp32)["logits"].Floats();
  const int64_t vocab = model.config().vocab;
  const double place = model.config().experts > 0 ? 0.75 : 1.0;
  const std::vector<float> whole = Logits(model, ids, {ids.size()});
  ASSERT_EQ(whole.size(), expected.size());
  const double own = RowDifference(Logits(LoadOnCpu(GetParam()), ids, {ids.size()}), expected, vocab, place);
  const double tolerance = kTimesCpu * std::max(own, kLeastTolerance / kTimesCpu);
  const std::vector<float> single = Logits(model, ids, std::vector<size_t>(ids.size(), 1));
  const std::vector<float> pieces = Logits(model, ids, {1, 7, ids.size() - 8});
  std::printf("%s: whole %.4f, single %.4f, pieces %.4f; CPU with bf16 activations %.4f\n", GetParam().filename().c_str(),
              RowDifference(whole, expected, vocab, place), RowDifference(single, expected, vocab, place),
              RowDifference(pieces, expected, vocab, place), own);
  EXPECT_LE(RowDifference(whole, expected, vocab, place), tolerance);
  EXPECT_LE(RowDifference(single, expected, vocab, place), tolerance);
  EXPECT_LE(RowDifference(pieces, expected, vocab, place), tolerance);
  EXPECT_EQ(Logits(model, ids, {ids.size()}), whole);
}

INSTANTIATE_TEST_SUITE_P(All, CudaFixture, testing::ValuesIn(FixtureFolders()), [](const auto& folder) {
  std::string name = folder.param.filename().string();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CudaFixture);

std::vector<int32_t> Greedy(const Model& model, const std::vector<int32_t>& prompt, int64_t count) {
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  auto cache = model.NewCache(static_cast<int64_t>(prompt.size()) + count);
  EXPECT_TRUE(cache) << cache.status().message();
  GenerateOptions options;
  options.max_new_tokens = count;
  options.ignore_eos = true;
  const auto result = Generate(model, prompt, options, *cache, ctx);
  EXPECT_TRUE(result) << result.status().message();
  return result ? result->ids : std::vector<int32_t>();
}

TEST(CudaModel, ARecordedStepEqualsTheLaunchesOneByOne) {
  REQUIRE_GPU();
  const Model recorded = LoadOnGpu(TinyMoe()), launched = LoadOnGpu(TinyMoe(), false);
  const std::vector<int32_t> ids = SomeIds(recorded, 300);
  std::vector<size_t> pieces = {5};
  pieces.resize(200, 1);
  pieces.push_back(96);  // grows the buffers after the recording
  pieces.back() = ids.size() - 204 - 20;
  pieces.resize(pieces.size() + 20, 1);
  EXPECT_EQ(Logits(recorded, ids, pieces), Logits(launched, ids, pieces));
  EXPECT_EQ(Greedy(recorded, {1, 2, 3}, 50), Greedy(launched, {1, 2, 3}, 50));
}

TEST(CudaModel, LogitsArriveTheSameOnEveryWay) {
  REQUIRE_GPU();
  const Model model = LoadOnGpu(TinyMoe());
  const int64_t V = model.config().vocab;
  const std::vector<int32_t> ids = SomeIds(model, 300);  // more rows than leave the device at a time
  const std::vector<float> expected = Logits(model, ids, {ids.size()});
  auto cache = model.NewCache(300);
  ASSERT_TRUE(cache) << cache.status().message();
  Workspace workspace;
  auto stream = Stream::Create(kGpu);
  ASSERT_TRUE(stream);
  ExecContext ctx{workspace, 1, stream->get()};
  const auto check = [&](const char* what, const std::vector<float>& found, int64_t stride) {
    for (int64_t t = 0; t < 300; ++t) {
      ASSERT_TRUE(std::equal(found.begin() + t * stride, found.begin() + t * stride + V, expected.begin() + t * V))
          << what << ", row " << t;
    }
  };
  std::vector<float> gaps(static_cast<size_t>(300 * (V + 5)), NAN);
  TensorView rows(gaps.data(), DType::kF32, {300, V});
  rows.set_strides(std::array<int64_t, 2>{V + 5, 1});
  ASSERT_TRUE(model.Forward(ids, *cache, rows, ctx).ok());
  check("host rows with gaps", gaps, V + 5);
  EXPECT_TRUE(std::isnan(gaps[static_cast<size_t>(V)]));

  auto device = DeviceBuffer::Allocate(kGpu, static_cast<size_t>(300 * V) * 4);
  ASSERT_TRUE(device);
  std::vector<float> copy(static_cast<size_t>(300 * V));
  ASSERT_TRUE(cache->Truncate(0).ok());
  ASSERT_TRUE(model.Forward(ids, *cache, {device->data(), DType::kF32, {300, V}, kGpu}, ctx).ok());
  ASSERT_TRUE(CopyTensor({copy.data(), DType::kF32, {300, V}}, {device->data(), DType::kF32, {300, V}, kGpu}, stream->get()).ok());
  check("device rows", copy, V);

  // The last row alone, on both sides, and the greedy choice; a different head kernel may serve one row.
  std::vector<float> last(static_cast<size_t>(V));
  ASSERT_TRUE(cache->Truncate(0).ok());
  ASSERT_TRUE(model.Forward(ids, *cache, {last.data(), DType::kF32, {1, V}}, ctx).ok());
  const std::vector<float> final_row(expected.end() - V, expected.end());
  EXPECT_LE(RowDifference(last, final_row, V, 1.0), 1e-3);
  ASSERT_TRUE(cache->Truncate(0).ok());
  ASSERT_TRUE(model.Forward(ids, *cache, {device->data(), DType::kF32, {1, V}, kGpu}, ctx).ok());
  std::vector<float> row(static_cast<size_t>(V));
  ASSERT_TRUE(CopyTensor({row.data(), DType::kF32, {1, V}}, {device->data(), DType::kF32, {1, V}, kGpu}, stream->get()).ok());
  EXPECT_EQ(row, last);
  ASSERT_TRUE(cache->Truncate(0).ok());
  ASSERT_TRUE(model.Forward(std::span(ids).first(299), *cache, TensorView(), ctx).ok());
  ASSERT_EQ(cache->length(), 299);
  ASSERT_TRUE(cache->Truncate(0).ok());
  const auto id = model.ForwardGreedy(ids, *cache, ctx);
  ASSERT_TRUE(id) << id.status().message();
  EXPECT_EQ(*id, std::max_element(last.begin(), last.end()) - last.begin());
  EXPECT_EQ(cache->length(), 300);
}

TEST(CudaModel, APromptLongerThanAChunkIsCut) {
  REQUIRE_GPU();
  const Model model = LoadOnGpu(TinyMoe());
  const size_t count = Model::kCudaPrefillChunk + 52;
  const std::vector<int32_t> ids = SomeIds(model, count);
  const std::vector<float> whole = Logits(model, ids, {count});
  EXPECT_LE(RowDifference(Logits(model, ids, {1000, count - 1000}), whole, model.config().vocab, 0.75), 0.1);
  EXPECT_EQ(Greedy(model, std::vector<int32_t>(ids.begin(), ids.end() - 10), 1).size(), 1U);
}

TEST(CudaModel, TheTrainedModelWritesWhatTheCpuWrites) {
  REQUIRE_GPU();
  const Model gpu = LoadOnGpu(TinyMoe()), cpu = LoadOnCpu(TinyMoe());
  int64_t equal = 0, all = 0;
  for (const int32_t first : {5, 77, 300, 1000, 2222}) {
    const auto on_gpu = Greedy(gpu, {first, first + 1, first + 2}, 32), on_cpu = Greedy(cpu, {first, first + 1, first + 2}, 32);
    for (size_t i = 0; i < on_cpu.size() && i < on_gpu.size() && on_cpu[i] == on_gpu[i]; ++i) ++equal;
    all += 32;
  }
  // Rounding decides between words of nearly equal probability, after which the texts part.
  std::printf("%ld of %ld tokens before the texts part\n", static_cast<long>(equal), static_cast<long>(all));
  EXPECT_GE(equal, all / 2);
}

TEST(CudaModel, PerplexityOfMxfp4IsThatOfTheCpu) {
  REQUIRE_GPU();
  const fs::path file = test::TestData() / "tiny-moe/val_ids.npy";
  if (!fs::exists(file)) GTEST_SKIP() << "no test data at " << file;
  const auto ids = ReadNpyIds(file);
  ASSERT_TRUE(ids) << ids.error().message();
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  const auto cpu = Perplexity(LoadOnCpu(TinyMoe()), *ids, 512, 8, ctx), gpu = Perplexity(LoadOnGpu(TinyMoe()), *ids, 512, 8, ctx);
  ASSERT_TRUE(cpu && gpu);
  std::printf("mxfp4 over 8 windows: perplexity %.4f, on the CPU %.4f\n", gpu->perplexity, cpu->perplexity);
  EXPECT_NEAR(gpu->perplexity, cpu->perplexity, 0.05);
}

TEST(CudaModel, Fp32ActivationsAreRefused) {
  ModelOptions options;
  options.device = kGpu;
  const auto model = Model::Load(TinyMoe(), options);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.error().message()),
              AllOf(HasSubstr("F32 activations were asked for on a GPU"), HasSubstr("set ModelOptions::activation")));
}

TEST(CudaModel, WithoutAGpuTheSentenceSaysSo) {
  if (WhyNoGpu().empty()) GTEST_SKIP() << "there is a GPU";
  ModelOptions options;
  options.device = kGpu;
  options.activation = DType::kBF16;
  const auto model = Model::Load(TinyMoe(), options);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), ErrorCode::kNotFound);
  EXPECT_THAT(std::string(model.error().message()), AllOf(HasSubstr("a GPU was asked for"), HasSubstr("use the CPU")));
}

TEST(CudaModel, LogitsOnAnotherDeviceAreRefused) {
  const Model model = LoadOnCpu(TinyMoe());
  auto cache = model.NewCache(4);
  ASSERT_TRUE(cache);
  Workspace workspace;
  ExecContext ctx{workspace, 1};
  float word = 0;
  const Status status = model.Forward(std::vector<int32_t>{1}, *cache, {&word, DType::kF32, {1, model.config().vocab}, kGpu}, ctx);
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("logits lie on cuda:0 and the model on the cpu"));
}

TEST(GreedyForward, OnACpuIsTheSamplersChoice) {
  const Model model = LoadOnCpu(TinyMoe());
  const std::vector<int32_t> ids = SomeIds(model, 9);
  const std::vector<float> logits = Logits(model, ids, {9});
  auto cache = model.NewCache(9);
  ASSERT_TRUE(cache);
  Workspace workspace;
  ExecContext ctx{workspace, 2};
  const auto id = model.ForwardGreedy(ids, *cache, ctx);
  ASSERT_TRUE(id) << id.status().message();
  const auto last = logits.end() - model.config().vocab;
  EXPECT_EQ(*id, std::max_element(last, logits.end()) - last);
  EXPECT_EQ(cache->length(), 9);
  EXPECT_FALSE(model.ForwardGreedy({ids.data(), 1}, *cache, ctx));
}

}  // namespace
}  // namespace billfish
