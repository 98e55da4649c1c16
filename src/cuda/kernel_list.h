// Every kernel configuration that this version of billfish can ask for: what `billfish kernels` lists and builds ahead of time, and
// what the tests compile for every target.
//
// The host file of each kernel declares `void AppendXxxSpecs(Arch arch, std::vector<KernelSpec>& specs)` in its own header and builds
// its run-time specs by the same function that fills this list; kernel_list.cc calls all of them.
#pragma once

#include <span>
#include <vector>

#include "cuda/device.h"
#include "cuda/jit.h"

namespace billfish::cuda {

/// The targets that billfish supports: 8.0, 8.6, 8.9, 9.0, 10.0, 10.3, 12.0.
std::span<const Arch> AllArchs();

/// Without duplicates, in order of file and definitions.
std::vector<KernelSpec> AllKernelSpecs(Arch arch);

}  // namespace billfish::cuda
