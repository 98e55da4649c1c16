#!/bin/sh
# Runs every fuzzer on its corpus for a bounded time. Usage: scripts/fuzz.sh BUILD_FOLDER SECONDS_EACH
set -eu
build=$1
seconds=$2
source=$(cd "$(dirname "$0")/.." && pwd)
found=0
for fuzzer in "$build"/tests/fuzz/*_fuzz; do
  [ -x "$fuzzer" ] || continue
  found=$((found + 1))
  name=$(basename "$fuzzer")
  scratch=$(mktemp -d) # new inputs stay out of the tree
  echo "fuzzing $name for $seconds s"
  "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 -print_funcs=0 -verbosity=0 \
    -artifact_prefix="$scratch/" "$scratch" "$source/tests/fuzz/corpus/${name%_fuzz}" ||
    { echo "$name failed; the input lies in $scratch" >&2; exit 1; }
  rm -rf "$scratch"
done
[ "$found" -gt 0 ] || { echo "no fuzzer was built in $build" >&2; exit 1; }
