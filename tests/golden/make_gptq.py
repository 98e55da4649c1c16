"""GPTQ checkpoints packed by GPTQModel 7.7.0 (torch 2.15.0), and one packed by AutoGPTQ 0.7.1.

Proves packing order, the zero points of both versions (a zero of 0 makes GPTQModel's v1 subtraction borrow from the next nibble),
act-order, per-channel and bf16 scales. Expected weights come from TorchLinear._dequantize_weight_cached_248, which dequantize_weight
calls, with scales widened to fp32; for AutoGPTQ, whose unpacking needs a GPU, from the codes, zeros and scales that went into its pack().
Run: python make_gptq.py [path of the unpacked AutoGPTQ package]
"""

import sys
import types

import gptqmodel
import torch
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module, convert_gptq_v2_to_v1_format_module

from golden_io import save_case

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"]


def parts(seed, n, k, group, symmetric, smallest_zero=0):
    """Random codes, fp16 scales and zeros, and the weight they stand for."""
    generator = torch.Generator().manual_seed(seed)
    groups = k // group
    q = torch.randint(0, 16, (k, n), generator=generator)
    scales = (torch.rand(groups, n, generator=generator) * 0.01 + 0.001).half().float()
    zeros = torch.full((groups, n), 8) if symmetric else torch.randint(smallest_zero, 16, (groups, n), generator=generator)
    return q, scales, zeros


def linear_of(q, scales, zeros, g_idx):
    k, n = q.shape
    linear = torch.nn.Linear(k, n, bias=False)
    linear.weight.data = ((q - zeros[g_idx]) * scales[g_idx]).t().contiguous()
    return linear


def save(case, tensors, expected, quantization, software, version, function):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "quantization_config": quantization}
    save_case(case, tensors, expected, config, software, version, function)


def gptqmodel_case(case, version, group, symmetric, shuffle=False, scale_dtype=torch.float16):
    tensors, expected = {}, {}
    for i, (module, (n, k)) in enumerate(zip(MODULES, [(32, 256), (64, 128)])):
        g = k if group == -1 else group
        q, scales, zeros = parts(300 + i, n, k, g, symmetric)
        g_idx = torch.arange(k) // g
        if shuffle:
            g_idx = g_idx[torch.randperm(k, generator=torch.Generator().manual_seed(i))]
        packed = TorchLinear(bits=4, group_size=group, sym=symmetric, desc_act=shuffle, in_features=k, out_features=n, register_buffers=True,
                             pack_dtype=torch.int32)
        packed.pack_original(linear_of(q, scales, zeros, g_idx), scales.t().clone(), zeros.t().float().clone(), g_idx.to(torch.int32))
        packed.scales = packed.scales.to(scale_dtype)  # a checkpoint saved from a bf16 model has bf16 scales
        half_scales = packed.scales.clone()
        if version == 1:
            convert_gptq_v2_to_v1_format_module(packed, types.SimpleNamespace(bits=4, pack_dtype=torch.int32))
        stored = {name: getattr(packed, name).clone() for name in ("qweight", "qzeros", "g_idx")}
        stored["scales"] = half_scales
        if version == 1:
            convert_gptq_v1_to_v2_format_module(packed, bits=4, pack_dtype=torch.int32)
        packed.scales = half_scales.float()
        expected[module] = packed._dequantize_weight_cached_248().t()
        tensors.update({f"{module}.{key}": value for key, value in stored.items()})
    quantization = {"bits": 4, "group_size": group, "desc_act": shuffle, "sym": symmetric, "lm_head": False, "quant_method": "gptq",
                    "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "pack_dtype": "int32",
                    "meta": {"quantizer": [f"gptqmodel:{gptqmodel.__version__}"]}}
    save(case, tensors, expected, quantization, "gptqmodel", gptqmodel.__version__, "TorchLinear._dequantize_weight_cached_248")


gptqmodel_case("gptq-v1-sym-g128", 1, 128, True)
gptqmodel_case("gptq-v1-asym-g32", 1, 32, False)
gptqmodel_case("gptq-v2-asym-g32", 2, 32, False)
gptqmodel_case("gptq-actorder-g32", 1, 32, True, shuffle=True)
gptqmodel_case("gptq-channel", 1, -1, True)
gptqmodel_case("gptq-v2-actorder-bf16", 2, 64, False, shuffle=True, scale_dtype=torch.bfloat16)

if len(sys.argv) > 1:
    package = types.ModuleType("auto_gptq")  # its __init__ imports GPU extensions; the packer itself needs none
    package.__path__ = [sys.argv[1]]
    sys.modules["auto_gptq"] = package
    for name in ("nn_modules", "nn_modules.qlinear"):
        child = types.ModuleType(f"auto_gptq.{name}")
        child.__path__ = [f"{sys.argv[1]}/{name.replace('.', '/')}"]
        sys.modules[f"auto_gptq.{name}"] = child
    sys.modules["exllama_kernels"] = types.SimpleNamespace(make_q4=None, q4_matmul=None)
    from auto_gptq.nn_modules.qlinear.qlinear_exllama import QuantLinear

    tensors, expected = {}, {}
    for i, (module, (n, k)) in enumerate(zip(MODULES, [(32, 256), (64, 128)])):
        q, scales, zeros = parts(400 + i, n, k, 64, False, smallest_zero=1)
        g_idx = torch.arange(k) // 64
        packed = QuantLinear(4, 64, k, n, False)
        packed.pack(linear_of(q, scales, zeros, g_idx), scales.t().clone(), zeros.t().float().clone(), g_idx.to(torch.int32))
        tensors.update({f"{module}.{name}": getattr(packed, name) for name in ("qweight", "qzeros", "scales", "g_idx")})
        expected[module] = ((q - zeros[g_idx]) * packed.scales.float()[g_idx]).t()
    quantization = {"bits": 4, "group_size": 64, "desc_act": False, "sym": False, "quant_method": "gptq", "damp_percent": 0.01}
    save("gptq-v1-asym-autogptq", tensors, expected, quantization, "auto_gptq", "0.7.1", "QuantLinear.pack, inverse of its inputs")
