// The picture in docs/ARCHITECTURE.md, enforced: an #include may only point downwards, and callers see include/billfish alone.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// layer -> the layers it may include besides itself and include/billfish.
const std::map<std::string, std::set<std::string>>& AllowedIncludes() {
  static const std::map<std::string, std::set<std::string>> allowed = {
      {"core", {}},
      {"format", {"core"}},
      {"tokenizer", {"core"}},
      {"checkpoint", {"core", "format"}},
      {"reference", {"core", "format"}},
      {"cpu", {"core", "format"}},
      {"cuda", {"core", "format"}},
      {"backend", {"core", "format", "reference", "cpu", "cuda"}},
      {"linear", {"core", "format", "backend", "reference", "cpu", "cuda"}},
      {"moe", {"core", "format", "linear", "backend", "reference", "cpu", "cuda"}},
      {"model", {"core", "format", "moe", "linear", "cuda", "checkpoint", "tokenizer"}},
      {"cli", {"bench"}},
  };
  return allowed;
}

std::vector<std::pair<int, std::string>> QuotedIncludes(const fs::path& file) {
  static const std::regex include_line(R"rx(^\s*#\s*include\s*"([^"]+)")rx");
  std::ifstream in(file);
  std::vector<std::pair<int, std::string>> includes;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (std::smatch match; std::regex_search(line, match, include_line)) includes.emplace_back(number, match[1]);
  }
  return includes;
}

bool IsSource(const fs::path& path) {
  static const std::set<std::string> extensions = {".cc", ".h", ".cu", ".cuh"};
  return extensions.count(path.extension().string()) > 0;
}

TEST(Layering, IncludesPointDownwardsOnly) {
  const fs::path src = fs::path(BILLFISH_SOURCE_DIR) / "src";
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(src)) {
    if (!entry.is_regular_file() || !IsSource(entry.path())) continue;
    ++files;
    const fs::path relative = fs::relative(entry.path(), src);
    const std::string layer = relative.begin()->string();
    const auto allowed = AllowedIncludes().find(layer);
    ASSERT_NE(allowed, AllowedIncludes().end()) << relative << ": src/" << layer << " is no layer of docs/ARCHITECTURE.md";
    for (const auto& [number, include] : QuotedIncludes(entry.path())) {
      if (include == "billfish_commit.h") continue;  // written by the build
      const std::string target = fs::path(include).begin()->string();
      EXPECT_TRUE(target == "billfish" || (target == layer && layer != "cli") || (layer == "cli" && target == "cli") ||
                  allowed->second.count(target) > 0)
          << "src/" << relative.string() << ":" << number << " includes \"" << include << "\"; " << layer
          << " may include only billfish/, itself and the layers below it";
    }
  }
  EXPECT_GT(files, 20);
}

TEST(Layering, PublicHeadersIncludeOnlyPublicHeaders) {
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(BILLFISH_SOURCE_DIR) / "include")) {
    if (!entry.is_regular_file()) continue;
    ++files;
    for (const auto& [number, include] : QuotedIncludes(entry.path())) {
      EXPECT_EQ(include.rfind("billfish/", 0), 0U) << entry.path() << ":" << number << " includes \"" << include << "\"";
    }
  }
  EXPECT_GT(files, 5);
}

TEST(Layering, CallersSeeOnlyThePublicHeaders) {
  for (const char* folder : {"bench", "examples"}) {
    const fs::path root = fs::path(BILLFISH_SOURCE_DIR) / folder;
    if (!fs::exists(root)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_regular_file() || !IsSource(entry.path())) continue;
      for (const auto& [number, include] : QuotedIncludes(entry.path())) {
        EXPECT_TRUE(include.rfind("billfish/", 0) == 0 || fs::exists(entry.path().parent_path() / include))
            << entry.path() << ":" << number << " includes \"" << include << "\"; callers use include/billfish only";
      }
    }
  }
}

}  // namespace
