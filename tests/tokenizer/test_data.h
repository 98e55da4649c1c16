// Where the tests' files lie.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace billfish {

inline std::filesystem::path TestData() {
  const char* folder = std::getenv("BILLFISH_TEST_DATA");
  return folder ? folder : BILLFISH_DEFAULT_TEST_DATA;
}

inline std::filesystem::path GoldenFolder() { return std::filesystem::path(BILLFISH_SOURCE_DIR) / "tests/golden/tokenizer"; }

inline std::string FileText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace billfish
