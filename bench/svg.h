// Just enough SVG for a chart: lines, rectangles, circles and text with a background that suits light and dark pages.
#pragma once

#include <string>
#include <string_view>

namespace billfish::bench {

enum class Anchor { kStart, kMiddle, kEnd };

class Svg {
 public:
  Svg(double width, double height);
  void Line(double x1, double y1, double x2, double y2, std::string_view color, double width = 1, std::string_view dash = "");
  void Rect(double x, double y, double width, double height, std::string_view fill, double radius = 0);
  /// `shape` 0 circle, 1 square, 2 diamond, 3 triangle; `hollow` draws the outline alone.
  void Marker(double x, double y, double radius, std::string_view color, int shape, bool hollow);
  void Text(double x, double y, std::string_view text, double size, std::string_view color, Anchor anchor = Anchor::kStart,
            double rotate = 0, bool bold = false);
  /// The finished document.
  std::string ToString() const;

 private:
  std::string body_;
};

/// Colour i of a series; distinct for the first eight, told apart by people who do not see red and green alike.
std::string_view SeriesColor(size_t i);
inline constexpr std::string_view kInk = "#1f2933";
inline constexpr std::string_view kSoftInk = "#65727f";
inline constexpr std::string_view kGrid = "#e3e7eb";

}  // namespace billfish::bench
