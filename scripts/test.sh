#!/bin/sh
# Runs the tests, setting up everything they need on a bare Debian 12 or Ubuntu 24.04:
#   scripts/test.sh         build with warnings as errors, check the format, run every test
#   scripts/test.sh full    the same, then lint, every test under three sanitizers, and the fuzzers for a bounded time
set -eu
cd "$(dirname "$0")/.."
mode=${1:-tests}
case $mode in tests | full) ;; *) echo "usage: scripts/test.sh [full]" >&2; exit 2 ;; esac
jobs=$(nproc)

step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

if [ "$mode" = full ]; then scripts/packages.sh clang clang-format-14 clang-tidy libclang-rt-14-dev; else scripts/packages.sh clang-format-14; fi

step "optimised build, warnings are errors"
cmake --preset ci >/dev/null
cmake --build --preset ci -j "$jobs"

# The kernels of every GPU target are compiled on any machine; without NVRTC the tests fail instead of skipping that.
BILLFISH_NVRTC=${BILLFISH_NVRTC:-$(scripts/nvrtc.sh)}
export BILLFISH_NVRTC BILLFISH_REQUIRE_NVRTC=1

step "format"
git ls-files '*.cc' '*.h' | xargs clang-format-14 --dry-run --Werror

if [ "$mode" = full ]; then
  step "lint"
  scripts/lint.sh build "$jobs"
  for sanitizer in asan ubsan tsan; do
    step "$sanitizer"
    cmake --preset $sanitizer >/dev/null
    cmake --build --preset $sanitizer -j "$jobs"
    ctest --preset $sanitizer -j 1
  done
  step "fuzzers"
  cmake --preset fuzz >/dev/null
  cmake --build --preset fuzz -j "$jobs"
  scripts/fuzz.sh build-fuzz 20
fi

# One at a time: programs with as many threads as cores would wait for each other by whole scheduler slices.
step "every test"
ctest --preset ci -j 1
