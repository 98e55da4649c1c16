"""compressed-tensors pack-quantized with activation ordering (weight_g_idx).

Newer releases no longer write it, so this needs compressed-tensors 0.10.2 (torch 2.15.0). Stored tensors come from its
PackedQuantizationCompressor, expected weights from its decompress_weight with scales widened to fp32.
Run: python make_compressed_tensors_actorder.py
"""

import compressed_tensors
import torch
from compressed_tensors.compressors.quantized_compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs

from golden_io import save_case, weights

ARGS = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32, symmetric=True, actorder="group")
SHAPES = {"model.layers.0.self_attn.q_proj": (24, 256), "model.layers.0.mlp.down_proj": (40, 128)}


def scattered_groups(k, seed):
    """Every column gets a group, 32 columns a group, in a scattered order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(k, dtype=torch.int32)
    order[torch.randperm(k, generator=generator)] = torch.arange(k, dtype=torch.int32) // 32
    return order


tensors, expected = {}, {}
compressor = PackedQuantizationCompressor()
for seed, (module, (n, k)) in enumerate(SHAPES.items()):
    w = weights(200 + seed, n, k)
    g_idx = scattered_groups(k, seed)
    by_group = w[:, torch.argsort(g_idx, stable=True)].reshape(n, -1, 32)
    scale = (by_group.abs().amax(2) / 7.5).to(torch.bfloat16)
    zero = torch.zeros(scale.shape, dtype=torch.int8)
    stored = compressor.compress_weight(w, scale.float(), ARGS, zero, g_idx)
    widened = dict(stored, weight_scale=scale.float(), weight_g_idx=g_idx)
    expected[module] = compressor.decompress_weight(widened, ARGS)
    tensors.update({f"{module}.{key}": value for key, value in stored.items()})
    tensors[f"{module}.weight_scale"] = scale
    tensors[f"{module}.weight_g_idx"] = g_idx

config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "quantization_config": {
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": ARGS.model_dump(mode="json", exclude_none=True)}},
        "format": "pack-quantized",
        "ignore": ["lm_head"],
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    },
}
save_case("ct-pack-int4-actorder", tensors, expected, config, "compressed-tensors", compressed_tensors.__version__,
          "PackedQuantizationCompressor.decompress_weight")
