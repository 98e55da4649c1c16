// docs/ARCHITECTURE.md says what each folder and file is for; this keeps it true.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;

std::string ReadText(const fs::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Every `path` in backticks that contains a slash or ends in a known extension.
std::set<std::string> NamedPaths(const std::string& text) {
  static const std::regex ticked(R"(`([A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+)*/?)`)");
  static const std::regex path_like(R"(.*/.*|.*\.(md|cc|h|cmake|json|sh|txt)$)");
  std::set<std::string> paths;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), ticked); it != std::sregex_iterator(); ++it) {
    const std::string path = (*it)[1];
    if (std::regex_match(path, path_like)) paths.insert(path);
  }
  return paths;
}

TEST(ArchitectureMap, EveryPathItNamesExists) {
  const fs::path root = BILLFISH_SOURCE_DIR;
  const std::set<std::string> paths = NamedPaths(ReadText(root / "docs/ARCHITECTURE.md"));
  EXPECT_GT(paths.size(), 20U);
  for (const std::string& path : paths) {
    if (path.rfind("build/", 0) == 0) continue;  // made by the build
    EXPECT_TRUE(fs::exists(root / path)) << "docs/ARCHITECTURE.md names " << path << ", which does not exist";
  }
}

TEST(ArchitectureMap, EveryFolderAndPublicHeaderIsNamed) {
  const fs::path root = BILLFISH_SOURCE_DIR;
  const std::string map = ReadText(root / "docs/ARCHITECTURE.md");
  for (const char* parent : {"src", "tests", "include/billfish"}) {
    for (const auto& entry : fs::directory_iterator(root / parent)) {
      const std::string path = std::string(parent) + "/" + entry.path().filename().string();
      if (entry.is_regular_file() && entry.path().extension() != ".h") continue;
      EXPECT_NE(map.find("`" + path), std::string::npos) << path << " is missing from docs/ARCHITECTURE.md";
    }
  }
}

TEST(ArchitectureMap, DocumentsLinkOnlyToWhatExists) {
  const fs::path root = BILLFISH_SOURCE_DIR;
  static const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string name = fs::relative(entry.path(), root).string();
    if (name.rfind("build", 0) == 0 || name.rfind(".git", 0) == 0 || entry.path().extension() != ".md") continue;
    const std::string text = ReadText(entry.path());
    for (auto it = std::sregex_iterator(text.begin(), text.end(), link); it != std::sregex_iterator(); ++it) {
      EXPECT_TRUE(fs::exists(entry.path().parent_path() / std::string((*it)[1]))) << name << " links to " << (*it)[1];
    }
  }
}

}  // namespace
