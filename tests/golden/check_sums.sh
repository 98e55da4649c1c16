#!/bin/sh
# SHA256SUMS lists every file of this folder but itself and README.md, and each is as it was. `check_sums.sh write` writes the list anew.
set -eu
cd "$(dirname "$0")"
files() { git ls-files . 2>/dev/null | grep -vxE "SHA256SUMS|README.md" | LC_ALL=C sort; }
if [ "${1:-}" = write ]; then files | xargs sha256sum >SHA256SUMS; exit 0; fi
sha256sum --quiet --check SHA256SUMS
# Outside of a git checkout there is no list to compare with.
[ -z "$(files)" ] || [ "$(files)" = "$(cut -c67- SHA256SUMS)" ] || { echo "SHA256SUMS does not list exactly the files of tests/golden" >&2; exit 1; }
