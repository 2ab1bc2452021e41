#!/usr/bin/env bash
# Installs the storage servers and tools that tests/transfers starts privately; says what it does, and does nothing twice.
#   tests/transfers/install.sh      (root on Debian 12 or newer)
set -euo pipefail
packages="globus-gridftp-server-progs globus-gass-copy-progs gfal2-util-scripts gfal2-plugin-gridftp python3-gfal2-util
  xrootd-server xrootd-server-plugins xrootd-client nginx-light libnginx-mod-http-dav-ext openssl"
wanted=()
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || wanted+=("$package")
done
if [ ${#wanted[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "only Debian's packages are known here; install ${wanted[*]} yourself" >&2; exit 1; }
  [ "$(id -u)" = 0 ] || { echo "must be root to install ${wanted[*]}" >&2; exit 1; }
  echo "installing for the tests of transfers: ${wanted[*]}"
  # The tests start servers of their own; those of the machine shall not start.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
fi
echo "storage servers for tests are installed"
