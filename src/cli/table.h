// A table for people: columns as wide as their widest cell, numbers to the right.
#pragma once

#include <string>
#include <vector>

namespace billfish::cli {

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// One cell per column.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  /// Header and rows, each line starting with `indent` blanks and without blanks at its end.
  std::string ToString(int indent = 0) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// "512 B", "3.4 KiB", "12.0 MiB", "1.2 GiB".
std::string FormatBytes(double bytes);
/// "812 us", "3.1 ms", "4.2 s", "2 min 05 s".
std::string FormatSeconds(double seconds);
/// 1234567 -> "1 234 567".
std::string FormatCount(long long count);
/// Lines of at most `width` characters, continued with `indent` blanks; words longer than a line stay whole.
std::string Wrap(const std::string& text, int width, int indent);

}  // namespace billfish::cli
