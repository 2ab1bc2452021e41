#!/usr/bin/env bash
# Unpacks HTCondor of Debian 13, with every library that it needs, into a directory of its own and lets its programs
# find them there.  Nothing of this machine is changed but that directory; patchelf must be installed.
#   tests/grids/htcondor_prefix.sh DIRECTORY      (Debian on x86_64; about 200 MB)
set -euo pipefail
prefix=$1
mirror=${ICEPROD_DEBIAN_MIRROR:-http://deb.debian.org/debian}
done_mark=$prefix/.complete
[ ! -e "$done_mark" ] || { echo "HTCondor lies ready in $prefix"; exit 0; }
[ "$(dpkg --print-architecture)" = amd64 ] || { echo "only amd64 is known here" >&2; exit 1; }
rm -rf "$prefix"
apt=$prefix/apt
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
options=(-qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
  -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
  -o APT::Sandbox::User=root -o Acquire::Retries=3)
echo "fetching HTCondor of Debian 13 into $prefix"
apt-get "${options[@]}" update
apt-get "${options[@]}" install -y --download-only --no-install-recommends condor >/dev/null
for package in "$apt"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$prefix" --exclude='./usr/share/doc' --exclude='./usr/share/locale' \
    --exclude='./usr/share/man' --keep-directory-symlink
done
rm -rf "$apt"
loader=$(find "$prefix/usr/lib/x86_64-linux-gnu" "$prefix/usr/lib64" -name 'ld-linux-x86-64.so.2' 2>/dev/null | head -1)
libraries=$prefix/usr/lib:$prefix/usr/lib/x86_64-linux-gnu:$prefix/usr/lib/condor
find "$prefix"/usr/bin "$prefix"/usr/sbin "$prefix"/usr/libexec/condor -type f -name '*condor*' -o -path '*/libexec/condor/*' -type f |
  while read -r program; do
    patchelf --print-interpreter "$program" >/dev/null 2>&1 || continue
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$program"
  done
"$prefix/usr/bin/condor_version" >/dev/null
touch "$done_mark"
echo "HTCondor lies ready in $prefix: $("$prefix/usr/bin/condor_version" | head -1)"
