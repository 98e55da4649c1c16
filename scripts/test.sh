#!/bin/sh
# Runs the tests, setting up everything they need on a bare Debian 12 or Ubuntu 24.04:
#   scripts/test.sh          what continuous integration runs: build with warnings as errors, format, every test; what reads foreign bytes
#                            under AddressSanitizer with UndefinedBehaviorSanitizer, the worker threads under ThreadSanitizer; the fuzzers
#   scripts/test.sh quick    the first part alone: build, format, every test
#   scripts/test.sh full     the same as without argument, then lint, every test under each of the three sanitizers, longer fuzzing
set -eu
cd "$(dirname "$0")/.."
mode=${1:-ci}
case $mode in ci | quick | full) ;; *) echo "usage: scripts/test.sh [quick | full]" >&2; exit 2 ;; esac
jobs=$(nproc)

step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

# Builds and tests one preset.
check() {
  step "$1"
  cmake --preset "${2:-$1}" >/dev/null
  cmake --build --preset "$1" -j "$jobs"
  ctest --preset "$1" -j "$jobs"
}

case $mode in
  quick) scripts/packages.sh clang-format-14 ;;
  ci) scripts/packages.sh clang-format-14 clang-14 libclang-rt-14-dev ;;
  full) scripts/packages.sh clang-format-14 clang-14 libclang-rt-14-dev clang-tidy-14 ;;
esac

step "format"
git ls-files '*.cc' '*.h' | xargs clang-format-14 --dry-run --Werror

# The kernels of the GPU targets are compiled on any machine; without NVRTC these tests fail instead of skipping that.
BILLFISH_NVRTC=${BILLFISH_NVRTC:-$(scripts/nvrtc.sh)}
export BILLFISH_NVRTC BILLFISH_REQUIRE_NVRTC=1
if [ "$mode" = full ]; then export BILLFISH_COMPILE_ALL=1; fi
check ci
# NVRTC is not ours to sanitise: what needs it is skipped from here on.
unset BILLFISH_REQUIRE_NVRTC
BILLFISH_NVRTC=/dev/null
if [ "$mode" = quick ]; then exit 0; fi

check memory
check threads tsan
step "fuzzers"
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -j "$jobs"
scripts/fuzz.sh build-fuzz "$([ "$mode" = full ] && echo 60 || echo 10)"
if [ "$mode" = ci ]; then exit 0; fi

step "lint"
scripts/lint.sh build "$jobs"
for sanitizer in asan ubsan tsan; do check $sanitizer; done
