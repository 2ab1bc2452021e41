#!/usr/bin/env bash
# Runs a command on a network of its own that leads nowhere, where this host is "pbs1" at 10.90.0.1: OpenPBS takes
# no loopback address, and listens at all that there are.  Root on Linux; nothing of it is left afterwards.
#   tests/grids/own_network.sh .venv/bin/python -m pytest tests/grids/test_openpbs.py
set -euo pipefail
names=$(mktemp)
printf '127.0.0.1 localhost\n10.90.0.1 pbs1\n' >"$names"
chmod 644 "$names"
export names
exec unshare --net --uts --mount bash -c '
  ip link set lo up && ip addr add 10.90.0.1/32 dev lo && hostname pbs1 || exit
  mount --bind "$names" /etc/hosts && rm "$names" && unset names || exit
  exec "$@"' -- "$@"
