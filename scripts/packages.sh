#!/bin/sh
# Installs what billfish builds with, on Debian 12 or Ubuntu 24.04 and later. Does nothing where all of it is there already.
# Usage: scripts/packages.sh [extra packages]
set -eu
packages="g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev libcli11-dev libgtest-dev libgmock-dev $*"
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing" >&2
if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo"; fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # the lists are meant to be split
{
  $as_root apt-get update -q
  $as_root apt-get install -q -y --no-install-recommends $missing
} >&2
