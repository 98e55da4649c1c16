// The text of src/cuda/kernels and of the headers it includes, as part of the library (written by cmake/embed_kernels.cmake).
#pragma once

#include <cstddef>
#include <span>

namespace billfish::cuda {

struct EmbeddedSource {
  const char* name;  ///< as in #include lines: "cuda/kernels/weight.cuh"
  const char* text;  ///< ends with a zero byte after `bytes`
  size_t bytes;
};

/// Sorted by name.
std::span<const EmbeddedSource> EmbeddedSources();

}  // namespace billfish::cuda
