"""AWQ checkpoints (version gemm) packed by AutoAWQ 0.2.9 (torch 2.15.0).

Stored tensors come from WQLinear_GEMM.from_linear, expected weights from dequantize_gemm with scales widened to fp32.
Run: python make_awq.py PATH_OF_THE_UNPACKED_PACKAGE (the folder that holds awq/)
"""

import sys
import types

import torch

from golden_io import save_case

for name in ("awq", "awq.modules", "awq.modules.linear", "awq.utils"):  # their __init__ import model code that is not needed
    module = types.ModuleType(name)
    module.__path__ = [f"{sys.argv[1]}/{name.replace('.', '/')}"]
    sys.modules[name] = module
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.utils.packing_utils import dequantize_gemm

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"]


def make(case, group):
    tensors, expected = {}, {}
    for i, (name, (n, k)) in enumerate(zip(MODULES, [(32, 256), (64, 128)])):
        generator = torch.Generator().manual_seed(500 + i)
        q = torch.randint(0, 16, (k, n), generator=generator)
        scales = (torch.rand(k // group, n, generator=generator) * 0.01 + 0.001).half().float()
        zeros = torch.randint(0, 16, (k // group, n), generator=generator)
        g_idx = torch.arange(k) // group
        linear = torch.nn.Linear(k, n, bias=False)
        linear.weight.data = ((q - zeros[g_idx]) * scales[g_idx]).t().contiguous()
        packed = WQLinear_GEMM.from_linear(linear, 4, group, scales=scales, zeros=zeros)
        tensors.update({f"{name}.{key}": getattr(packed, key) for key in ("qweight", "qzeros", "scales")})
        expected[name] = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales.float(), 4, group).t()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
                                "modules_to_not_convert": None},
    }
    save_case(case, tensors, expected, config, "autoawq", "0.2.9", "awq.utils.packing_utils.dequantize_gemm")


make("awq-gemm-g128", 128)
make("awq-gemm-g32", 32)
