#!/bin/sh
# What the README's first command runs after the build: looks into the 4-bit model of this repository, lets it write, and measures its
# speed and its perplexity on text it was never trained on. Usage: scripts/main_job.sh [PROGRAM [MODEL]]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
billfish=${1:-$root/build/billfish}
model=${2:-$root/models/tiny-moe-mxfp4}

step() { printf '\n== %s\n' "$1"; }

"$billfish" version
step "what the checkpoint holds, and which kernel runs it"
"$billfish" inspect "$model"
step "text after 'In the beginning', greedy; tokens per second, the kernels used and why"
"$billfish" generate "$model" -p "In the beginning" -n 96 2>&1
step "text after 'hacker n. ', temperature 0.8"
"$billfish" generate "$model" -p "hacker n. " -n 96 --temp 0.8 --top-p 0.95 --seed 7 2>&1
step "perplexity on held-out text, exact"
"$billfish" eval "$model" --text "$model/held_out.txt" --window 512 2>&1
step "the same in mode fast (int8 activations)"
"$billfish" eval "$model" --text "$model/held_out.txt" --window 512 --mode fast 2>&1
step "every matrix's kernel against the definition"
"$billfish" verify "$model"
step "llama.cpp-style rates: prefill of 512 tokens, decode of 128"
"$billfish" bench model "$model"
