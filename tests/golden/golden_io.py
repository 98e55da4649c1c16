"""Writes one golden case: a Hugging Face style folder and what the other software decodes from it."""

import json
import pathlib

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).parent


def weights(seed, n, k):
    """Gaussian weights with a few large columns, as real layers have."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=generator) * 0.05
    w[:, :: max(k // 7, 1)] *= 3
    return w


def save_case(name, tensors, expected, config, software, version, function, shards=1, config_name="config.json"):
    """tensors: name -> stored tensor. expected: module -> decoded fp32 [N,K]. config: written as config_name."""
    folder = ROOT / name
    folder.mkdir(exist_ok=True)
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
        for shard in range(shards):
            # Round robin on purpose: a weight and its scale end up in different files.
            part = names[shard::shards]
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            save_file({key: tensors[key] for key in part}, folder / file, metadata={"format": "pt"})
            index["weight_map"].update({key: file for key in part})
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    decoded = {f"{module}.weight": value.detach().to(torch.float32).contiguous().clone() for module, value in expected.items()}
    save_file(decoded, folder / "expected.safetensors", metadata={"software": software, "version": version, "function": function})
    (folder / config_name).write_text(json.dumps(config, indent=1) + "\n")
