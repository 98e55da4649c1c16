// Where the tiles of one slab take their operands from, and what they fetch ahead.
#pragma once

#include <cstdint>

namespace billfish::cpu {
namespace {

enum class Source : uint8_t {
  kStream,         ///< expand the packed codes in registers
  kStreamAgain,    ///< the same as one of several tiles, which fetch the next slabs together
  kStreamAndKeep,  ///< the same, and leave the operands in scratch
  kKept,           ///< read the operands another tile left in scratch
};

}  // namespace
}  // namespace billfish::cpu
