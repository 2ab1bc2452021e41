#!/usr/bin/env bash
# Installs the storage servers and tools that tests/transfers starts privately; says what it does, and does nothing twice.
#   tests/transfers/install.sh      (root on Debian 12 or newer)
set -euo pipefail
. "$(dirname "$0")/../packages.sh"
install_packages "the tests of transfers" \
  globus-gridftp-server-progs globus-gass-copy-progs gfal2-util-scripts gfal2-plugin-gridftp python3-gfal2-util \
  xrootd-server xrootd-server-plugins xrootd-scitokens-plugins xrootd-client nginx-light libnginx-mod-http-dav-ext openssl
echo "storage servers for tests are installed"
