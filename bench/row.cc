#include "row.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "billfish/version.h"

namespace billfish::bench {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kSchema = "billfish-bench-2";

/// Calls visit(name, field) for every field of a row, so that writing and reading cannot drift apart.
template <class RowType, class Visitor>
void VisitFields(RowType& row, Visitor visit) {
  visit("op", row.op);
  visit("name", row.name);
  visit("kernel", row.kernel);
  visit("scheme", row.scheme);
  visit("mode", row.mode);
  visit("activation", row.activation);
  visit("M", row.M);
  visit("N", row.N);
  visit("K", row.K);
  visit("E", row.E);
  visit("top_k", row.top_k);
  visit("threads", row.threads);
  visit("repetitions", row.repetitions);
  visit("median_us", row.median_us);
  visit("spread", row.spread);
  visit("gb_per_s", row.gb_per_s);
  visit("gflop_per_s", row.gflop_per_s);
  visit("tokens_per_s", row.tokens_per_s);
  visit("baseline", row.baseline);
  visit("baseline_us", row.baseline_us);
  visit("limit", row.limit);
  visit("limit_value", row.limit_value);
  visit("fraction", row.fraction);
}

/// The fields of rows that are timed part by part; reports have them since a later version than the others.
template <class RowType, class Visitor>
void VisitSplit(RowType& row, Visitor visit) {
  visit("weights_us", row.weights_us);
  visit("attention_us", row.attention_us);
  visit("other_us", row.other_us);
}

bool Take(const Json& value, std::string& field) {
  if (!value.is_string()) return false;
  field = value.get<std::string>();
  return true;
}

template <class Number>
bool Take(const Json& value, Number& field) {
  if (!value.is_number()) return false;
  field = value.get<Number>();
  return true;
}

template <class Field>
Status TakeField(const Json& object, const char* name, Field& field, const std::filesystem::path& file) {
  const auto found = object.find(name);
  if (found != object.end() && Take(*found, field)) return {};
  return {ErrorCode::kCorruptFile, fmt::format("{}: the field '{}' of a benchmark report is missing or of the wrong type; give a file "
                                               "that `billfish bench --json` wrote",
                                               file.string(), name)};
}

}  // namespace

Report NewReport(int threads) {
  const VersionInfo version = Version();
  Report report{
      std::string(version.version), std::string(version.commit), CpuName(), CpuIsa(), {}, threads, MeasureLimits(threads), {}, {}};
  return report;
}

Result<Report> NewCudaReport(Device device) {
  const Result<std::vector<CudaDeviceInfo>> devices = CudaDevices();
  if (!devices) return devices.error();
  if (device.index < 0 || static_cast<size_t>(device.index) >= devices->size()) {
    return Status(ErrorCode::kNotFound, fmt::format("GPU {} was asked for and this machine has {}; name one of 0..{}", device.index,
                                                    devices->size(), devices->size() - 1));
  }
  const Result<CudaLimits> limits = MeasureCudaLimits(device);
  if (!limits) return limits.error();
  const VersionInfo version = Version();
  const CudaDeviceInfo& info = (*devices)[static_cast<size_t>(device.index)];
  const std::string gpu =
      fmt::format("{}, {} SMs, driver {}.{}", info.name, info.sms, info.driver_version / 1000, info.driver_version % 1000 / 10);
  return Report{std::string(version.version), std::string(version.commit), CpuName(), CpuIsa(), gpu, 1, {}, *limits, {}};
}

Json ToJson(const Report& report) {
  Json rows = Json::array();
  for (const Row& row : report.rows) {
    Json object = Json::object();
    const auto put = [&](const char* name, const auto& field) { object[name] = field; };
    VisitFields(row, put);
    if (row.weights_us > 0) VisitSplit(row, put);
    rows.push_back(std::move(object));
  }
  return {{"schema", kSchema},
          {"version", report.version},
          {"commit", report.commit},
          {"cpu", report.cpu},
          {"isa", report.isa},
          {"gpu", report.gpu},
          {"threads", report.threads},
          {"limits",
           {{"read_gb_per_s", report.limits.read_bandwidth / 1e9},
            {"bf16_dot_gflop_per_s", report.limits.bf16_dot / 1e9},
            {"int8_dot_gop_per_s", report.limits.int8_dot / 1e9},
            {"fp32_fma_gflop_per_s", report.limits.fp32_fma / 1e9},
            {"gpu_read_gb_per_s", report.cuda_limits.read_bandwidth / 1e9},
            {"gpu_bf16_gflop_per_s", report.cuda_limits.bf16_matmul / 1e9}}},
          {"rows", rows}};
}

