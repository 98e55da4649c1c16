// A small mixture-of-experts model in bf16, written by a test as the source of quantisation.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"
#include "billfish/quantize.h"
#include "core/float_formats.h"
#include "support/checkpoint_folder.h"

namespace billfish::test {

inline std::vector<uint16_t> RandomBF16(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = BF16FromF32(normal(random));
  return values;
}

inline std::string FileText(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Name -> content of every file of a folder.
inline std::map<std::string, std::string> FolderContent(const std::filesystem::path& folder) {
  std::map<std::string, std::string> content;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) content[std::filesystem::relative(entry.path(), folder).string()] = FileText(entry.path());
  }
  return content;
}

/// Matrices of the model by module name, [N, K].
inline std::map<std::string, std::pair<int64_t, int64_t>> SmallMoeShapes() {
  std::map<std::string, std::pair<int64_t, int64_t>> shapes = {{"model.embed_tokens", {48, 256}},
                                                               {"lm_head", {48, 256}},
                                                               {"model.layers.0.self_attn.q_proj", {136, 256}},
                                                               {"model.layers.0.mlp.gate", {2, 256}},
                                                               {"model.layers.0.mlp.shared_expert.up_proj", {40, 256}}};
  for (const char* expert : {"0", "1"}) {
    const std::string prefix = std::string("model.layers.0.mlp.experts.") + expert;
    shapes[prefix + ".gate_proj"] = {128, 256};
    shapes[prefix + ".up_proj"] = {128, 256};
    shapes[prefix + ".down_proj"] = {256, 256};
  }
  return shapes;
}

inline void WriteSmallMoe(const std::filesystem::path& folder, uint32_t seed = 1) {
  std::filesystem::create_directories(folder);
  SafetensorsBuilder file;
  for (const auto& [name, shape] : SmallMoeShapes()) {
    file.Add(name + ".weight", "BF16", {shape.first, shape.second}, RandomBF16(static_cast<size_t>(shape.first * shape.second), seed++));
  }
  file.Add("model.norm.weight", "BF16", {128}, RandomBF16(128, seed++));
  file.Add("model.layers.0.self_attn.q_proj.bias", "BF16", {136}, RandomBF16(136, seed++));
  file.Write(folder / "model.safetensors");
  WriteFile(folder / "config.json", R"({"model_type": "qwen3_moe", "tie_word_embeddings": false, "dtype": "bfloat16"})");
  WriteFile(folder / "tokenizer.json", "{\"a\": 1}");
  WriteFile(folder / "tokenizer_config.json", "{}");
  WriteFile(folder / "generation_config.json", "{}");
  WriteFile(folder / "chat_template.jinja", "{{ messages }}");
  WriteFile(folder / "README.md", "about the unquantised model");
}

inline std::vector<float> Decoded(const PackedWeight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.E() * weight.N() * weight.K()));
  EXPECT_TRUE(weight.Dequantize({values.data(), DType::kF32, {weight.E(), weight.N(), weight.K()}}).ok());
  return values;
}

inline std::vector<float> LoadDecoded(const Checkpoint& checkpoint, const std::string& module) {
  const auto weight = checkpoint.LoadWeight(module);
  EXPECT_TRUE(weight.ok()) << weight.status().message();
  return weight.ok() ? Decoded(*weight) : std::vector<float>();
}

}  // namespace billfish::test
