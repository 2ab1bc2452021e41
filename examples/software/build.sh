#!/bin/sh
# Make the tarball of this example's software: here two small texts, elsewhere what `make install` leaves in a prefix.
#   build.sh [TARBALL]
set -eu
tarball=$(realpath -m "${1:-lightyield-1.0.tar.gz}")
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
mkdir -p "$prefix/lightyield-1.0/bin" "$prefix/lightyield-1.0/python" "$prefix/lightyield-1.0/share"
cat > "$prefix/lightyield-1.0/bin/lightyield" <<'PROGRAM'
#!/bin/sh
# Photons that a cascade of $1 GeV makes in ice, by the number in our tables.
per_gev=$(cat "$LIGHTYIELD_TABLES/photons_per_gev")
echo $(($1 * per_gev))
PROGRAM
chmod 755 "$prefix/lightyield-1.0/bin/lightyield"
echo 180000 > "$prefix/lightyield-1.0/share/photons_per_gev"
cat > "$prefix/lightyield-1.0/python/lightyield.py" <<'PYTHON'
"""The same number for Python."""

import os
from pathlib import Path

PHOTONS_PER_GEV = int((Path(os.environ["LIGHTYIELD_TABLES"]) / "photons_per_gev").read_text())
PYTHON
tar -czf "$tarball" -C "$prefix" lightyield-1.0
echo "$tarball"
