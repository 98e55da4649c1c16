#!/bin/sh
# clang-tidy over the library's sources. Usage: scripts/lint.sh BUILD_FOLDER JOBS [files]
set -eu
build=$1
jobs=$2
shift 2
if [ $# -eq 0 ]; then
  # GCC's flags that clang does not know would each be an error.
  set -- $(git ls-files 'src/*.cc')
fi
printf '%s\n' "$@" | xargs -P "$jobs" -n 4 clang-tidy -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option 2>/dev/null
