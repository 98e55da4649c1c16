#include "cli/options.h"

#include <fmt/format.h>

#include <charconv>

#include "billfish/context.h"

namespace billfish::cli {
namespace {

bool ParseInteger(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

const CLI::Validator kDeviceName(
    [](const std::string& text) {
      int64_t index = 0;
      const bool numbered =
          text.rfind("cuda:", 0) == 0 && ParseInteger(std::string_view(text).substr(5), index) && index >= 0 && index < 1024;
      return text == "cpu" || text == "cuda" || numbered ? std::string() : fmt::format("'{}' is no device; give cpu, cuda or cuda:N", text);
    },
    "DEVICE");

Device ParseDevice(const std::string& text) {
  int64_t index = 0;
  if (text.size() > 5) ParseInteger(std::string_view(text).substr(5), index);
  return {text == "cpu" ? Device::Kind::kCpu : Device::Kind::kCuda, static_cast<int>(index)};
}

DType ParseActivations(const std::string& text) { return text == "f32" ? DType::kF32 : text == "f16" ? DType::kF16 : DType::kBF16; }

int ThreadsOr(int threads) { return threads > 0 ? threads : DefaultThreads(); }
int Execution::Threads() const { return ThreadsOr(threads); }
std::string Execution::Place() const { return device == "cpu" ? fmt::format("{} threads", Threads()) : device; }
Mode Execution::ParsedMode() const { return mode == "fast" ? Mode::kFast : Mode::kExact; }
DType Execution::Activations() const { return ParseActivations(activations); }

void AddExecution(CLI::App* verb, Execution& execution) {
  verb->add_option("-t,--threads", execution.threads, "Threads; default BILLFISH_THREADS or every CPU this process may use")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  verb->add_option("--kernel", execution.kernel, "Insist on this kernel (`billfish explain` lists them)")->type_name("NAME");
  verb->add_option("--mode", execution.mode, "exact: activations keep their bits; fast: activations are rounded to int8, one scale per 32")
      ->check(CLI::IsMember({"exact", "fast"}))
      ->capture_default_str();
  verb->add_option("--activations", execution.activations, "Precision of the activations that the matrices read")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
}

void AddDevice(CLI::App* verb, Execution& execution) {
  verb->add_option("--device", execution.device, "cpu, cuda or cuda:N")->check(kDeviceName)->capture_default_str();
}

CLI::Option* AddPanelCache(CLI::App* verb, std::string& folder) {
  return verb
      ->add_option("--panel-cache", folder,
                   "Keep packed weights in this folder, about as large as the model; later runs map them instead of reading the model. "
                   "May be deleted at any time")
      ->type_name("DIR");
}

std::vector<std::string> SplitList(const std::string& text) {
  std::vector<std::string> items;
  std::string item;
  for (const char c : text + ",") {
    if (c == ',') {
      if (!item.empty()) items.push_back(item);
      item.clear();
    } else if (c != ' ') {
      item += c;
    }
  }
  return items;
}

Result<std::vector<int64_t>> ParseCounts(const std::string& text, const std::string& flag, int64_t limit) {
  std::vector<int64_t> counts;
  for (const std::string& item : SplitList(text)) {
    int64_t value = 0;
    if (!ParseInteger(item, value) || value < 1 || value > limit) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("{} got '{}'; give whole numbers from 1 to {}, with commas between them", flag, item, limit));
    }
    counts.push_back(value);
  }
  if (counts.empty())
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} got no number; give at least one, for example 1,16", flag));
  return counts;
}

Result<std::vector<Shape>> ParseShapes(const std::string& text, const std::string& flag) {
  std::vector<Shape> shapes;
  for (const std::string& item : SplitList(text)) {
    const size_t x = item.find('x');
    Shape shape{};
    if (x == std::string::npos || !ParseInteger(std::string_view(item).substr(0, x), shape.N) ||
        !ParseInteger(std::string_view(item).substr(x + 1), shape.K) || shape.N < 1 || shape.K < 1 || shape.N > (1 << 20) ||
        shape.K > (1 << 20)) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("{} got '{}'; give ROWSxCOLUMNS of the weight, for example 4096x4096, each up to 1048576", flag, item));
    }
    shapes.push_back(shape);
  }
  if (shapes.empty()) return Status(ErrorCode::kInvalidArgument, fmt::format("{} got no shape; give for example 4096x4096", flag));
  return shapes;
}

Result<int64_t> ParseSize(const std::string& text, const std::string& flag) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string unit(end, text.data() + text.size());
  double factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  if (unit == "KB") factor = 1e3;
  if (unit == "MB") factor = 1e6;
  if (unit == "GB") factor = 1e9;
  if (unit == "KiB") factor = 1024.0;
  if (unit == "MiB") factor = 1024.0 * 1024;
  if (unit == "GiB") factor = 1024.0 * 1024 * 1024;
  if (error != std::errc() || factor == 0 || !(value > 0) || value * factor > 9e15) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} got '{}'; give a size such as 500MB, 5GB or 4GiB (units B, KB, MB, GB, KiB, MiB, GiB)", flag, text));
  }
  return static_cast<int64_t>(value * factor);
}

}  // namespace billfish::cli
