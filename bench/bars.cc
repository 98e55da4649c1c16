#include <fmt/format.h>

#include <cmath>
#include <set>

#include "chart.h"
#include "series.h"
#include "svg.h"

namespace billfish::bench {
namespace {

constexpr double kWidth = 980, kHead = 92, kPanelHeight = 190, kPanelGap = 76;
constexpr double kLeft = 60, kRight = 956;

std::string PanelOf(const Row& row) { return fmt::format("{}, {}", MatrixOf(row), row.mode); }

void DrawPanel(Svg& svg, const std::string& title, const std::vector<const Row*>& rows, const std::vector<std::string>& schemes,
               double top) {
  const double bottom = top + kPanelHeight;
  double highest = 1.0;
  for (const Row* row : rows) highest = std::max(highest, row->fraction);
  const double scale = kPanelHeight / (std::ceil(highest * 10 + 0.3) / 10);
  svg.Text(kLeft, top - 12, title, 13, kInk, Anchor::kStart, 0, true);
  for (int tenth = 0; tenth * 0.1 * scale <= kPanelHeight + 0.1; tenth += 2) {
    const double y = bottom - tenth * 0.1 * scale;
    svg.Line(kLeft, y, kRight, y, tenth == 10 ? kSoftInk : kGrid, 1, tenth == 10 ? "5 4" : "");
    svg.Text(kLeft - 8, y + 4, fmt::format("{:.1f}", tenth * 0.1), 11, kSoftInk, Anchor::kEnd);
  }
  std::set<int64_t> batches;
  for (const Row* row : rows) batches.insert(row->M);
  const double group = (kRight - kLeft) / static_cast<double>(batches.size());
  const double bar = std::min(26.0, group * 0.82 / static_cast<double>(schemes.size()));
  size_t index = 0;
  for (const int64_t M : batches) {
    const double center = kLeft + group * (static_cast<double>(index++) + 0.5);
    std::string limit;
    for (const Row* row : rows) {
      if (row->M != M) continue;
      const size_t scheme = IndexOf(schemes, row->scheme);
      const double x = center + bar * (static_cast<double>(scheme) - static_cast<double>(schemes.size()) / 2);
      const double height = row->fraction * scale;
      svg.Rect(x + 1, bottom - height, bar - 2, height, SeriesColor(scheme), 1.5);
      // Upright numbers where they fit, else turned into the bar.
      if (bar >= 24) {
        svg.Text(x + bar / 2, bottom - height - 4, fmt::format("{:.2f}", row->fraction), 9.5, kInk, Anchor::kMiddle);
      } else if (height > 34 && bar >= 11) {
        svg.Text(x + bar / 2 + 3.4, bottom - height + 5, fmt::format("{:.2f}", row->fraction), 9.5, "#ffffff", Anchor::kEnd, -90);
      }
      limit = limit.empty() || limit == row->limit ? row->limit : "read or dot";
    }
    svg.Text(center, bottom + 16, fmt::format("M={}", M), 12, kInk, Anchor::kMiddle);
    svg.Text(center, bottom + 29, limit, 10, kSoftInk, Anchor::kMiddle);
  }
  svg.Line(kLeft, bottom, kRight, bottom, kInk, 1.2);
}

}  // namespace

Result<std::string> DrawBars(const Report& report) {
  if (report.rows.empty()) return NoRows();
  const auto schemes = DistinctValues(report.rows, [](const Row& row) { return row.scheme; });
  const auto panels = DistinctValues(report.rows, PanelOf);
  Svg svg(kWidth, kHead + static_cast<double>(panels.size()) * (kPanelHeight + kPanelGap) + 6);
  svg.Text(kLeft, 28, "Fraction of the limit measured in the same run", 17, kInk, Anchor::kStart, 0, true);
  svg.Text(
      kLeft, 47,
      fmt::format("{}, {} threads, read {:.0f} GB/s, bf16 dot {:.0f}, int8 dot {:.0f} GFLOP/s; billfish {}", report.cpu, report.threads,
                  report.limits.read_bandwidth / 1e9, report.limits.bf16_dot / 1e9, report.limits.int8_dot / 1e9, report.version),
      12, kSoftInk);
  double x = kRight;
  for (size_t i = schemes.size(); i-- > 0;) {
    x -= 26 + 7.0 * static_cast<double>(schemes[i].size());
    svg.Rect(x, 19, 10, 10, SeriesColor(i), 2);
    svg.Text(x + 15, 28, schemes[i], 12, kInk);
  }
  double top = kHead;
  for (const std::string& panel : panels) {
    std::vector<const Row*> rows;
    for (const Row& row : report.rows) {
      if (PanelOf(row) == panel) rows.push_back(&row);
    }
    DrawPanel(svg, panel, rows, schemes, top);
    top += kPanelHeight + kPanelGap;
  }
  return svg.ToString();
}

}  // namespace billfish::bench
