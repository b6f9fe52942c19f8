"""What clients note in a job's folder: which of them follow it, and who has cancelled it.

Each that follows has a file there, so that none removes what another still reads. A client that was killed leaves its
file; the same client finds it again, and `biom3d remote clean` strikes out those that never come back.
"""

import hashlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from biom3d.errors import HostError
from biom3d.remote.host import Finished, Host
from biom3d.remote.job import CANCELLED, EXIT, WORK
from biom3d.remote.template import WORDS, made

CLAIMS = "clients"  # in a job's folder
KEPT = ".kept"  # after the name of a folder that is only there to be looked at

_JOIN = made(
    "join",
    f"""
mkdir -p -- "$1" && cd -- "$1" && mkdir -p {CLAIMS} {WORK} && : >"{CLAIMS}/$2" || exit
stat -f --printf '%a %S\\n' . 2>/dev/null || echo
cat {EXIT} 2>/dev/null || true
""",
    "job",
    "client",
)
_LEAVE = made(
    "leave",
    f"""
cd -- "$1" 2>/dev/null || exit 0
rm -f -- "{CLAIMS}/$2"
others=$(ls -A {CLAIMS} 2>/dev/null)
if [ -n "$others" ]; then echo "$others"; exit; fi
if [ "$3" = go ]; then cd .. && exec rm -rf -- "$1"; fi
{{ rmdir {CLAIMS} {WORK}; cd .. && rmdir -- "$1"; }} 2>/dev/null; true
""",
    "job",
    "client",
    "then",
)
_NOTE_CANCEL = made(
    "note_cancel",
    f"""
cd -- "$1" 2>/dev/null || exit 0
cat >{CANCELLED}.new && mv {CANCELLED}.new {CANCELLED}
""",
    "job",
    stdin="bytes",
)
_STRIKE_OUT = made(
    "strike_out",
    f"""
cd -- "$1/jobs" 2>/dev/null || exit 0
minutes=$2
shift 2
for job; do shift; set -- "$@" ! -path "./$job/*"; done
find . -mindepth 3 -maxdepth 3 -type f -path './*/{CLAIMS}/*' -mmin +"$minutes" "$@" -delete
""",
    "root",
    "number",
    "job-id*",
)
_SET_ASIDE = made("set_aside", f'rm -rf -- "$1{KEPT}" && cp -al -- "$1" "$1{KEPT}"', "job")
TEMPLATES = (_JOIN, _LEAVE, _NOTE_CANCEL, _STRIKE_OUT, _SET_ASIDE)
JOB_ID = WORDS["job-id"]

Keep = Literal["none", "failed", "all"]
KEEPS: tuple[Keep, ...] = ("none", "failed", "all")


def client_name(records: Path) -> str:
    """Return what this client is called on hosts: the same for every program that works in this folder of ours."""
    return hashlib.sha256(f"{socket.gethostname()}:{records.absolute()}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Joined:
    """What a client learns that joins a job: the exit code, if the job has one, and the free space of the disk."""

    code: int | None
    free_bytes: int


def join(host: Host, folder: PurePosixPath, client: str) -> Joined:
    """Say that `client` follows the job in `folder`, which is made."""
    done = host.run(_JOIN.line(folder, client), repeat=True)
    _raise_if_failed(host, done)
    disk, _, code = done.out.partition(b"\n")
    blocks, _, size = disk.partition(b" ")
    # A `stat` that is not GNU's says nothing.
    free = int(blocks) * int(size) if blocks.isdigit() and size.isdigit() else host.free_bytes()
    return Joined(int(code) if code.strip().isdigit() else None, free)


def leave(host: Host, folder: PurePosixPath, client: str, is_removed: bool = False) -> bool:
    """Say that `client` is done with the job; return whether it was the last one.

    Then a folder without anything goes; `is_removed`: any, with all that is in it.
    """
    done = host.run(_LEAVE.line(folder, client, "go" if is_removed else "stay"), repeat=True)
    if is_removed and not host.is_here:  # what an engine left here as another user is no reason to fail
        _raise_if_failed(host, done)
    return not done.out.strip()


def note_cancel(host: Host, folder: PurePosixPath, who: str) -> None:
    """Note who cancels the job, for the clients that follow it; a job without a folder is followed by none."""
    done = host.run(_NOTE_CANCEL.line(folder), stdin=who.encode())
    _raise_if_failed(host, done)


def who_cancelled(host: Host, folder: PurePosixPath) -> str:
    """Return who has cancelled the job since it was started; nothing if nobody did."""
    text = (host.read(folder / CANCELLED) or b"").decode(errors="replace")
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def strike_out(host: Host, in_use: Iterable[str], days: float) -> None:
    """Forget clients that have not come back for so many days; those of jobs `in_use` stay."""
    ours = sorted(job for job in in_use if JOB_ID.fullmatch(job))  # anybody may give a container any label
    done = host.run(_STRIKE_OUT.line(host.root, round(days * 24 * 60), *ours))
    _raise_if_failed(host, done)


def set_aside(host: Host, folder: PurePosixPath) -> None:
    """Keep a copy of a job's folder (links, no bytes) under another name, instead of an older one."""
    done = host.run(_SET_ASIDE.line(folder))
    _raise_if_failed(host, done)


def _raise_if_failed(host: Host, done: Finished) -> None:
    if done.code:
        reason = done.err.decode(errors="replace").strip()
        raise HostError(f"{host.name}: cannot write to {host.root}: {reason}; free some space, or check its rights")
