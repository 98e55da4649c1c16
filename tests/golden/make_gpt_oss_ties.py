"""Which way bf16 roundings on the edge went in the logits that come with the gpt-oss test model.

Those logits were made by transformers with experts in bf16. Values that lie within fp32 noise of the middle of two bf16 values round either
way, depending on the order of a sum, and one such rounding moves logits by up to 2e-2 of the row's largest: transformers 5.17.0 with
torch 2.11.0, which made them, differs from them by 2.2e-3 on an AMD EPYC, with the rest of the model in fp64 by 1.9e-2. This script
runs the rest by transformers in fp32 and the experts with every rounding spelled out and sums in fp64, turns over one edge rounding after
the other as long as more rows agree with the logits (three do), and writes which way roundings on the edge go in the run that then agrees
to 2e-5: those of the experts' input, which no two fp32 programs compute alike, and those that were turned.

ties [n,6] int32: layer, place (0 input of the experts, 1 gate and up, 2 down), expert (-1 for the input), token, column, bits of the bf16.
Run: python make_gpt_oss_ties.py FOLDER_OF_THE_MODEL (about four minutes).
"""

import pathlib
import sys
import types

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mxfp4Config

TRIED = 3e-6  # distance from the middle of two bf16 over the value
KEPT = 2e-5  # the same over the largest value of the token's row
folder = sys.argv[1]
golden = load_file(f"{folder}/golden.safetensors")
model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=Mxfp4Config(dequantize=True), dtype=torch.float32, attn_implementation="eager")
model = model.float().eval()
edges, turned, keep = [], set(), False


def bf16(values):
    return values.to(torch.bfloat16).double()


def rounded(values, layer, place, expert, tokens):
    """bf16 of fp64 values; roundings named in `turned` go to the other neighbour, those near an edge are listed."""
    nearest = bf16(values)
    beyond = torch.where((values > nearest) == (nearest > 0), 1, -1)
    bits = nearest.to(torch.bfloat16).view(torch.int16)
    other = (bits.int() + beyond).to(torch.int16).view(torch.bfloat16).double()
    distance = (values - (nearest + other) / 2).abs()
    near = distance < TRIED * values.abs()
    if keep and place == 0:
        near |= distance < KEPT * values.abs().amax(-1, keepdim=True)
    for row, column in (near & (values != nearest)).nonzero().tolist():
        key = (layer, place, expert, int(tokens[row]), column)
        if key in turned:
            nearest[row, column] = other[row, column]
        edges.append((distance[row, column].item() / values[row, column].abs().item(), key, nearest[row, column].to(torch.bfloat16).view(torch.int16).item() & 0xFFFF))
    return nearest


def experts(self, x, ids, weights, layer):
    out = torch.zeros(x.shape[0], ids.shape[1], x.shape[1], dtype=torch.float64)
    x = rounded(x.double(), layer, 0, -1, torch.arange(x.shape[0]))
    for e in range(self.num_experts):
        token, slot = torch.where(ids == e)
        both = bf16(rounded(x[token] @ self.gate_up_proj[e].double(), layer, 1, e, token) + self.gate_up_proj_bias[e].double())
        gate, up = both[:, ::2].clamp(max=self.limit), both[:, 1::2].clamp(-self.limit, self.limit)
        h = bf16(bf16(up + 1) * bf16(gate * bf16(torch.sigmoid(bf16(gate * self.alpha)))))
        out[token, slot] = bf16(rounded(h @ self.down_proj[e].double(), layer, 2, e, token) + self.down_proj_bias[e].double())
    return (out.float() * weights[..., None]).sum(1)


def run():
    edges.clear()
    with torch.no_grad():
        logits = model(golden["input_ids"].long()).logits
    apart = ((logits - golden["logits"]).abs().amax(-1) / golden["logits"].abs().amax(-1))[0]
    return int((apart > 2e-5).sum()), apart.max().item()


for index, layer in enumerate(model.model.layers):
    layer.mlp.experts.forward = types.MethodType(lambda self, x, router_indices=None, routing_weights=None, index=index, **_:
                                                 experts(self, x, router_indices, routing_weights, index), layer.mlp.experts)
found = run()
while found[0] > 0:
    print(f"{found[0]} rows apart, {found[1]:.2e} at most")
    tries, before = [], set(turned)
    # A value that fp64 puts exactly in the middle goes to the even neighbour in every order of its sum that is exact.
    for distance, key, _ in sorted(edges):
        if key in before or distance == 0:
            continue
        turned = before | {key}
        tries.append((*run(), distance, key))
    rows, worst, distance, key = min(tries)
    if rows >= found[0]:
        sys.exit(f"no further rounding helps: {found[0]} rows are apart, {found[1]:.2e} at most")
    turned, found = before | {key}, (rows, worst)
    print(f"turned {key}, {distance:.1e} from the middle")
    run()
keep = True
found = run()
ties = [[*key, bits] for _, key, bits in sorted(edges, key=lambda edge: edge[1]) if key[1] == 0 or key in turned]
print(f"{len(ties)} roundings on the edge, {len(turned)} turned; logits agree to {found[1]:.2e}")
out = pathlib.Path(__file__).parent / "models" / "gpt-oss-tiny-mxfp4.ties.safetensors"
save_file({"ties": torch.tensor(ties, dtype=torch.int32)}, out,
          metadata={"software": "transformers", "version": transformers.__version__})
