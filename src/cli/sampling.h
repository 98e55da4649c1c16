// --temp, --top-k, --top-p, --min-p and --seed.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

#include "billfish/generate.h"

namespace billfish::cli {

struct SamplingFlags {
  float temperature = 0, top_p = 1, min_p = 0;
  int64_t top_k = 0;
  uint64_t seed = 0;

  SamplingOptions ToOptions() const { return {.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p, .seed = seed}; }
};

inline void AddSampling(CLI::App* verb, SamplingFlags& flags) {
  verb->add_option("--temp", flags.temperature, "Temperature; 0 always takes the most likely token")->capture_default_str();
  verb->add_option("--top-k", flags.top_k, "Draw from the k most likely tokens; 0 = all")->capture_default_str();
  verb->add_option("--top-p", flags.top_p, "Draw from the most likely tokens that make up this probability")->capture_default_str();
  verb->add_option("--min-p", flags.min_p, "Draw from tokens at least this fraction as likely as the most likely one")
      ->capture_default_str();
  verb->add_option("--seed", flags.seed, "The same seed draws the same text")->capture_default_str();
}

}  // namespace billfish::cli
