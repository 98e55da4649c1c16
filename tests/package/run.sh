#!/bin/sh
# Installs the build in $1 into a scratch prefix, moves the prefix, and builds an outside program against it in both ways.
set -eu
build=$1
source=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$build" --prefix "$scratch/first" >/dev/null
mv "$scratch/first" "$scratch/prefix" # relocatable or not, that is the question
cmake -S "$source/cmake_user" -B "$scratch/cmake" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" >/dev/null
cmake --build "$scratch/cmake" >/dev/null
"$scratch/cmake/user"
PKG_CONFIG_PATH=$(dirname "$(find "$scratch/prefix" -name billfish.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # the flags are meant to be split
c++ -std=c++20 "$source/user.cc" -o "$scratch/user" $(pkg-config --cflags --libs --static billfish)
LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH") "$scratch/user"
if [ -x "$scratch/prefix/bin/billfish" ]; then "$scratch/prefix/bin/billfish" version; fi
