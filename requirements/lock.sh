#!/usr/bin/env bash
# Write cpu.lock, cuda.lock and slurm.lock anew from pyproject.toml: `make lock`. Versions already locked stay, unless
# UPGRADE=1. The locks hold for every Python from 3.11 on, on every system (uv's --universal).
set -euo pipefail
cd "$(dirname "$0")/.."

UV=0.13.9
TORCH=2.13.0
uv=.cache/lock/bin/uv
if [ ! -x "$uv" ]; then
    .venv/bin/python -m venv .cache/lock
    .cache/lock/bin/python -m pip install --quiet "uv==$UV"
fi
# The CPU build of torch is not on PyPI. uv looks for it where pip is configured to, else at its official index.
links=${PIP_FIND_LINKS:-$(.venv/bin/python -m pip config get global.find-links 2>/dev/null ||
    echo https://download.pytorch.org/whl/cpu/torch/)}

compile() { # LOCK [options]
    lock=$1
    shift
    "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --extra workflow --extra remote --extra images --extra server --extra dicom --extra urls --extra dev ${UPGRADE:+--upgrade} --output-file "$lock" "$@"
    echo "lock: $lock written"
}

# torch is left out of cpu.lock: its hash depends on the Python version, see README.md.
compile requirements/cpu.lock --extra engine --find-links "$links" --no-emit-package torch \
    --constraints <(echo "torch==$TORCH+cpu")
compile requirements/cuda.lock --extra cuda

# What `make slurm` adds: all that is not in cpu.lock already, in versions that fit it.
mapfile -t there < <(sed -nE 's/^([a-z0-9.-]+)==.*/--no-emit-package=\1/p' requirements/cpu.lock)
compile requirements/slurm.lock --extra slurm --constraints requirements/cpu.lock "${there[@]}"
sed -i -e '/^# The following packages were excluded/,$d' -e '/^$/d' requirements/slurm.lock
