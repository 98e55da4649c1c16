#!/bin/sh
# Runs all tests, setting up everything they need on a bare Debian 12 or Ubuntu 24.04:
#   scripts/test.sh          format and lint, every test, the sanitizers, the fuzzers for a bounded time
#   scripts/test.sh quick    every test in the optimised build only
set -eu
cd "$(dirname "$0")/.."
mode=${1:-all}
case $mode in all | quick) ;; *) echo "usage: scripts/test.sh [quick]" >&2; exit 2 ;; esac

if [ "$mode" = quick ]; then scripts/packages.sh; else scripts/packages.sh clang clang-format clang-tidy libclang-rt-14-dev; fi
jobs=$(nproc)

step() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

step "optimised build, warnings are errors"
cmake --preset ci >/dev/null
cmake --build --preset ci -j "$jobs"

if [ "$mode" = all ]; then
  step "format"
  git ls-files '*.cc' '*.h' | xargs clang-format --dry-run --Werror
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

step "every test"
ctest --preset ci -j 1
