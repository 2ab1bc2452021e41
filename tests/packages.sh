# Sourced by the install scripts of the tests: installs Debian packages that are not there yet, and says which.
#   install_packages PURPOSE PACKAGE...      (root on Debian 12 or newer; does nothing, silently, when all are there)
# What sources this waits until another such script has ended: they share the guard against servers that start.
if [ "$(id -u)" = 0 ]; then
  exec 9>/run/iceprod-tests-install
  flock 9
fi
install_packages() {
  local purpose=$1 package wanted=()
  shift
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || wanted+=("$package")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "only Debian's packages are known here; install ${wanted[*]} yourself" >&2; exit 1; }
  [ "$(id -u)" = 0 ] || { echo "must be root to install ${wanted[*]}" >&2; exit 1; }
  echo "installing for $purpose: ${wanted[*]}"
  # The tests start servers of their own; those of the machine shall not start.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap "rm -f $policy" EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  # Whoever else installs something ends some time; a mirror that breaks off is asked again.
  local patient=(-o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
  apt-get "${patient[@]}" update -qq 9>&-
  apt-get "${patient[@]}" install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null 9>&-
}
