// The definition of the activations of moe.h, in fp64.
#pragma once

#include "billfish/moe.h"

namespace billfish::reference {

/// h = act(g, u); u is not read by an activation without gate.
double Activate(const Activation& activation, double g, double u);

}  // namespace billfish::reference
