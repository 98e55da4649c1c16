#!/bin/sh
# From a bare Debian 12 or Ubuntu 24.04 to text from a 4-bit model: installs packages, builds build/billfish, runs scripts/main_job.sh.
set -eu
cd "$(dirname "$0")/.."
scripts/packages.sh
cmake --preset release -DBILLFISH_BUILD_TESTS=OFF >/dev/null
cmake --build --preset release -j "$(nproc)"
exec scripts/main_job.sh build/billfish
