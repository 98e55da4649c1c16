// scripts/gpu_sanitize.sh names tests for every kernel file; this keeps the list true. Needs no GPU.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;

// "Suite.Test" of everything in this program.
std::set<std::string> TestNames() {
  std::set<std::string> names;
  const testing::UnitTest& program = *testing::UnitTest::GetInstance();
  for (int s = 0; s < program.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *program.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) names.insert(std::string(suite.name()) + "." + suite.GetTestInfo(t)->name());
  }
  return names;
}

TEST(SanitizeList, NamesEveryKernelFileAndOnlyTestsThatThereAre) {
  std::ifstream script(std::string(BILLFISH_SOURCE_DIR) + "/scripts/gpu_sanitize.sh");
  const std::set<std::string> tests = TestNames();
  std::set<std::string> files;
  for (std::string line; std::getline(script, line);) {
    std::istringstream words(line);
    std::string file, test;
    if (!(words >> file >> test) || fs::path(file).extension() != ".cu") continue;
    EXPECT_TRUE(fs::exists(std::string(BILLFISH_SOURCE_DIR) + "/src/cuda/kernels/" + file)) << file;
    files.insert(file);
    const bool all = test.back() == '*';
    if (all) test.pop_back();
    const auto found = tests.lower_bound(test);
    EXPECT_TRUE(found != tests.end() && (all ? found->starts_with(test) : *found == test)) << "no test " << test;
  }
  for (const auto& entry : fs::directory_iterator(std::string(BILLFISH_SOURCE_DIR) + "/src/cuda/kernels")) {
    if (entry.path().extension() != ".cu") continue;
    EXPECT_EQ(files.count(entry.path().filename().string()), 1U) << entry.path().filename() << " runs under no sanitizer";
  }
}

}  // namespace
