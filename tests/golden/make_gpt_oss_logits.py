"""Logits of the gpt-oss test model with everything in fp32, by transformers 5.17.0 (torch 2.15.0, eager attention).

The logits that come with the model were made by the same transformers with its experts left in bf16, as it loads them by default; that
rounding alone moves logits of this random model by up to 0.147 of the row's largest (transformers against itself). A program that keeps fp32
activations has to be compared with an fp32 run. Run: python make_gpt_oss_logits.py FOLDER_OF_THE_MODEL
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mxfp4Config

folder = sys.argv[1]
golden = load_file(f"{folder}/golden.safetensors")
model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=Mxfp4Config(dequantize=True), dtype=torch.float32, attn_implementation="eager")
model = model.float().eval()
with torch.no_grad():
    logits = model(golden["input_ids"].long()).logits
    moe = model.model.layers[0].mlp(golden["moe_input"])
moe = moe[0] if isinstance(moe, tuple) else moe
out = pathlib.Path(__file__).parent / "models" / "gpt-oss-tiny-mxfp4.fp32.safetensors"
save_file({"logits": logits.contiguous(), "moe_output": moe.reshape(golden["moe_output"].shape).contiguous()}, out,
          metadata={"software": "transformers", "version": transformers.__version__, "note": "all parameters and activations fp32"})
