#include "model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/status_macros.h"

namespace billfish::model {
namespace {

using std::numbers::pi;

Status ReadYarn(const ConfigReader& config, RopeConfig& rope) {
  BILLFISH_ASSIGN_OR_RETURN(rope.beta_fast, config.Number("beta_fast", 32.0));
  BILLFISH_ASSIGN_OR_RETURN(rope.beta_slow, config.Number("beta_slow", 1.0));
  BILLFISH_ASSIGN_OR_RETURN(rope.truncate, config.Bool("truncate", true));
  BILLFISH_ASSIGN_OR_RETURN(const double mscale, config.Number("mscale", 0.0));
  BILLFISH_ASSIGN_OR_RETURN(const double mscale_all_dim, config.Number("mscale_all_dim", 0.0));
  const auto scale_of = [&](double m) { return rope.factor <= 1 ? 1.0 : 0.1 * m * std::log(rope.factor) + 1.0; };
  const double usual = mscale != 0 && mscale_all_dim != 0 ? scale_of(mscale) / scale_of(mscale_all_dim) : scale_of(1.0);
  BILLFISH_ASSIGN_OR_RETURN(rope.attention_factor, config.Number("attention_factor", usual));
  return OkStatus();
}

// Dimension at which a rotation completes `turns` within the original context.
double CorrectionDim(double turns, const RopeConfig& rope) {
  return static_cast<double>(rope.dim) * std::log(static_cast<double>(rope.original_max_position) / (turns * 2 * pi)) /
         (2 * std::log(rope.theta));
}

void ScaleYarn(const RopeConfig& rope, std::vector<float>& frequencies) {
  double low = CorrectionDim(rope.beta_fast, rope), high = CorrectionDim(rope.beta_slow, rope);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.dim - 1));
  if (low == high) high += 0.001;  // as the source: no division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double extrapolated = frequencies[i], interpolated = extrapolated / rope.factor;
    frequencies[i] = static_cast<float>(interpolated * ramp + extrapolated * (1 - ramp));
  }
}

void ScaleLlama3(const RopeConfig& rope, std::vector<float>& frequencies) {
  const double original = static_cast<double>(rope.original_max_position);
  for (float& frequency : frequencies) {
    const double wavelength = 2 * pi / frequency;
    if (wavelength > original / rope.low_freq_factor) {
      frequency = static_cast<float>(frequency / rope.factor);
    } else if (wavelength >= original / rope.high_freq_factor) {
      const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      frequency = static_cast<float>((1 - smooth) * frequency / rope.factor + smooth * frequency);
    }
  }
}

}  // namespace

Result<RopeConfig> ReadRope(const ConfigReader& config, int64_t dim) {
  RopeConfig rope;
  rope.dim = dim;
  static const nlohmann::json kEmpty = nlohmann::json::object();
  const char* key = config.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const nlohmann::json& inner = config.Has(key) ? config.Get(key) : kEmpty;
  if (!inner.is_object()) return config.Wrong(key, "an object");
  const ConfigReader scaling(inner, fmt::format("config.json, {}", key));
  BILLFISH_ASSIGN_OR_RETURN(const double outer_theta, config.Number("rope_theta", 10000.0));
  BILLFISH_ASSIGN_OR_RETURN(rope.theta, scaling.Number("rope_theta", outer_theta));
  if (rope.theta <= 0) return scaling.Wrong("rope_theta", "positive");
  for (const ConfigReader* reader : {&config, &scaling}) {
    BILLFISH_ASSIGN_OR_RETURN(const double part, reader->Number("partial_rotary_factor", 1.0));
    if (part != 1.0) {
      return Status(ErrorCode::kUnsupported, fmt::format("config.json: partial_rotary_factor is {}; only 1 is implemented here", part));
    }
  }
  const char* type_key = scaling.Has("rope_type") ? "rope_type" : "type";
  BILLFISH_ASSIGN_OR_RETURN(const std::string type, scaling.Text(type_key, "default"));
  if (type == "default") return rope;
  BILLFISH_ASSIGN_OR_RETURN(rope.factor, scaling.Number("factor"));
  if (rope.factor <= 0) return scaling.Wrong("factor", "positive");
  if (type == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
    return rope;
  }
  BILLFISH_ASSIGN_OR_RETURN(const int64_t position, config.Int("max_position_embeddings", 1, 2048));
  BILLFISH_ASSIGN_OR_RETURN(rope.original_max_position, scaling.Int("original_max_position_embeddings", 1, position));
  if (type == "llama3") {
    rope.kind = RopeConfig::Kind::kLlama3;
    BILLFISH_ASSIGN_OR_RETURN(rope.low_freq_factor, scaling.Number("low_freq_factor"));
    BILLFISH_ASSIGN_OR_RETURN(rope.high_freq_factor, scaling.Number("high_freq_factor"));
    if (rope.low_freq_factor <= 0 || rope.high_freq_factor <= rope.low_freq_factor)
      return scaling.Wrong("high_freq_factor", "above low_freq_factor > 0");
    return rope;
  }
  if (type == "yarn") {
    rope.kind = RopeConfig::Kind::kYarn;
    BILLFISH_RETURN_IF_ERROR(ReadYarn(scaling, rope));
    return rope;
  }
  return Status(ErrorCode::kUnsupported,
                fmt::format("config.json: the rope type \"{}\" is not implemented; default, linear, llama3 and yarn are", type));
}

std::vector<float> RopeFrequencies(const RopeConfig& rope) {
  std::vector<float> frequencies(static_cast<size_t>(rope.dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(rope.theta), exponent);
  }
  switch (rope.kind) {
    case RopeConfig::Kind::kDefault:
      break;
    case RopeConfig::Kind::kLinear:
      for (float& frequency : frequencies) frequency = static_cast<float>(frequency / rope.factor);
      break;
    case RopeConfig::Kind::kLlama3:
      ScaleLlama3(rope, frequencies);
      break;
    case RopeConfig::Kind::kYarn:
      ScaleYarn(rope, frequencies);
      break;
  }
  return frequencies;
}

}  // namespace billfish::model
