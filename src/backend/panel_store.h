// What a PanelStore does for a kernel: find a matrix's packed form, or keep one.
//
//   offset 0      FileHeader (256 bytes)
//   256           key: identity, line feed, name of the entry
//   image_begin   CpuWeight::image(), at a multiple of 4096
#pragma once

#include <optional>

#include "billfish/panel_store.h"
#include "billfish/scheme.h"
#include "cpu/cpu_weight.h"

namespace billfish::backend {

/// What panels do not tell of the PackedWeight that they were made from.
struct WeightFacts {
  QuantScheme scheme;
  bool act_order = false;
  size_t weight_bytes = 0;  ///< PackedWeight::bytes()
};

struct StoredPanels {
  WeightFacts facts;
  cpu::CpuWeight weight;
};

/// The entry, mapped, its checksum verified on `threads` threads; nothing where there is none that can be used.
std::optional<StoredPanels> FindPanels(const PanelEntry& entry, int threads);

/// Counts the entry, `bytes` of panels, as used. Apart from FindPanels because what is found may not suit the kernel that is chosen.
void CountMapped(const PanelEntry& entry, size_t bytes);

/// Writes the entry under a temporary name and renames it. Failure goes to the store's report.
void KeepPanels(const PanelEntry& entry, const WeightFacts& facts, const cpu::CpuWeight& weight, int threads);

}  // namespace billfish::backend
