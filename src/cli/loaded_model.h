// A model folder as the text verbs need it: weights, tokenizer, and a progress bar while they load.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "billfish/generate.h"
#include "billfish/model.h"
#include "billfish/tokenizer.h"
#include "cli/json.h"
#include "cli/options.h"

namespace billfish::cli {

struct LoadedModel {
  Model model;
  std::optional<Tokenizer> tokenizer;  ///< present if it was asked for
  double load_seconds = 0;
};

/// kCancelled on Ctrl-C while loading. `max_context` 0 = the model's own.
Result<LoadedModel> LoadModel(const std::string& path, const Execution& execution, bool with_tokenizer, int64_t max_context = 0);

/// One line on standard error, a second one with the reason where an entry was not used or not written.
void SayWhatTheCacheDid(const std::string& folder, const PanelStore::Report& report);

/// "mxfp4 [2048 x 1024] by w4a16_..., because ...": one line for each kernel that the model uses, with the bytes it serves.
std::string KernelsText(const Model& model, const Execution& execution);
/// Adds device, threads, mode, activations and kernels ([{kernel, scheme, matrices, bytes, reason}]) to a document.
void DescribeExecution(Json& document, const Model& model, const Execution& execution, int threads);

}  // namespace billfish::cli
