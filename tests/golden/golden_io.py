"""Writes one golden case: a Hugging Face style folder and what the other software decodes from it."""

import json
import pathlib
import struct

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).parent


def weights(seed, n, k):
    """Gaussian weights with a few large columns, as real layers have."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=generator) * 0.05
    w[:, :: max(k // 7, 1)] *= 3
    return w


def save_sorted(tensors, path, metadata):
    """save_file writes the metadata in a random order; sorted, the same seed gives the same file."""
    save_file(tensors, path, metadata=metadata)
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text.rstrip()) == len(data[8 : 8 + size].rstrip())  # the same entries in another order
    path.write_bytes(data[:8] + text.ljust(size) + data[8 + size :])


def save_case(name, tensors, expected, config, software, version, function, shards=1, config_name="config.json"):
    """tensors: name -> stored tensor. expected: module -> decoded fp32 [N,K]. config: written as config_name."""
    decoded = {f"{module}.weight": value for module, value in expected.items()}
    save_folder(name, tensors, decoded, config, software, version, function, shards, config_name)


def save_folder(name, tensors, decoded, config, software, version, function, shards=1, config_name="config.json"):
    """As save_case, with expected tensors under their full names."""
    folder = ROOT / name
    folder.mkdir(exist_ok=True)
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    names = sorted(tensors)
    if shards == 1:
        save_sorted(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
        for shard in range(shards):
            # Round robin on purpose: a weight and its scale end up in different files.
            part = names[shard::shards]
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            save_sorted({key: tensors[key] for key in part}, folder / file, {"format": "pt"})
            index["weight_map"].update({key: file for key in part})
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    decoded = {key: value.detach().float() if value.is_floating_point() else value for key, value in decoded.items()}
    decoded = {key: value.contiguous().clone() for key, value in decoded.items()}
    save_sorted(decoded, folder / "expected.safetensors", {"software": software, "version": version, "function": function})
    (folder / config_name).write_text(json.dumps(config, indent=1) + "\n")
