#!/usr/bin/env bash
# Installs the batch systems that tests/grids starts privately, and what tests/integration/chaos sets clocks and
# makes disks with (the word chaos); says what it does, and does nothing twice.
#   tests/grids/install.sh [slurm] [sge] [htcondor] [arc] [gram] [torque] [chaos]  (none: all of them; root on Debian 12 or newer)
set -euo pipefail
declare -A packages=(
  [slurm]="slurmctld slurmd slurm-client munge slurmdbd mariadb-server slurmrestd slurm-wlm-jwt-plugin"
  [sge]="gridengine-master gridengine-exec gridengine-client"
  [htcondor]="patchelf"
  [torque]="slurmctld slurmd slurm-client munge perl"
  [arc]="nordugrid-arc-arex nordugrid-arc-client nordugrid-arc-test-utils nordugrid-arc-arcctl nordugrid-arc-plugins-needed nordugrid-arc-plugins-arcrest nordugrid-arc-plugins-internal nordugrid-arc-hed time openssl"
  [gram]="globus-gatekeeper globus-gram-job-manager globus-gram-job-manager-fork-setup-poll globus-gram-client-tools globus-gass-cache-program globus-proxy-utils perl file openssl"
  [chaos]="libfaketime e2fsprogs mount"
)
# HTCondor is in no Debian 12: Debian 13's is unpacked into a directory of its own.
htcondor=${ICEPROD_HTCONDOR_PREFIX:-/var/cache/iceprod-tests/htcondor-23.9}
torque=${ICEPROD_TORQUE_PREFIX:-/var/cache/iceprod-tests/torque-wrappers}
systems=("$@")
[ ${#systems[@]} -gt 0 ] || systems=(slurm sge htcondor arc gram torque chaos)
wanted=()
for system in "${systems[@]}"; do
  [ -n "${packages[$system]:-}" ] || { echo "no such batch system: $system (known: ${!packages[*]})" >&2; exit 2; }
  read -ra of_system <<<"${packages[$system]}"
  wanted+=("${of_system[@]}")
done
. "$(dirname "$0")/../packages.sh"
install_packages "the tests of grid plugins" "${wanted[@]}"
case " ${systems[*]} " in
  *" htcondor "*) "$(dirname "$0")/htcondor_prefix.sh" "$htcondor" ;;
esac
# Slurm's commands for users of Torque bear the names of Grid Engine's: they are unpacked, not installed.
if [[ " ${systems[*]} " == *" torque "* ]] && [ ! -x "$torque/usr/bin/qsub" ]; then
  packages_of_torque=$(mktemp -d)
  chmod 755 "$packages_of_torque"
  fetch=(apt-get -qq -o Acquire::Retries=3)
  of_torque=(slurm-wlm-torque libslurm-perl libslurmdb-perl libslurm38)
  (cd "$packages_of_torque" && { "${fetch[@]}" download "${of_torque[@]}" ||
    { "${fetch[@]}" update && "${fetch[@]}" download "${of_torque[@]}"; }; })
  mkdir -p "$torque"
  for package in "$packages_of_torque"/*.deb; do dpkg-deb -x "$package" "$torque"; done
  rm -rf "$packages_of_torque"
fi
echo "batch systems for tests are installed: ${systems[*]}"
