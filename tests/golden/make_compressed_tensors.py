"""compressed-tensors checkpoints: pack-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized, float-quantized.

Proves that the readers agree bit for bit with the format's own packers and unpackers (compressed-tensors 0.20.0, torch 2.15.0).
The stored tensors come from <Compressor>.compress; the expected weights from <Compressor>.decompress with the scales widened to fp32
first, so that no 16-bit product hides a difference (for NVFP4 from the two functions that decompress calls, which answers in bf16).
Rows that are no multiple of 8 pad the zero points; the last FP8 blocks are partial. Run: python make_compressed_tensors.py
"""

import compressed_tensors
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.nvfp4.base import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

from golden_io import save_case, weights

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"]


def grouped_min_max(w, args):
    if args.strategy == "tensor":
        return w.min().reshape(1), w.max().reshape(1)
    if args.strategy == "channel":
        return w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    if args.strategy == "block":
        rows, cols = args.block_structure
        n, k = w.shape
        padded = torch.nn.functional.pad(w, (0, -k % cols, 0, -n % rows))
        blocks = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // cols, cols)
        return blocks.amin((1, 3)), blocks.amax((1, 3))
    grouped = w.reshape(w.shape[0], -1, args.group_size)
    return grouped.amin(2), grouped.amax(2)


def compress(w, fmt, args, input_args=None):
    """One linear layer -> (stored tensors, decoded weight)."""
    scheme = QuantizationScheme(targets=["Linear"], weights=args, input_activations=input_args, format=fmt)
    compressor = BaseCompressor.get_value_from_registry(fmt)
    state = {"weight": w.to(torch.bfloat16)}
    source = state["weight"].to(torch.float32)
    low, high = grouped_min_max(source, args)
    if fmt == "nvfp4-pack-quantized":
        state["weight_global_scale"] = generate_gparam(low.min().reshape(1), high.max().reshape(1))
    scale, zero = calculate_qparams(low, high, args, global_scale=state.get("weight_global_scale"))
    state["weight_scale"] = scale.to(torch.bfloat16) if args.type == "int" else scale
    if not args.symmetric:
        state["weight_zero_point"] = zero.to(torch.int8)
    elif args.type == "int":
        state["weight_zero_point"] = torch.zeros_like(scale, dtype=torch.int8)
    if input_args is not None:
        state["input_global_scale"] = torch.tensor([2688.0 / 11.0])
    stored = compressor.compress(state, scheme)
    widened = {k: v.to(torch.float32) if k == "weight_scale" and v.dtype in (torch.bfloat16, torch.float16) else v for k, v in stored.items()}
    if fmt == "nvfp4-pack-quantized":  # decompress would answer in bf16
        n, half = stored["weight_packed"].shape
        codes = unpack_fp4_from_uint8(stored["weight_packed"], n, half * 2, dtype=torch.float32)
        return stored, dequantize(codes, stored["weight_scale"].float(), args=args, dtype=torch.float32, global_scale=stored["weight_global_scale"])
    return stored, compressor.decompress(widened, scheme)["weight"]


def make(case, fmt, args, shapes, input_args=None, shards=1):
    tensors, expected = {}, {}
    for i, (module, (n, k)) in enumerate(zip(MODULES, shapes)):
        stored, decoded = compress(weights(100 + i, n, k), fmt, args, input_args)
        tensors.update({f"{module}.{key}": value for key, value in stored.items()})
        expected[module] = decoded
    tensors["lm_head.weight"] = weights(7, 24, 32).to(torch.bfloat16)
    expected["lm_head"] = tensors["lm_head.weight"]
    group = {"targets": ["Linear"], "weights": args.model_dump(mode="json", exclude_none=True), "input_activations": None, "output_activations": None}
    if input_args is not None:
        group["input_activations"] = input_args.model_dump(mode="json", exclude_none=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "quantization_config": {
            "config_groups": {"group_0": group},
            "format": fmt,
            "ignore": ["lm_head"],
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "version": compressed_tensors.__version__,
        },
    }
    function = f"{BaseCompressor.get_value_from_registry(fmt).__name__}.decompress"
    if fmt == "nvfp4-pack-quantized":
        function = "unpack_fp4_from_uint8, dequantize"
    save_case(case, tensors, expected, config, "compressed-tensors", compressed_tensors.__version__, function, shards)


def int4(strategy, group=None, symmetric=True):
    return QuantizationArgs(num_bits=4, type="int", strategy=strategy, group_size=group, symmetric=symmetric)


SHAPES = [(40, 256), (24, 128), (8, 384)]
ODD_ROWS = [(61, 128), (24, 128), (35, 64)]

make("ct-pack-int4-sym-g32", "pack-quantized", int4("group", 32), SHAPES)
make("ct-pack-int4-sym-g128", "pack-quantized", int4("group", 128), SHAPES, shards=2)
make("ct-pack-int4-asym-g32", "pack-quantized", int4("group", 32, symmetric=False), ODD_ROWS)
make("ct-pack-int4-channel", "pack-quantized", int4("channel"), SHAPES)
make("ct-pack-int4-asym-channel", "pack-quantized", int4("channel", symmetric=False), ODD_ROWS)

nvfp4 = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True, scale_dtype=torch.float8_e4m3fn,
                         zp_dtype=torch.float8_e4m3fn)
nvfp4_input = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True, dynamic="local",
                               scale_dtype=torch.float8_e4m3fn, zp_dtype=torch.float8_e4m3fn)
make("ct-nvfp4", "nvfp4-pack-quantized", nvfp4, SHAPES, input_args=nvfp4_input)
make("ct-nvfp4a16", "nvfp4-pack-quantized", nvfp4, SHAPES)

mxfp4 = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32, symmetric=True, scale_dtype=torch.uint8, zp_dtype=torch.uint8)
make("ct-mxfp4", "mxfp4-pack-quantized", mxfp4, SHAPES)

fp8 = dict(num_bits=8, type="float", symmetric=True)
make("ct-fp8-tensor", "float-quantized", QuantizationArgs(strategy="tensor", **fp8), SHAPES)
make("ct-fp8-channel", "float-quantized", QuantizationArgs(strategy="channel", **fp8), SHAPES)
make("ct-fp8-block128", "float-quantized", QuantizationArgs(strategy="block", block_structure=[128, 128], **fp8), [(8, 256), (136, 128), (24, 200)])
