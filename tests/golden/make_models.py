"""Small random models whose form no trained test model has, with golden logits by transformers in fp32 from the bf16 weights.

  qwen2-tiny         biases on q, k and v; sliding window from layer 1 on
  qwen3-tiny         norms on q and k, head_dim unlike hidden / heads, tied embeddings
  llama3-rope-tiny   rope_type llama3 in the older spelling (rope_theta and rope_scaling)
  llama-linear-tiny  rope_type linear in the oldest spelling ("type"), biases on all four projections
  qwen3-yarn-tiny    rope_type yarn with truncation
  mixtral-window-tiny  sliding window on all layers
  gpt-oss-plain-tiny unquantised expert stacks, which are stored transposed
  deepseek-v3-yarn-tiny  latent attention without q_lora, yarn with mscale, whose square scales the softmax; two shared experts

Every parameter is random, norms and biases too. Run: python make_models.py
"""

import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = pathlib.Path(__file__).parent / "models"
TOKENS = 80
SMALL = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=False)
MOE = dict(num_local_experts=4, num_experts_per_tok=2)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=32)

CASES = {
    "qwen2-tiny": dict(model_type="qwen2", use_sliding_window=True, sliding_window=24, max_window_layers=1, **SMALL),
    "qwen3-tiny": dict(model_type="qwen3", head_dim=32, **{**SMALL, "tie_word_embeddings": True}),
    "llama3-rope-tiny": dict(model_type="llama", head_dim=32, **SMALL, rope_parameters=dict(
        rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "llama-linear-tiny": dict(model_type="llama", attention_bias=True, **SMALL,
                              rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "qwen3-yarn-tiny": dict(model_type="qwen3", head_dim=32, **SMALL, rope_parameters=YARN),
    "mixtral-window-tiny": dict(model_type="mixtral", sliding_window=20, **SMALL, **MOE),
    "gpt-oss-plain-tiny": dict(model_type="gpt_oss", head_dim=16, sliding_window=16, layer_types=["sliding_attention", "full_attention"],
                               **SMALL, **MOE, rope_parameters={**YARN, "truncate": False}),
    "deepseek-v3-yarn-tiny": dict(
        model_type="deepseek_v3", **{**SMALL, "num_key_value_heads": 4}, moe_intermediate_size=32, n_routed_experts=8, n_shared_experts=2,
        num_experts_per_tok=2, n_group=2, topk_group=1, norm_topk_prob=True, routed_scaling_factor=2.5, first_k_dense_replace=1,
        q_lora_rank=None, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24,
        rope_parameters={**YARN, "mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 32, "beta_slow": 1}),
}


def older_spelling(config, name):
    """rope_parameters as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if name == "llama-linear-tiny":
        rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope


def fill(model, seed):
    """Norm weights around 1, everything else Gaussian and large enough that attention and routing are not flat."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if "inv_freq" in name:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name:
            values = 1 + 0.2 * noise
        elif tensor.dim() == 1:
            values = 0.3 * noise
        else:
            values = noise * (1.0 if "embed" in name else 2.0 / tensor.shape[-1] ** 0.5)
        tensor.data.copy_(values.bfloat16().float())


for seed, (name, fields) in enumerate(CASES.items()):
    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    fill(model, seed)
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    if name in ("llama3-rope-tiny", "llama-linear-tiny"):
        older_spelling(stored, name)
    path.write_text(json.dumps(stored, indent=1) + "\n")

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(0, 256, (1, TOKENS), generator=torch.Generator().manual_seed(100 + seed))
    with torch.no_grad():
        logits = model(ids).logits.float()
    save_file({"input_ids": ids.int(), "logits": logits.contiguous()}, folder / "golden.safetensors",
              metadata={"software": "transformers", "version": transformers.__version__, "note": "fp32 logits"})
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes, largest logit", float(logits.abs().max()))
