// Every checkpoint of tests/golden, written by the formats' own software, decodes to what that software decodes.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>

#include "billfish/checkpoint.h"
#include "support/golden_file.h"

namespace billfish {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> Cases() {
  std::vector<std::string> cases;
  for (const auto& entry : fs::directory_iterator(fs::path(BILLFISH_SOURCE_DIR) / "tests/golden")) {
    if (fs::exists(entry.path() / "expected.safetensors")) cases.push_back(entry.path().filename().string());
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

// Distance in units in the last place.
int64_t Ulps(float a, float b) {
  const auto ordered = [](float v) {
    const auto bits = std::bit_cast<int32_t>(v);
    return bits < 0 ? int64_t{std::numeric_limits<int32_t>::min()} - bits : int64_t{bits};
  };
  return std::abs(ordered(a) - ordered(b));
}

class GoldenCheckpoint : public testing::TestWithParam<std::string> {};

TEST_P(GoldenCheckpoint, DecodesToWhatItsOwnSoftwareDecodes) {
  const fs::path folder = fs::path(BILLFISH_SOURCE_DIR) / "tests/golden" / GetParam();
  const auto checkpoint = Checkpoint::Open(folder);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  const auto modules = checkpoint->Modules();
  ASSERT_TRUE(modules) << modules.error().message();
  const test::GoldenFile expected(folder / "expected.safetensors");
  ASSERT_FALSE(modules->empty());
  for (const ModuleInfo& module : *modules) {
    SCOPED_TRACE(module.name + " " + module.format);
    const auto weight = checkpoint->LoadWeight(module.name);
    ASSERT_TRUE(weight) << weight.error().message();
    EXPECT_EQ(weight->scheme(), module.scheme);
    const std::vector<float> golden = expected[module.name + ".weight"].Floats();
    ASSERT_EQ(golden.size(), static_cast<size_t>(module.E * module.N * module.K));
    std::vector<float> found(golden.size());
    ASSERT_TRUE(weight->Dequantize({found.data(), DType::kF32, {module.E, module.N, module.K}}).ok());
    // code * scale * global scale is two roundings in whichever order a program multiplies, unless the global scale is a power of two.
    const int64_t allowed = module.scheme.row_scale && GetParam() != "modelopt-nvfp4-pow2" ? 2 : 0;
    int64_t worst = 0;
    for (size_t i = 0; i < golden.size(); ++i) {
      if (golden[i] == 0 && found[i] == 0) continue;  // either sign
      worst = std::max(worst, Ulps(golden[i], found[i]));
    }
    EXPECT_LE(worst, allowed);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenCheckpoint, testing::ValuesIn(Cases()), [](const auto& case_info) {
  std::string name = case_info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

TEST(GoldenCheckpoints, EveryFormatIsThere) { EXPECT_GE(Cases().size(), 20U); }

TEST(GptOssFixture, DecodesToWhatTransformersDecodes) {
  const fs::path folder = test::TestData() / "fixtures/gpt-oss-tiny-mxfp4";
  if (!fs::exists(folder)) GTEST_SKIP() << "no test data at " << folder;
  const auto checkpoint = Checkpoint::Open(folder);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  const test::GoldenFile golden(folder / "golden.safetensors");
  for (const auto& [module, name] : {std::pair{"gate_up_proj", "gate_up_dequant"}, std::pair{"down_proj", "down_dequant"}}) {
    const auto weight = checkpoint->LoadWeight(std::string("model.layers.0.mlp.experts.") + module);
    ASSERT_TRUE(weight) << weight.error().message();
    const int64_t E = weight->E(), N = weight->N(), K = weight->K();
    std::vector<float> found(static_cast<size_t>(E * N * K));
    ASSERT_TRUE(weight->Dequantize({found.data(), DType::kF32, {E, N, K}}).ok());
    const std::vector<float> expected = golden[name].Floats();  // transposed: [E, K, N]
    ASSERT_EQ(expected.size(), found.size());
    for (int64_t e = 0; e < E; ++e) {
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t k = 0; k < K; ++k) {
          ASSERT_EQ(found[static_cast<size_t>((e * N + n) * K + k)], expected[static_cast<size_t>((e * K + k) * N + n)])
              << e << " " << n << " " << k;
        }
      }
    }
  }
}

}  // namespace
}  // namespace billfish
