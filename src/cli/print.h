// Text for standard output and standard error. A write that fails is noticed at the end, by main(), instead of throwing here.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace billfish::cli {

template <class... Args>
void PrintTo(std::FILE* file, fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  std::fwrite(text.data(), 1, text.size(), file);
}

/// A result.
template <class... Args>
void Print(fmt::format_string<Args...> format, Args&&... args) {
  PrintTo(stdout, format, std::forward<Args>(args)...);
}

/// Progress, a note or an error.
template <class... Args>
void Note(fmt::format_string<Args...> format, Args&&... args) {
  PrintTo(stderr, format, std::forward<Args>(args)...);
}

}  // namespace billfish::cli
