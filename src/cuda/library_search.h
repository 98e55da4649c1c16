// Where a library of the CUDA toolkit may lie on a machine that has no toolkit, or one in an unusual place, and opening the first that
// serves.
#pragma once

#include <dlfcn.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "billfish/status.h"

namespace billfish::cuda {

/// What to hand to dlopen in turn. If the environment variable `chosen_by` is set, it names a file or a folder and stands alone; else
/// `names` as the loader finds them, then the files that exist in the folders of the program, of CUDA_HOME and CUDA_PATH, /usr/local/cuda,
/// and nvidia/<package>/lib in the site-packages of the Python environments on PATH.
std::vector<std::string> LibraryCandidates(const char* chosen_by, std::span<const std::string> names,
                                           std::span<const char* const> packages);

/// Puts the major version first that the driver, if there is one, can run: {"libx.so.13", "libx.so.12", "libx.so"} for "libx.so".
std::vector<std::string> VersionedNames(const std::string& name);

/// Sets `function` to the exported `symbol` of an open library. Where there is none, it becomes null and `missing`, if still null,
/// `symbol`.
template <class Function>
void Resolve(void* library, const char* symbol, Function*& function, const char*& missing) {
  function = reinterpret_cast<Function*>(dlsym(library, symbol));
  if (function == nullptr && missing == nullptr) missing = symbol;
}

/// Opens `candidates` in turn, for the life of the process, until `refusal(library)` says nothing against one: "", or else a clause
/// such as "has no nvrtcVersion"; those refused are closed. Returns that candidate, or kNotFound with why each of them does not serve.
Result<std::string> OpenFirst(std::span<const std::string> candidates, const std::function<std::string(void* library)>& refusal);

}  // namespace billfish::cuda
