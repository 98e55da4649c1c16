// A progress bar on standard error, only where a person can see it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace billfish::cli {

/// Standard error is a terminal, and none of NO_COLOR, CI and TERM=dumb asks for plain output.
bool StderrIsInteractive();

class Progress {
 public:
  /// `label` names the work, `unit` what is counted. Draws nothing unless StderrIsInteractive().
  Progress(std::string label, std::string unit);
  ~Progress();  ///< wipes the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Redraws at most ten times a second. `note` is what is being worked on now.
  void Update(int64_t done, int64_t total, const std::string& note = "");

 private:
  std::string label_, unit_;
  bool enabled_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace billfish::cli
