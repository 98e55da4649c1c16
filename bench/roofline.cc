#include <fmt/format.h>

#include <cmath>
#include <map>

#include "chart.h"
#include "series.h"
#include "svg.h"

namespace billfish::bench {
namespace {

constexpr double kWidth = 920, kHeight = 560;
constexpr double kLeft = 70, kRight = 690, kTop = 66, kBottom = 496;

/// A logarithmic axis from `low` to `high` drawn from `from` to `to`.
struct LogAxis {
  double low, high, from, to;
  double At(double value) const { return from + (to - from) * std::log(value / low) / std::log(high / low); }
};

double Intensity(const Row& row) { return row.gflop_per_s / row.gb_per_s; }

double PowerOfTen(double value, bool up) { return std::pow(10.0, up ? std::ceil(std::log10(value)) : std::floor(std::log10(value))); }

struct Tick {
  double value;
  bool power_of_ten;
};

/// 1, 2 and 5 times every power of ten on the axis.
std::vector<Tick> TicksOf(const LogAxis& axis) {
  std::vector<Tick> ticks;
  const auto first = std::lround(std::log10(axis.low)), last = std::lround(std::log10(axis.high));
  for (auto exponent = first; exponent <= last; ++exponent) {
    for (const double digit : {1.0, 2.0, 5.0}) {
      const double value = digit * std::pow(10.0, exponent);
      if (value <= axis.high * 1.01) ticks.push_back({value, digit == 1.0});
    }
  }
  return ticks;
}

void DrawGrid(Svg& svg, const LogAxis& x, const LogAxis& y) {
  for (const Tick& tick : TicksOf(x)) {
    svg.Line(x.At(tick.value), kTop, x.At(tick.value), kBottom, kGrid, tick.power_of_ten ? 1.2 : 0.6);
    svg.Text(x.At(tick.value), kBottom + 17, fmt::format("{:g}", tick.value), 11, kSoftInk, Anchor::kMiddle);
  }
  for (const Tick& tick : TicksOf(y)) {
    svg.Line(kLeft, y.At(tick.value), kRight, y.At(tick.value), kGrid, tick.power_of_ten ? 1.2 : 0.6);
    svg.Text(kLeft - 8, y.At(tick.value) + 4, fmt::format("{:g}", tick.value), 11, kSoftInk, Anchor::kEnd);
  }
  svg.Text((kLeft + kRight) / 2, kBottom + 40, "operations per byte of weight", 12, kInk, Anchor::kMiddle);
  svg.Text(22, (kTop + kBottom) / 2, "GFLOP/s", 12, kInk, Anchor::kMiddle, -90);
}

/// The roofs; ceilings that are nearly the same height share one line and one label.
void DrawRoofs(Svg& svg, const Report& report, const LogAxis& x, const LogAxis& y) {
  const Limits& limits = report.limits;
  double bandwidth = limits.read_bandwidth / 1e9;  // or what a later probe saw, on a machine whose bandwidth moves
  for (const Row& row : report.rows) {
    if (row.limit == "read bandwidth") bandwidth = std::max(bandwidth, row.limit_value);
  }
  std::vector<std::pair<double, std::string>> ceilings;
  for (const auto& [value, name] : {std::pair{limits.int8_dot / 1e9, "int8 dot"}, std::pair{limits.bf16_dot / 1e9, "bf16 dot"},
                                    std::pair{limits.fp32_fma / 1e9, "fp32 fma"}}) {
    if (!ceilings.empty() && value > ceilings.back().first * 0.9) {
      ceilings.back().second += std::string(", ") + name;
    } else {
      ceilings.emplace_back(value, name);
    }
  }
  const double top = ceilings.front().first;
  const double start = std::max(x.low, y.low / bandwidth);
  svg.Line(x.At(start), y.At(start * bandwidth), x.At(top / bandwidth), y.At(top), kInk, 1.8);
  const double slope = std::atan2(y.At(top) - y.At(start * bandwidth), x.At(top / bandwidth) - x.At(start)) * 180 / 3.14159265358979;
  const double middle = start * std::pow(top / bandwidth / start, 0.2);  // left of where the points lie
  svg.Text(x.At(middle) - 9, y.At(middle * bandwidth) - 9, fmt::format("read {:.0f} GB/s", bandwidth), 12, kInk, Anchor::kMiddle, slope);
  for (const auto& [value, name] : ceilings) {
    svg.Line(x.At(value / bandwidth), y.At(value), kRight, y.At(value), kInk, 1.4, value == top ? "" : "6 4");
    svg.Text(kRight - 4, y.At(value) - 6, fmt::format("{} {:.0f}", name, value), 12, kInk, Anchor::kEnd);
  }
}

/// One "M = 16" under the lowest point of each cluster of points of the same M.
void LabelBatches(Svg& svg, const std::vector<Row>& rows, const LogAxis& x, const LogAxis& y) {
  struct Cluster {
    double log_x = 0, bottom = 0;
    int points = 0;
  };
  std::map<int64_t, Cluster> clusters;
  for (const Row& row : rows) {
    Cluster& cluster = clusters[row.M];
    cluster.log_x += x.At(Intensity(row));
    cluster.bottom = std::max(cluster.bottom, y.At(row.gflop_per_s));
    ++cluster.points;
  }
  double last_x = -1e9, last_y = -1e9;
  for (const auto& [M, cluster] : clusters) {
    const double at = cluster.log_x / cluster.points;
    double baseline = cluster.bottom + 20;
    if (at - last_x < 46 && std::abs(baseline - last_y) < 14) baseline = last_y + 14;
    svg.Text(at, baseline, fmt::format("M={}", M), 11.5, kInk, Anchor::kMiddle, 0, true);
    last_x = at;
    last_y = baseline;
  }
}

}  // namespace

Result<std::string> DrawRoofline(const Report& report) {
  if (report.rows.empty()) return NoRows();
  double low_x = 1e30, high_x = 0, low_y = 1e30;
  for (const Row& row : report.rows) {
    low_x = std::min(low_x, Intensity(row));
    high_x = std::max(high_x, Intensity(row));
    low_y = std::min(low_y, row.gflop_per_s);
  }
  const LogAxis x{PowerOfTen(low_x * 0.9, false), PowerOfTen(high_x * 1.2, true), kLeft, kRight};
  const LogAxis y{PowerOfTen(low_y * 0.8, false), PowerOfTen(std::max(report.limits.int8_dot, report.limits.fp32_fma) / 1e9 * 1.05, true),
                  kBottom, kTop};

  Svg svg(kWidth, kHeight);
  svg.Text(kLeft, 28, "Speed against what this machine can do", 17, kInk, Anchor::kStart, 0, true);
  svg.Text(kLeft, 48, fmt::format("{}, {} threads; billfish {}", report.cpu, report.threads, report.version), 12, kSoftInk);
  DrawGrid(svg, x, y);
  DrawRoofs(svg, report, x, y);

  const auto schemes = DistinctValues(report.rows, [](const Row& row) { return row.scheme; });
  const auto matrices = DistinctValues(report.rows, MatrixOf);
  const auto modes = DistinctValues(report.rows, [](const Row& row) { return row.mode; });
  for (const Row& row : report.rows) {
    svg.Marker(x.At(Intensity(row)), y.At(row.gflop_per_s), 4.6, SeriesColor(IndexOf(schemes, row.scheme)),
               static_cast<int>(IndexOf(matrices, MatrixOf(row)) % 4), row.mode == "fast");
  }
  LabelBatches(svg, report.rows, x, y);

  double line = kTop + 10;
  const double legend = kRight + 26;
  for (size_t i = 0; i < schemes.size(); ++i, line += 20) {
    svg.Rect(legend - 5, line - 9, 10, 10, SeriesColor(i), 2);
    svg.Text(legend + 14, line, schemes[i], 12, kInk);
  }
  line += 12;
  for (size_t i = 0; i < matrices.size(); ++i, line += 20) {
    svg.Marker(legend, line - 4, 4.6, kSoftInk, static_cast<int>(i % 4), false);
    svg.Text(legend + 14, line, matrices[i], 12, kInk);
  }
  if (std::find(modes.begin(), modes.end(), "fast") != modes.end()) {
    line += 12;
    svg.Marker(legend, line - 4, 4.6, kSoftInk, 0, true);
    svg.Text(legend + 14, line, "mode fast (int8)", 12, kInk);
  }
  return svg.ToString();
}

}  // namespace billfish::bench
