// A folder that is a test's alone: tests run as processes of their own at the same time, so a fixed name would be shared.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace billfish::test {

/// A folder of its own under the system's temporary folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const std::string unique(6, 'X');  // what mkdtemp replaces
    std::string pattern = (std::filesystem::temp_directory_path() / ("billfish-test-" + unique)).string();
    path_ = ::mkdtemp(pattern.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace billfish::test
