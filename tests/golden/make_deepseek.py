"""DeepSeek style checkpoints, decoded by transformers 5.23.0's own fine-grained FP8 code (torch 2.15.0).

V3: E4M3 weights with fp32 weight_scale_inv per 128 x 128, including partial tiles (N = 144, K = 192). V4: routed experts as E2M1 pairs in I8
with E8M0 scales per 32, dense layers as E4M3 with E8M0 scales per 128 x 128 (N = 136, K = 160), unprefixed names. Every E8M0 byte that keeps the product
finite and every E4M3 code appears. Run: python make_deepseek.py
"""

import torch
import transformers
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, _dequantize_fp8_weight

from golden_io import save_case, weights


def fp8_block(w, scale_dtype):
    n, k = w.shape
    rows, cols = -(-n // 128), -(-k // 128)
    padded = torch.nn.functional.pad(w, (0, cols * 128 - k, 0, rows * 128 - n))
    amax = padded.reshape(rows, 128, cols, 128).abs().amax((1, 3))
    scale = amax / 448
    if scale_dtype == torch.float8_e8m0fnu:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    expanded = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:n, :k]
    return (w / expanded).to(torch.float8_e4m3fn), scale.to(scale_dtype)


def save(case, tensors, expected, config, function):
    save_case(case, tensors, expected, config, "transformers", transformers.__version__, function)


tensors, expected = {}, {}
for i, (module, shape) in enumerate({"model.layers.0.self_attn.o_proj": (8, 256), "model.layers.0.mlp.down_proj": (144, 192)}.items()):
    w, scale = fp8_block(weights(700 + i, *shape), torch.float32)
    if i == 0:
        codes = torch.arange(256, dtype=torch.uint8)
        codes[[0x7F, 0xFF]] = 0  # NaN
        w.view(torch.uint8)[0] = codes
    tensors[f"{module}.weight"], tensors[f"{module}.weight_scale_inv"] = w, scale
    expected[module] = _dequantize_fp8_weight(w, scale, [128, 128], torch.float32)
quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
save("deepseek-v3-fp8", tensors, expected, {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "quantization_config": quantization},
     "integrations.finegrained_fp8._dequantize_fp8_weight")

tensors, expected = {}, {}
decode = Fp8Dequantize(None)
for expert in range(2):
    for name, (n, k) in {"w1": (32, 64), "w3": (32, 64), "w2": (64, 32)}.items():
        generator = torch.Generator().manual_seed(800 + expert + n)
        module = f"layers.0.ffn.experts.{expert}.{name}"
        packed = torch.randint(0, 256, (n, k // 2), generator=generator, dtype=torch.uint8).view(torch.int8)
        exponents = torch.randint(100, 130, (n, k // 32), generator=generator, dtype=torch.uint8)
        first = 64 * (3 * expert + {"w1": 0, "w3": 1, "w2": 2}[name])  # 64 scales a matrix, 6 matrices
        if first < 250:
            exponents.view(-1)[: 250 - first] = torch.arange(first, min(first + 64, 250), dtype=torch.uint8)  # 6 * 2^(249 - 127) is finite
        scale = exponents.view(torch.float8_e8m0fnu)
        tensors[f"{module}.weight"], tensors[f"{module}.scale"] = packed, scale
        expected[module] = decode._dequantize_one(packed, scale, torch.float32)
w, scale = fp8_block(weights(810, 136, 160), torch.float8_e8m0fnu)
tensors["layers.0.attn.wq_a.weight"], tensors["layers.0.attn.wq_a.scale"] = w, scale
# Not _dequantize_one: it divides the shape by the scale grid, so that 136 rows in 2 tiles would get blocks of 68.
expected["layers.0.attn.wq_a"] = _dequantize_fp8_weight(w, scale, [128, 128], torch.float32)
quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}
save("deepseek-v4-fp4", tensors, expected,
     {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "expert_dtype": "fp4", "quantization_config": quantization},
     "integrations.finegrained_fp8: Fp8Dequantize._dequantize_one (experts), _dequantize_fp8_weight (dense)")
