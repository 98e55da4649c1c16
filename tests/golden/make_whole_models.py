"""Whole models that transformers 5.23.0 loads, decodes and runs by itself (compressed-tensors 0.20.0, torch 2.15.0).

Proves names, config and tensors together: a Qwen3-MoE of one layer, stored one expert at a time as model folders have it, is compressed to
int4 by compressed-tensors and to FP8 in blocks of 32 x 32. transformers loads each folder with dequantize=True in fp32. expected.safetensors
has its weights under the checkpoint's names (the fused experts split again), input_ids, and the logits of its forward pass.
Run: python make_whole_models.py
"""

import json

import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, FineGrainedFP8Config, Qwen3MoeConfig

from golden_io import ROOT, save_folder, weights

torch.set_num_threads(1)  # the last bits of the logits depend on it

CONFIG = Qwen3MoeConfig(
    architectures=["Qwen3MoeForCausalLM"], vocab_size=64, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=32, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
    max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, dtype="float32")
LAYER = "model.layers.0"
PLAIN = {"model.embed_tokens.weight": (64, 64), "lm_head.weight": (64, 64), "model.norm.weight": (64,), f"{LAYER}.input_layernorm.weight": (64,),
         f"{LAYER}.post_attention_layernorm.weight": (64,), f"{LAYER}.self_attn.q_norm.weight": (32,), f"{LAYER}.self_attn.k_norm.weight": (32,),
         f"{LAYER}.mlp.gate.weight": (4, 64)}
QUANTISED = {f"{LAYER}.self_attn.q_proj": (64, 64), f"{LAYER}.self_attn.k_proj": (32, 64), f"{LAYER}.self_attn.v_proj": (32, 64),
             f"{LAYER}.self_attn.o_proj": (64, 64)}
for expert in range(4):
    QUANTISED |= {f"{LAYER}.mlp.experts.{expert}.{name}": shape for name, shape in
                  {"gate_proj": (32, 64), "up_proj": (32, 64), "down_proj": (64, 32)}.items()}


def plain(seed, shape):
    if len(shape) == 1:
        return 1 + weights(seed, 1, shape[0])[0]
    return weights(seed, *shape) * 4  # spread, so that the router and the logits are not all alike


def int4(w):
    args = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32, symmetric=True)
    grouped = w.reshape(w.shape[0], -1, 32)
    scale, zero = calculate_qparams(grouped.amin(2), grouped.amax(2), args)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format="pack-quantized")
    state = {"weight": w, "weight_scale": scale, "weight_zero_point": zero.to(torch.int8)}
    return BaseCompressor.get_value_from_registry("pack-quantized").compress(state, scheme)


def fp8(w):
    n, k = w.shape
    blocks = w.reshape(n // 32, 32, k // 32, 32)
    scale = blocks.abs().amax((1, 3)) / 448
    return {"weight": (blocks / scale[:, None, :, None]).reshape(n, k).to(torch.float8_e4m3fn), "weight_scale_inv": scale}


def checkpoint_names(model):
    """The loaded weights as the checkpoint names them: one expert at a time, gate before up."""
    for name, value in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(value):
                gate, up = both.chunk(2)
                yield name.replace("gate_up_proj", f"{expert}.gate_proj.weight"), gate
                yield name.replace("gate_up_proj", f"{expert}.up_proj.weight"), up
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(value):
                yield name.replace("down_proj", f"{expert}.down_proj.weight"), down
        else:
            yield name, value


def make(case, quantise, quantization, load_config):
    tensors = {name: plain(900 + i, shape) for i, (name, shape) in enumerate(PLAIN.items())}
    for i, (module, shape) in enumerate(QUANTISED.items()):
        tensors.update({f"{module}.{key}": value for key, value in quantise(weights(950 + i, *shape) * 4).items()})
    config = json.loads(CONFIG.to_json_string(use_diff=False)) | {"quantization_config": quantization}
    function = "AutoModelForCausalLM.from_pretrained(dequantize=True), forward"
    about = (tensors, config, "transformers", transformers.__version__, function)
    save_folder(case, tensors, {}, *about[1:])
    model, report = AutoModelForCausalLM.from_pretrained(ROOT / case, quantization_config=load_config, dtype=torch.float32, output_loading_info=True,
                                                         attn_implementation="eager")
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    expected = dict(checkpoint_names(model))
    assert set(expected) == set(PLAIN) | {f"{module}.weight" for module in QUANTISED}
    ids = torch.randint(3, 64, (1, 24), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected |= {"input_ids": ids[0], "logits": model(ids).logits[0]}
    save_folder(case, tensors, expected, *about[1:])


make("qwen3-moe-ct-int4", int4, {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head", "re:.*mlp.gate$"],
    "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": {
        "num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True, "dynamic": False}}}},
     CompressedTensorsConfig(dequantize=True))
make("qwen3-moe-fp8-block32", fp8, {
    "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [32, 32],
    "modules_to_not_convert": ["lm_head", f"{LAYER}.mlp.gate"]},
     FineGrainedFP8Config(dequantize=True, weight_block_size=(32, 32)))
