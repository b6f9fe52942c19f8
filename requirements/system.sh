#!/usr/bin/env bash
# What the tests of containers, hosts, clusters and reports need from the system, beside Python: a container engine, an SSH
# server, network name spaces, a maker of base images, Slurm, a browser. Does nothing where all is there; root installs
# with apt-get, others are told how.
set -euo pipefail

say() { echo "system: $*" >&2; }
die() { say "error: $*" && exit 1; }

# program:package; sbin is not on everybody's PATH
PATH=$PATH:/usr/sbin:/sbin
missing=()
for pair in dockerd:docker.io sshd:openssh-server ssh:openssh-client ip:iproute2 mmdebstrap:mmdebstrap openssl:openssl \
    zstd:zstd podman:podman catatonit:catatonit slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge \
    chromium:chromium chromedriver:chromium-driver; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || die "this system lacks ${missing[*]} (Debian's names); install them, then run again"
[ "$(id -u)" = 0 ] || die "the tests need ${missing[*]}; run: sudo apt-get install --no-install-recommends ${missing[*]}"
say "installing ${missing[*]}"
apt-get update -qq || say "warning: the package lists could not be brought up to date; trying with old ones"
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install ${missing[*]}; run 'apt-get update', then this again"
