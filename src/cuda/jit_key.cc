#include "cuda/jit_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

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

std::vector<EmbeddedSource> SourcesOf(const std::string& file, std::span<const EmbeddedSource> all) {
  const auto find = [&](std::string_view name) {
    return std::find_if(all.begin(), all.end(), [&](const EmbeddedSource& s) { return name == s.name; });
  };
  std::vector<EmbeddedSource> found;
  if (const auto main = find("cuda/kernels/" + file); main != all.end()) found.push_back(*main);
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string_view text(found[i].text, found[i].bytes);
    constexpr std::string_view kInclude = "#include \"";
    for (size_t at = text.find(kInclude); at != std::string_view::npos; at = text.find(kInclude, at)) {
      at += kInclude.size();
      const std::string_view name = text.substr(at, text.find('"', at) - at);
      const auto header = find(name);
      const bool known = std::any_of(found.begin(), found.end(), [&](const EmbeddedSource& s) { return name == s.name; });
      if (header != all.end() && !known) found.push_back(*header);
    }
  }
  std::sort(found.begin(), found.end(), [](const EmbeddedSource& a, const EmbeddedSource& b) { return std::string_view(a.name) < b.name; });
  return found;
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
