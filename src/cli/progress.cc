#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "cli/print.h"
#include "cli/table.h"

namespace billfish::cli {
namespace {

bool IsSet(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

size_t TerminalColumns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

bool StderrIsInteractive() {
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string_view(term) == "dumb";
  return isatty(STDERR_FILENO) == 1 && !dumb && !IsSet("NO_COLOR") && !IsSet("CI");
}

Progress::Progress(std::string label, std::string unit)
    : label_(std::move(label)), unit_(std::move(unit)), enabled_(StderrIsInteractive()), start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (drawn_) Note("\r\x1b[K");
}

void Progress::Update(int64_t done, int64_t total, const std::string& note) {
  if (!enabled_ || total <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && done < total && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  constexpr int64_t kBarWidth = 24;
  const int64_t filled = std::clamp<int64_t>(kBarWidth * done / total, 0, kBarWidth);
  const std::string bar = std::string(static_cast<size_t>(filled), '=') + std::string(static_cast<size_t>(kBarWidth - filled), ' ');
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  std::string line = fmt::format("{} [{}] {}/{} {}", label_, bar, done, total, unit_);
  if (done > 0 && done < total && elapsed > 1) {
    line += fmt::format(", {} left", FormatSeconds(elapsed * static_cast<double>(total - done) / static_cast<double>(done)));
  }
  if (!note.empty()) line += "  " + note;
  line.resize(std::min(line.size(), TerminalColumns() - 1));
  Note("\r{}\x1b[K", line);
}

}  // namespace billfish::cli
