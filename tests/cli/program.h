// Runs the built program in a process of its own and keeps what it wrote.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/temporary_folder.h"

namespace billfish::cli_test {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A folder that is gone when the test ends; its files' names are strings, as arguments are.
class Scratch : public test::TemporaryFolder {
 public:
  std::string operator/(const std::string& name) const { return (path() / name).string(); }
};

inline std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Finished {
  int exit_code = -1;  ///< -1 if a signal ended it
  int signal = 0;
  std::string out, err;

  /// Standard output as the one JSON document that --json promises; fails the test if it is anything else.
  Json Document() const {
    Json document = Json::parse(out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << "stdout is not one JSON document:\n" << out << "\nstderr:\n" << err;
    return document;
  }
};

struct Input {
  std::string text;                                              ///< standard input
  std::vector<std::pair<std::string, std::string>> environment;  ///< set for the program
  std::string stdout_path;                                       ///< write standard output there instead of keeping it
  bool stdout_closed_pipe = false;                               ///< standard output is a pipe that nobody reads
  int interrupt_after_ms = -1;                                   ///< send Ctrl-C then
};

inline Finished RunProgram(const std::vector<std::string>& arguments, const Input& input = {}) {
  const Scratch scratch;
  std::ofstream(scratch / "in", std::ios::binary) << input.text;
  const std::string out = input.stdout_path.empty() ? scratch / "out" : input.stdout_path;
  int pipe_ends[2] = {-1, -1};
  if (input.stdout_closed_pipe) {
    EXPECT_EQ(::pipe(pipe_ends), 0);
    ::close(pipe_ends[0]);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    for (const auto& [name, value] : input.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::dup2(::open((scratch / "in").c_str(), O_RDONLY), STDIN_FILENO);
    ::dup2(input.stdout_closed_pipe ? pipe_ends[1] : ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
    ::dup2(::open((scratch / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
    std::vector<char*> argv;
    std::string program = BILLFISH_PROGRAM;
    std::vector<std::string> copies = arguments;
    argv.push_back(program.data());
    for (std::string& argument : copies) argv.push_back(argument.data());
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  if (pipe_ends[1] >= 0) ::close(pipe_ends[1]);
  if (input.interrupt_after_ms >= 0) {
    ::usleep(static_cast<useconds_t>(input.interrupt_after_ms) * 1000);
    ::kill(child, SIGINT);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  Finished finished;
  if (WIFEXITED(status)) finished.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) finished.signal = WTERMSIG(status);
  if (input.stdout_path.empty() && !input.stdout_closed_pipe) finished.out = ReadFile(out);
  finished.err = ReadFile(scratch / "err");
  return finished;
}

/// The 4-bit model of this repository.
inline std::string TinyModel() { return std::string(BILLFISH_SOURCE_DIR) + "/models/tiny-moe-mxfp4"; }

}  // namespace billfish::cli_test
