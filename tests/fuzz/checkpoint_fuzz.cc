// The input is config.json, a zero byte, and model.safetensors. Every module is described and decoded.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "billfish/checkpoint.h"

namespace {

const std::filesystem::path& Folder() {
  static const std::filesystem::path folder = [] {
    const std::filesystem::path memory = "/dev/shm";
    const auto path = (std::filesystem::exists(memory) ? memory : std::filesystem::temp_directory_path()) /
                      ("billfish-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(path);
    std::atexit([] { std::filesystem::remove_all(Folder()); });
    return path;
  }();
  return folder;
}

void Write(const char* name, const char* data, size_t size) {
  std::ofstream(Folder() / name, std::ios::binary | std::ios::trunc).write(data, static_cast<std::streamsize>(size));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const uint8_t* split = std::find(data, data + size, uint8_t{0});
  const auto config_size = static_cast<size_t>(split - data);
  const size_t skip = std::min(config_size + 1, size);
  Write("config.json", reinterpret_cast<const char*>(data), config_size);
  Write("model.safetensors", reinterpret_cast<const char*>(data) + skip, size - skip);
  const auto checkpoint = billfish::Checkpoint::Open(Folder());
  if (!checkpoint) return 0;
  const auto modules = checkpoint->Modules();
  if (!modules) return 0;
  for (const billfish::ModuleInfo& module : *modules) {
    const auto weight = checkpoint->LoadWeight(module.name);
    if (!weight) continue;
    std::vector<float> values(static_cast<size_t>(weight->E() * weight->N() * weight->K()));
    if (!weight->Dequantize({values.data(), billfish::DType::kF32, {weight->E(), weight->N(), weight->K()}}).ok()) std::abort();
  }
  return 0;
}
