// Where a library of the CUDA toolkit may lie on a machine that has no toolkit, or one in an unusual place.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace billfish::cuda {

/// What to hand to dlopen in turn. If the environment variable `chosen_by` is set, it names a file or a folder and stands alone; else
/// `names` as the loader finds them, then the files that exist in the folders of the program, of CUDA_HOME and CUDA_PATH, /usr/local/cuda,
/// and nvidia/<package>/lib in the site-packages of the Python environments on PATH.
std::vector<std::string> LibraryCandidates(const char* chosen_by, std::span<const std::string> names,
                                           std::span<const char* const> packages);

/// Puts the major version first that the driver, if there is one, can run: {"libx.so.13", "libx.so.12", "libx.so"} for "libx.so".
std::vector<std::string> VersionedNames(const std::string& name);

}  // namespace billfish::cuda
