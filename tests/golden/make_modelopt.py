"""ModelOpt NVFP4 checkpoints with nvidia-modelopt 0.47.0 (torch 2.15.0).

Stored tensors and expected weights come from NVFP4QTensor.quantize and .dequantize. The cases: W4A4 (with input_scale), W4A16 (without),
a folder that has only hf_quant_config.json, gate and up of one MLP with different weight_scale_2, and a global scale that is a power of two,
where every product is exact and equality must be bitwise. Run: python make_modelopt.py
"""

import modelopt
import torch
from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

from golden_io import save_case, weights

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]


def make(case, algorithm, scale_2=None, input_scale=False, only_hf_quant_config=False):
    tensors, expected = {}, {}
    for i, (module, (n, k)) in enumerate(zip(MODULES, [(24, 256), (40, 128), (40, 128)])):
        w = weights(600 + i, n, k) * (1 + 4 * i)  # gate and up differ, so their global scales do
        global_scale = NVFP4QTensor.get_weights_scaling_factor_2(w) if scale_2 is None else torch.tensor(scale_2)
        packed, scale, _ = NVFP4QTensor.quantize(w, 16, weights_scaling_factor_2=global_scale)
        expected[module] = packed.dequantize(torch.float32, scale=scale, double_scale=global_scale, block_sizes={-1: 16})
        tensors[f"{module}.weight"] = packed._quantized_data
        tensors[f"{module}.weight_scale"] = scale
        tensors[f"{module}.weight_scale_2"] = global_scale
        if input_scale:
            tensors[f"{module}.input_scale"] = torch.tensor(0.0041)
    tensors["lm_head.weight"] = weights(8, 24, 32).to(torch.bfloat16)
    expected["lm_head"] = tensors["lm_head.weight"]
    base = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    producer = {"name": "modelopt", "version": modelopt.__version__}
    if only_hf_quant_config:
        quantization = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": ["lm_head"]}
        save_case(case, tensors, expected, {"producer": producer, "quantization": quantization}, "nvidia-modelopt", modelopt.__version__,
                  "NVFP4QTensor.dequantize", config_name="hf_quant_config.json")
        save_case(case, tensors, expected, base, "nvidia-modelopt", modelopt.__version__, "NVFP4QTensor.dequantize")
        return
    base["quantization_config"] = {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], "producer": producer}
    save_case(case, tensors, expected, base, "nvidia-modelopt", modelopt.__version__, "NVFP4QTensor.dequantize")


make("modelopt-nvfp4", "NVFP4", input_scale=True)
make("modelopt-w4a16-nvfp4", "W4A16_NVFP4")
make("modelopt-nvfp4-hf-quant-config", "NVFP4", input_scale=True, only_hf_quant_config=True)
make("modelopt-nvfp4-pow2", "W4A16_NVFP4", scale_2=2.0**-9)
