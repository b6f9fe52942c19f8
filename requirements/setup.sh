#!/usr/bin/env bash
# Make .venv from a lock file: `requirements/setup.sh cpu|cuda STAMP`. Called by `make setup`; relative paths
# only, so that a folder with spaces in its name is fine. STAMP is written last: without it all is done anew.
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1 stamp=$2
torch=torch==2.13.0+cpu
torch_index=https://download.pytorch.org/whl/cpu

say() { echo "setup: $*" >&2; }
die() { say "error: $*" && exit 1; }

# Every locked package has wheels for these versions; 3.14 lacks some (2026-11).
is_fit() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        if is_fit "$python"; then echo "$python" && return; fi
    done
    return 1
}

apt_install() { # what is missing, packages...
    missing=$1
    shift
    command -v apt-get >/dev/null || die "$missing; install it, then run the same command again"
    [ "$(id -u)" = 0 ] || die "$missing; run: sudo apt-get install $*   then run the same command again"
    say "$missing; installing $*"
    apt-get update -qq || say "warning: the package lists could not be brought up to date; trying with old ones"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        die "apt-get could not install $*; install Python 3.11 to 3.13 with its venv module, then run again"
}

install() { .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps "$@"; }

install_torch() {
    # First as this machine's pip is configured (a mirror, a folder of wheels), without long waits; else from
    # the official index of CPU builds. PyPI has none, and its torch would bring gigabytes of CUDA.
    log=.venv/torch.log
    install --retries 0 --timeout 15 "$torch" 2>"$log" ||
        install --retries 1 --index-url "$torch_index" "$torch" 2>>"$log" ||
        die "no $torch for $(.venv/bin/python -V): not by this machine's pip configuration, not from $torch_index
$(tail -n 5 "$log")
Check the network; or put its wheel into a folder and run: PIP_FIND_LINKS=FOLDER make setup
or take the CUDA build from PyPI, which is far larger and runs without a GPU as well: make setup TORCH=cuda"
}

if [ -n "${PYTHON:-}" ]; then
    is_fit "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13"
    python=$PYTHON
elif ! python=$(find_python); then
    apt_install "no Python 3.11, 3.12 or 3.13 found" python3 python3-venv
    python=$(find_python) || die "this system offers $(python3 -V) only, and 3.11, 3.12 or 3.13 is needed;" \
        "install one, then run: make setup PYTHON=/path/to/python3.12"
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "$python has no venv module" "python$version-venv"
fi

say "making .venv with $("$python" -V) from requirements/$build.lock: 1 to 3 minutes, once"
rm -f .venv/.ready-*
"$python" -m venv --clear .venv
if [ "$build" = cpu ]; then
    say "1 of 2: PyTorch for CPUs; .venv takes 2 GB in the end"
    install_torch
fi
say "$([ "$build" = cpu ] && echo "2 of 2: " || true)$(grep -c '==' "requirements/$build.lock") packages of the lock file; nothing is printed meanwhile"
install --require-hashes --requirement "requirements/$build.lock"
touch "$stamp"
