#!/bin/sh
# Make a tiny root file system out of programs of this machine.  A real one: docker export CONTAINER > image.tar
#   make_image.sh [TARBALL]
set -eu
tarball=$(realpath -m "${1:-image.tar.gz}")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/etc" "$root/bin"
printf 'ID=tiny\nPRETTY_NAME="A tiny system"\n' > "$root/etc/os-release"
for program in sh cat wc; do
  path=$(command -v "$program")
  cp -L "$path" "$root/bin/$program"
  for library in $(ldd "$path" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
tar -czf "$tarball" -C "$root" .
echo "$tarball"
