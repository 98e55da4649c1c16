#include "cuda/kernel_list.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "cuda/gather_columns.h"
#include "cuda/grouped_decode.h"
#include "cuda/held_moe.h"
#include "cuda/linear_decode.h"
#include "cuda/linear_tile.h"
#include "cuda/linear_vector.h"
#include "cuda/model_ops.h"
#include "cuda/moe_pipeline.h"
#include "cuda/route.h"
#include "cuda/slot_sort.h"
#include "cuda/tile_weight.h"
#include "cuda/token_moe.h"

namespace billfish::cuda {
namespace {

// The read probe has one form.
void AppendReadProbeSpecs(Arch, std::vector<KernelSpec>& specs) { specs.push_back({.file = "read_probe.cu", .function = "read_probe"}); }

}  // namespace

std::span<const Arch> AllArchs() {
  static constexpr std::array<Arch, 7> kArchs = {Arch{8, 0}, Arch{8, 6}, Arch{8, 9}, Arch{9, 0}, Arch{10, 0}, Arch{10, 3}, Arch{12, 0}};
  return kArchs;
}

std::vector<KernelSpec> AllKernelSpecs(Arch arch) {
  std::vector<KernelSpec> specs;
  // One line a kernel: the Append function of its host file.
  AppendReadProbeSpecs(arch, specs);
  AppendGatherColumnsSpecs(arch, specs);
  AppendPackSpecs(arch, specs);
  AppendLinearDecodeSpecs(arch, specs);
  AppendLinearTileSpecs(arch, specs);
  AppendLinearVectorSpecs(arch, specs);
  AppendModelOpsSpecs(arch, specs);
  AppendRouteSpecs(arch, specs);
  AppendSlotSortSpecs(arch, specs);
  AppendGroupedDecodeSpecs(arch, specs);
  AppendHeldMoeSpecs(arch, specs);
  AppendTokenMoeSpecs(arch, specs);
  AppendMoeSpecs(arch, specs);
  const auto key = [](const KernelSpec& spec) { return std::tie(spec.file, spec.function, spec.defines); };
  std::sort(specs.begin(), specs.end(), [&](const KernelSpec& a, const KernelSpec& b) { return key(a) < key(b); });
  specs.erase(std::unique(specs.begin(), specs.end(), [&](const KernelSpec& a, const KernelSpec& b) { return key(a) == key(b); }),
              specs.end());
  return specs;
}

}  // namespace billfish::cuda
