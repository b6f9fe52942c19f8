"""Which clients follow a job: a file for each in the job's folder, so that none removes what another still reads.

A client that was killed leaves its file; the same client finds it again, and `biom3d remote clean` goes by age.
"""

import hashlib
import shlex
import socket
from pathlib import Path, PurePosixPath

from biom3d.errors import HostError
from biom3d.remote.host import Host
from biom3d.remote.job import EXIT, WORK

CLAIMS = "clients"  # in a job's folder


def client_name(records: Path) -> str:
    """Return what this client is called on hosts: the same for every program that works in this folder of ours."""
    return hashlib.sha256(f"{socket.gethostname()}:{records.absolute()}".encode()).hexdigest()[:16]


def join(host: Host, folder: PurePosixPath, client: str) -> int | None:
    """Say that `client` follows the job in `folder`, which is made; return the job's exit code if it has one."""
    line = f"mkdir -p {CLAIMS} {WORK} && : >{CLAIMS}/{client} || exit; cat {EXIT} 2>/dev/null || true"
    place = shlex.quote(str(folder))
    done = host.run(f"mkdir -p -- {place} && cd -- {place} || exit; {line}")
    if done.code:
        reason = done.err.decode(errors="replace").strip()
        raise HostError(f"{host.name}: cannot write to {host.root}: {reason}; free some space, or check its rights")
    text = done.out.strip()
    return int(text) if text.isdigit() else None


def leave(host: Host, folder: PurePosixPath, client: str) -> bool:
    """Say that `client` is done with the job; return whether it was the last one. A folder without anything goes."""
    place = shlex.quote(str(folder))
    empty = f"rmdir {CLAIMS} {WORK}; cd .. && rmdir -- {place}"
    done = host.run(
        f"cd -- {place} 2>/dev/null || exit 0; rm -f {CLAIMS}/{client}; ls -A {CLAIMS} 2>/dev/null;"
        f" {{ {empty}; }} 2>/dev/null; true"
    )
    return not done.out.strip()
