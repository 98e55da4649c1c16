// Plain rows -> tiles (cuda/tile_layout.h): one block of threads a unit. The bytes come over the host's bus, far slower than this kernel
// moves them, so that it serves every layout by switches at run time and loads single bytes.
#include "cuda/pack_args.h"
#include "cuda/tile_codes.h"

namespace billfish::cuda {

/// A row of the unit's panel, as far as codes and scales ask.
struct PlainRow {
  const PackArgs& args;
  int64_t index;

  __device__ bool padding() const { return args.bases[index] < 0; }
  /// First column of the packed group of column k.
  __device__ int GroupStart(int k) const { return k & -args.layout.group; }
  /// Whether that group has a scale of the plain form: not in padding.
  __device__ bool HasGroup(int k) const { return !padding() && GroupStart(k) < args.K; }
  __device__ int64_t GroupAt(int k) const {
    return index * args.groups + static_cast<uint32_t>(GroupStart(k)) / static_cast<uint32_t>(args.group_columns);
  }

  /// The code of a column beyond K, or of a padding row: decodes to zero where it can.
  __device__ uint32_t PadCode(int k) const {
    if (args.layout.codes != TileCodes::kInt4) return 0;
    if (!args.layout.zeros) return 8;
    if (!HasGroup(k)) return 0;
    const uint32_t zero = args.zeros[GroupAt(k)];
    return zero < 15 ? zero : 15;
  }

  /// 4-bit codes of columns k (even) and k + 1, in the nibbles of a byte.
  __device__ uint32_t Nibbles(int k) const {
    uint32_t pair = 0;
    if (!padding() && k < args.K) {
      pair = args.codes[index * args.row_bytes + k / 2];
      if (k + 1 == args.K) pair = (pair & 15) | PadCode(k) << 4;
    } else {
      pair = PadCode(k) * 0x11;
    }
    if (args.layout.scale == TileScale::kE4M3 && HasGroup(k)) pair = CodesUnderE4M3(static_cast<uint8_t>(pair), args.scales[GroupAt(k)]);
    return pair;
  }

  /// 8- or 16-bit codes of columns k and k + 1, the smaller column low.
  template <class Code>
  __device__ uint32_t Pair(int k) const {
    if (padding()) return 0;
    const Code* codes = reinterpret_cast<const Code*>(args.codes + index * args.row_bytes);
    const uint32_t low = k < args.K ? codes[k] : 0, high = k + 1 < args.K ? codes[k + 1] : 0;
    return low | high << (8 * sizeof(Code));
  }

  __device__ void WriteScale(int k, uint8_t* out) const {
    const bool held = HasGroup(k);
    const int64_t from = held ? GroupAt(k) : 0;
    switch (args.layout.scale) {
      case TileScale::kNone:
        return;
      case TileScale::kE8M0:
        if (args.layout.wide_scales) {
          *out = held ? args.scales[from] : 127;
        } else {
          *out = held ? RebasedE8M0(args.scales[from], args.bases[index]) : static_cast<uint8_t>(kLargestE8M0);
        }
        return;
      case TileScale::kE4M3:
        *out = E5M3FromE4M3(held ? args.scales[from] : 0x38);
        return;
      case TileScale::kF32:
        *reinterpret_cast<uint32_t*>(out) = held ? reinterpret_cast<const uint32_t*>(args.scales)[from] : 0x3f800000u;
        return;
      default:
        break;
    }
    uint16_t bits = args.layout.scale == TileScale::kF16 ? 0x3c00 : 0x3f80;
    if (held) {
      bits = args.source_scale == TileScale::kE8M0   ? BF16FromE8M0(args.scales[from])
             : args.source_scale == TileScale::kE4M3 ? BF16FromE4M3(args.scales[from])
                                                     : reinterpret_cast<const uint16_t*>(args.scales)[from];
    }
    *reinterpret_cast<uint16_t*>(out) = bits;
  }
};

}  // namespace billfish::cuda

// Grid: (units, rows / 64), 128 threads.
extern "C" __global__ void __launch_bounds__(128) pack_tiles(billfish::cuda::PackArgs args) {
  using namespace billfish::cuda;
  const TileLayout& layout = args.layout;
  const int t = static_cast<int>(threadIdx.x);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kPanelRows;
  const int first_k = static_cast<int>(blockIdx.x) * layout.unit_k();
  uint8_t* unit = args.tiles + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * layout.unit_bytes();

  const int64_t row_of_thread = first_row + t / 32 * 16 + t % 32 / 4;
  for (int block = 0; block < layout.unit_k() / kBlockK; ++block) {
    uint32_t* words = reinterpret_cast<uint32_t*>(unit + block * layout.block_bytes());
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int k = first_k + block * kBlockK + plane * 16 + t % 4 * 2;
      uint32_t word = 0;
      for (int j = 0; j < 4; ++j) {
        const PlainRow row = {args, row_of_thread + j % 2 * 8};
        const int column = k + j / 2 * 8;
        if (layout.code_bits() == 4) {
          const uint32_t pair = row.Nibbles(column);
          word |= layout.codes == TileCodes::kInt4 ? Int4Bits(pair, j) : E2M1Bits(pair, j);
        } else if (layout.code_bits() == 8) {
          const uint32_t pair = row.Pair<uint8_t>(column);
          word |= ((pair & 0xff) | pair >> 8 << 16) << (j % 2 == 0 ? 8 : 0);
          if (j % 2 == 1) words[((plane / 2 * kTileThreads + t) * 2 + plane % 2) * 2 + j / 2] = word, word = 0;
        } else {
          words[(plane * kTileThreads + t) * 4 + j] = row.Pair<uint16_t>(column);
        }
      }
      if (layout.code_bits() == 4) words[t * kPlanes + plane] = word;
    }
  }

  for (int i = t; i < kPanelRows * layout.groups(); i += kTileThreads) {
    const int r = i / layout.groups(), g = i % layout.groups(), index = layout.scale_index(r, g);
    const PlainRow row = {args, first_row + r};
    const int k = first_k + g * layout.group;
    uint8_t* scales = unit + layout.code_bytes();
    row.WriteScale(k, scales + index * layout.scale_size());
    if (layout.zeros) scales[layout.scale_bytes() + index] = row.HasGroup(k) ? args.zeros[row.GroupAt(k)] : 0;
  }
}
