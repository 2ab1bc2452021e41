#!/usr/bin/env bash
# Installs what `make test` starts privately beside the batch systems: real servers of Debian (root on Debian 12 or newer).
# Says what it does, and does nothing twice.
set -euo pipefail
wanted=()
for package in slapd bubblewrap; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || wanted+=("$package")
done
[ ${#wanted[@]} -gt 0 ] || exit 0
echo "installing for the tests: ${wanted[*]}"
# The tests start servers of their own; those of the machine shall not start.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
