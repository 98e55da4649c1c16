#!/bin/sh
# clang-tidy over everything that is built but tests. Usage: scripts/lint.sh BUILD_FOLDER JOBS [files]
set -eu
build=$1
jobs=$2
shift 2
[ $# -gt 0 ] || set -- $(git ls-files 'src/*.cc' 'bench/*.cc' 'examples/*.cc')
# GCC's flags that clang does not know would each be a warning; standard error only counts warnings of system headers.
printf '%s\n' "$@" | xargs -P "$jobs" -n 4 clang-tidy-14 -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option 2>/dev/null
