#!/usr/bin/env bash
# Installs what `make test` starts privately beside the batch systems: real servers of Debian (root on Debian 12 or newer).
# Says what it does, and does nothing twice.
set -euo pipefail
. "$(dirname "$0")/packages.sh"
install_packages "the tests" slapd bubblewrap
