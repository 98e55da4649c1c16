#include "svg.h"

#include <fmt/format.h>

#include <array>

namespace billfish::bench {
namespace {

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return escaped;
}

}  // namespace

std::string_view SeriesColor(size_t i) {
  // Okabe and Ito's palette, without its yellow.
  static constexpr std::array<std::string_view, 8> kColors = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                              "#56b4e9", "#e69f00", "#5b4b8a", "#4d4d4d"};
  return kColors[i % kColors.size()];
}

Svg::Svg(double width, double height) {
  body_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n",
      width, height);
}

void Svg::Line(double x1, double y1, double x2, double y2, std::string_view color, double width, std::string_view dash) {
  body_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"{:.1f}\"", x1, y1, x2,
                       y2, color, width);
  if (!dash.empty()) body_ += fmt::format(" stroke-dasharray=\"{}\"", dash);
  body_ += "/>\n";
}

void Svg::Rect(double x, double y, double width, double height, std::string_view fill, double radius) {
  body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"{:.1f}\" fill=\"{}\"/>\n", x, y, width,
                       height, radius, fill);
}

void Svg::Marker(double x, double y, double radius, std::string_view color, int shape, bool hollow) {
  const std::string paint = hollow ? fmt::format("fill=\"#ffffff\" fill-opacity=\"0.6\" stroke=\"{}\" stroke-width=\"1.6\"", color)
                                   : fmt::format("fill=\"{}\" fill-opacity=\"0.9\" stroke=\"#ffffff\" stroke-width=\"0.7\"", color);
  const double r = radius;
  if (shape == 0) {
    body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" {}/>\n", x, y, r, paint);
  } else if (shape == 1) {
    body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" {}/>\n", x - r * 0.9, y - r * 0.9, r * 1.8,
                         r * 1.8, paint);
  } else if (shape == 2) {
    body_ += fmt::format("<path d=\"M{:.1f} {:.1f}l{:.1f} {:.1f}l{:.1f} {:.1f}l{:.1f} {:.1f}z\" {}/>\n", x, y - 1.25 * r, 1.25 * r,
                         1.25 * r, -1.25 * r, 1.25 * r, -1.25 * r, -1.25 * r, paint);
  } else {
    body_ += fmt::format("<path d=\"M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z\" {}/>\n", x, y - 1.2 * r, 1.15 * r, 2.1 * r, -2.3 * r, paint);
  }
}

void Svg::Text(double x, double y, std::string_view text, double size, std::string_view color, Anchor anchor, double rotate, bool bold) {
  static constexpr std::array<std::string_view, 3> kAnchors = {"start", "middle", "end"};
  body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:.1f}\" fill=\"{}\" text-anchor=\"{}\"", x, y, size, color,
                       kAnchors[static_cast<size_t>(anchor)]);
  if (bold) body_ += " font-weight=\"bold\"";
  if (rotate != 0) body_ += fmt::format(" transform=\"rotate({:.1f} {:.1f} {:.1f})\"", rotate, x, y);
  body_ += fmt::format(">{}</text>\n", Escaped(text));
}

std::string Svg::ToString() const { return body_ + "</svg>\n"; }

}  // namespace billfish::bench
