#!/usr/bin/env bash
# Slurm for tests/slurm: Debian's packages. Needs root.
set -euo pipefail

# Not `command -v` of all at once, which is content with any of them.
missing=()
for program in slurmctld slurmd munged srun; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} = 0 ] && compgen -G '/usr/lib/*/pmix2/lib/libpmix.so' >/dev/null; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Slurm is not installed, and only root on Debian can install it here: slurm-wlm munge libpmix-dev" >&2
  exit 1
fi
# `srun --mpi=pmix` opens libpmix.so by that name, which only libpmix-dev brings.
packages=(slurm-wlm munge libpmix-dev)
# No daemon of a package may start by itself: the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# The lists may be missing or old; try without fetching them first, for that is quick.
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null 2>&1 || {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}
