#!/bin/sh
# Puts NVRTC, which compiles the GPU kernels, into FOLDER (default build/nvrtc), where no CUDA toolkit is needed, and prints the folder of
# the library for BILLFISH_NVRTC. Does nothing but print where it is there already. Usage: scripts/nvrtc.sh [FOLDER]
set -eu
version=13.0.88
folder=${1:-$(dirname "$0")/../build/nvrtc}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
library=$folder/nvidia/cu13/lib
if [ ! -e "$folder/$version" ]; then
  python3 -m pip --version >/dev/null 2>&1 || "$(dirname "$0")/packages.sh" python3-pip
  rm -rf "$folder/nvidia"
  echo "installing NVRTC $version into $folder" >&2
  python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade --target "$folder" "nvidia-cuda-nvrtc==$version" >&2
  [ -e "$library/libnvrtc.so.13" ] || { echo "the package of NVRTC $version holds no $library/libnvrtc.so.13" >&2; exit 1; }
  touch "$folder/$version"
fi
echo "$library"
