#include "cuda/jit_key.h"

#include <fmt/format.h>

#include <array>

#include "cuda/sha256.h"

namespace billfish::cuda {

std::span<const char* const> FixedOptions() {
  // -v makes the assembler report registers and spills into the log.
  static constexpr std::array<const char*, 3> kOptions = {"--std=c++17", "-default-device", "--ptxas-options=-v"};
  return kOptions;
}

std::vector<std::string> CompileOptions(const KernelSpec& spec, Arch arch) {
  std::vector<std::string> options(FixedOptions().begin(), FixedOptions().end());
  options.push_back("--gpu-architecture=" + arch.Target());
  for (const auto& [name, value] : spec.defines) options.push_back(fmt::format("-D{}={}", name, value));
  return options;
}

std::string KernelKey(const KernelSpec& spec, Arch arch, std::span<const EmbeddedSource> sources, const std::string& compiler_version) {
  Sha256 hash;
  hash.AddField(fmt::format("billfish kernel {}", kEntryVersion));
  hash.AddField(compiler_version);
  for (const EmbeddedSource& source : sources) {
    hash.AddField(source.name);
    hash.AddField({source.text, source.bytes});
  }
  hash.AddField(spec.file);
  hash.AddField(spec.function);
  for (const std::string& option : CompileOptions(spec, arch)) hash.AddField(option);
  return Hex(hash.Finish());
}

}  // namespace billfish::cuda
