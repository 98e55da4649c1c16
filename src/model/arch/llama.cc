// Llama 1 to 3 and what shares its form (Mistral without a window is exported so too).
#include "core/status_macros.h"
#include "model/architecture.h"

namespace billfish::model {

const Architecture kLlama = {
    .name = "LlamaForCausalLM",
    .experts = {},
    .configure = [](const ConfigReader& json, ModelConfig&) { return RequireSilu(json); },
};

}  // namespace billfish::model