Result<Report> ReadReport(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in)
    return Status(ErrorCode::kNotFound, fmt::format("{} cannot be opened; give a file that `billfish bench --json` wrote", file.string()));
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const Json document = Json::parse(text, nullptr, false);
  if (!document.is_object() || document.value("schema", Json()) != kSchema || !document.contains("rows") || !document["rows"].is_array() ||
      !document.contains("limits") || !document["limits"].is_object()) {
    return Status(
        ErrorCode::kCorruptFile,
        fmt::format("{} is no benchmark report; give a file that `billfish bench --json` wrote (schema {})", file.string(), kSchema));
  }
  Report report;
  const Json& limits = document["limits"];
  Status status;
  const auto take = [&](const Json& object, const char* name, auto& field) {
    if (status.ok()) status = TakeField(object, name, field, file);
  };
  take(document, "version", report.version);
  take(document, "commit", report.commit);
  take(document, "cpu", report.cpu);
  take(document, "isa", report.isa);
  take(document, "gpu", report.gpu);
  take(document, "threads", report.threads);
  take(limits, "read_gb_per_s", report.limits.read_bandwidth);
  take(limits, "bf16_dot_gflop_per_s", report.limits.bf16_dot);
  take(limits, "int8_dot_gop_per_s", report.limits.int8_dot);
  take(limits, "fp32_fma_gflop_per_s", report.limits.fp32_fma);
  take(limits, "gpu_read_gb_per_s", report.cuda_limits.read_bandwidth);
  take(limits, "gpu_bf16_gflop_per_s", report.cuda_limits.bf16_matmul);
  for (double* value : {&report.limits.read_bandwidth, &report.limits.bf16_dot, &report.limits.int8_dot, &report.limits.fp32_fma,
                        &report.cuda_limits.read_bandwidth, &report.cuda_limits.bf16_matmul})
    *value *= 1e9;
  for (const Json& object : document["rows"]) {
    Row row;
    const auto take_field = [&](const char* name, auto& field) { take(object, name, field); };
    VisitFields(row, take_field);
    if (object.contains("weights_us")) VisitSplit(row, take_field);
    report.rows.push_back(std::move(row));
  }
  if (!status.ok()) return status;
  return report;
}

std::string ToText(const Report& report) {
  std::string text = !report.gpu.empty()
                         ? fmt::format("{}: read {:.0f} GB/s, bf16 matmul {:.0f} TFLOP/s (cublasLt)\n\n", report.gpu,
                                       report.cuda_limits.read_bandwidth / 1e9, report.cuda_limits.bf16_matmul / 1e12)
                         : fmt::format("{}, {} thread{}: read {:.1f} GB/s, bf16 dot {:.0f}, int8 dot {:.0f}, fp32 {:.0f} GFLOP/s\n\n",
                                       report.cpu, report.threads, report.threads == 1 ? "" : "s", report.limits.read_bandwidth / 1e9,
                                       report.limits.bf16_dot / 1e9, report.limits.int8_dot / 1e9, report.limits.fp32_fma / 1e9);
  const bool compared = std::any_of(report.rows.begin(), report.rows.end(), [](const Row& row) { return row.baseline_us > 0; });
  const char* layout = "{:<8} {:<16} {:<14} {:<6} {:>5} {:>12} {:>8} {:>9} {:>10} {:>7} {:>7} {:>8}  {:<15} {}\n";
  text += fmt::format(fmt::runtime(layout), "op", "shape", "scheme", "mode", "M", "median us", "GB/s", "GFLOP/s", "tokens/s", "of lim",
                      "spread", compared ? "vs bf16" : "", "limit", "kernel");
  for (const Row& row : report.rows) {
    text +=
        fmt::format(fmt::runtime(layout), row.op, row.name, row.scheme, row.mode, row.M, fmt::format("{:.1f}", row.median_us),
                    fmt::format("{:.1f}", row.gb_per_s), fmt::format("{:.0f}", row.gflop_per_s), fmt::format("{:.1f}", row.tokens_per_s),
                    fmt::format("{:.3f}", row.fraction), fmt::format("{:.1f}%", 100 * row.spread),
                    row.baseline_us > 0 ? fmt::format("{:.2f}x", row.baseline_us / row.median_us) : "", row.limit, row.kernel);
  }
  for (const Row& row : report.rows) {
    const double step = row.weights_us + row.attention_us + row.other_us;
    if (step <= 0) continue;
    const auto share = [&](double us) { return fmt::format("{:.1f} us ({:.0f}%)", us, 100 * us / step); };
    text += fmt::format("\n{} of {}, M {}, {}: weights {}, attention {}, other {}; {:.1f} us in all", row.op, row.name, row.M, row.mode,
                        share(row.weights_us), share(row.attention_us), share(row.other_us), step);
  }
  if (text.back() != '\n') text += '\n';
  return text;
}

}  // namespace billfish::bench
