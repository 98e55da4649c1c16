// What packed weights of a checkpoint belong to.
#pragma once

#include <string>

#include "billfish/checkpoint.h"

namespace billfish::model {

/// Text that is equal for the same checkpoint wherever it lies, and differs once a weight file was written again, its header or the
/// configuration changed, or another version of billfish reads it. Costs one read of the headers.
std::string IdentityOf(const Checkpoint& checkpoint);

}  // namespace billfish::model
