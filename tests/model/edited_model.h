// A copy of a golden model in a folder of its own, whose configuration and tensors a test may spoil.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "billfish/model.h"
#include "support/checkpoint_folder.h"
#include "support/golden_file.h"

namespace billfish::test {

inline std::filesystem::path GoldenModel(const std::string& name) {
  return std::filesystem::path(BILLFISH_SOURCE_DIR) / "tests/golden/models" / name;
}

class EditedModel {
 public:
  explicit EditedModel(const std::string& name) : source_(GoldenModel(name)) {
    config = nlohmann::json::parse(std::ifstream(source_ / "config.json"));
  }

  nlohmann::json config;                               ///< what config.json will hold
  std::string generation_config;                       ///< text of generation_config.json; empty = no such file
  std::set<std::string> dropped;                       ///< tensors left out
  std::map<std::string, std::vector<int64_t>> shapes;  ///< tensors cut down to the first values of another shape

  /// Writes the folder and loads it.
  Result<Model> Load(const ModelOptions& options = {}) {
    WriteFile(folder_ / "config.json", config.dump());
    if (!generation_config.empty()) WriteFile(folder_ / "generation_config.json", generation_config);
    if (dropped.empty() && shapes.empty()) {
      std::filesystem::copy(source_ / "model.safetensors", folder_ / "model.safetensors",
                            std::filesystem::copy_options::overwrite_existing);
    } else {
      WriteTensors();
    }
    return Model::Load(folder_.path(), options);
  }
  std::string LoadError(const ModelOptions& options = {}) {
    const Result<Model> model = Load(options);
    return model ? "no error" : std::string(ErrorCodeName(model.error().code())) + ": " + std::string(model.error().message());
  }

 private:
  void WriteTensors() {
    const GoldenFile file(source_ / "model.safetensors");
    SafetensorsBuilder builder;
    for (const std::string& name : file.Names()) {
      if (dropped.count(name) > 0) continue;
      GoldenTensor tensor = file[name];
      if (const auto it = shapes.find(name); it != shapes.end()) {
        tensor.shape = it->second;
        size_t bytes = 2;
        for (const int64_t extent : tensor.shape) bytes *= static_cast<size_t>(extent);
        tensor.bytes.resize(bytes);
      }
      builder.Add(name, tensor.dtype, tensor.shape, tensor.bytes);
    }
    builder.Write(folder_ / "model.safetensors");
  }

  std::filesystem::path source_;
  TemporaryFolder folder_;
};

}  // namespace billfish::test
