// Any bytes as a checkpoint folder: "config.json \0 model.safetensors". Whatever it describes is decoded.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "billfish/checkpoint.h"

namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxNumbers = 1 << 20;

void Require(bool condition) {
  if (!condition) std::abort();
}

// One folder a process, in memory where the system has such a place.
const fs::path& Folder() {
  static const fs::path folder = [] {
    const fs::path place =
        (fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) / ("billfish-fuzz-" + std::to_string(::getpid()));
    fs::create_directories(place);
    return place;
  }();
  static const struct Remove {
    ~Remove() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
    fs::path path;
  } remove{folder};
  return folder;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  if (zero == std::string_view::npos) return 0;
  std::ofstream(Folder() / "config.json", std::ios::binary) << input.substr(0, zero);
  std::ofstream(Folder() / "model.safetensors", std::ios::binary) << input.substr(zero + 1);
  const auto checkpoint = billfish::Checkpoint::Open(Folder());
  if (!checkpoint.ok()) {
    Require(!checkpoint.error().message().empty());
    return 0;
  }
  std::vector<std::string> names;
  for (const billfish::TensorInfo& tensor : checkpoint->tensors()) {
    Require(checkpoint->Read(tensor.name).ok());
    (void)checkpoint->ReadF32(tensor.name).ok();
    names.push_back(tensor.name.substr(0, tensor.name.rfind('.')));
    names.push_back(tensor.name.substr(0, tensor.name.rfind('_')));
  }
  (void)checkpoint->Modules().ok();
  for (const std::string& name : names) {
    const auto weight = checkpoint->LoadWeight(name);
    if (!weight.ok()) {
      Require(!weight.error().message().empty());
      continue;
    }
    const int64_t count = weight->E() * weight->N() * weight->K();
    if (count > kMaxNumbers) continue;
    std::vector<float> values(static_cast<size_t>(count));
    Require(weight->Dequantize({values.data(), billfish::DType::kF32, {weight->E(), weight->N(), weight->K()}}).ok());
  }
  return 0;
}
