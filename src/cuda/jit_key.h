// What decides whether a compiled kernel may be used again.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/embedded_sources.h"
#include "cuda/jit.h"

namespace billfish::cuda {

/// Changes whenever what a cache entry holds, or how it is checked, changes.
inline constexpr int kEntryVersion = 1;

/// The options that every kernel is compiled with, besides its definitions and its target.
std::span<const char* const> FixedOptions();

/// All options for one spec and target, in order.
std::vector<std::string> CompileOptions(const KernelSpec& spec, Arch arch);

/// "cuda/kernels/<file>" and everything that it includes, sorted by name; empty if there is no such file. What `all` lacks is left out:
/// the compiler reports it.
std::vector<EmbeddedSource> SourcesOf(const std::string& file, std::span<const EmbeddedSource> all);

/// 64 hexadecimal digits over kEntryVersion, the sources (of SourcesOf), the spec's file and function, the options and the compiler's
/// version.
std::string KernelKey(const KernelSpec& spec, Arch arch, std::span<const EmbeddedSource> sources, const std::string& compiler_version);

}  // namespace billfish::cuda
