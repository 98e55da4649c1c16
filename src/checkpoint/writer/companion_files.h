// The files of a model folder that quantising does not touch: tokenizer, chat template, generation settings, licence, model code.
#pragma once

#include <filesystem>

#include "billfish/status.h"

namespace billfish::checkpoint {

/// Copies them from a checkpoint's folder. Links are followed. Errors: kIo.
Status CopyCompanionFiles(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace billfish::checkpoint
