"""One run at a time in a project: who has it, on which machine, since when, for the second person to read.

The lock is that of the system on `.biom3d/lock` (flock), which ends with its holder, however that ends: nothing is to
be unlocked after a crash. The file says who it is. Where several machines share the file system and one of them died,
nobody here can know that: the message says how to go on.
"""

import fcntl
import getpass
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

FILE = Path(".biom3d/lock")
MOUNTS = Path("/proc/self/mountinfo")
# File systems that other machines may see too, by how their names begin.
SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "fuse.", "9p", "virtiofs", "afs", "ocfs")


class HeldError(Exception):
    """Somebody has the lock; the message is for people."""


def hold(folder: Path) -> IO[str]:
    """Take the lock of a project; it is held until the file that is returned is closed, or we end.

    Raises:
        HeldError: somebody else works there.
        OSError: the project's folder cannot be written to.
    """
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    # appending: to open it must not remove what its holder wrote
    file = open(path, "a+", encoding="utf-8", opener=_open_for_all)  # noqa: SIM115 - open as long as it locks
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_locked = True
    except BlockingIOError:
        file.close()
        raise HeldError(_explain(_holder(path), path)) from None
    except OSError:  # a file system without locks: what the file says has to do
        is_locked = False
    holder = _holder(path)
    if holder and _may_live(holder, path, is_locked):
        file.close()
        raise HeldError(_explain(holder, path))
    file.truncate(0)
    file.write(json.dumps(_myself()))
    file.flush()
    return file


def let_go(file: IO[str]) -> None:
    """End the lock."""
    with suppress(OSError, ValueError):
        file.truncate(0)
        file.close()


def holder_text(folder: Path) -> str:
    """Say who works in a project now, without taking the lock; empty if nobody does."""
    path = folder / FILE
    holder = _holder(path)
    if not holder:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            is_locked = True
    except BlockingIOError:
        return _explain(holder, path)
    except OSError:
        is_locked = False
    return _explain(holder, path) if _may_live(holder, path, is_locked) else ""


def _open_for_all(path: str, flags: int) -> int:
    """Open a file that a colleague of the same group may lock too."""
    return os.open(path, flags, 0o664)


def _may_live(holder: dict[str, Any], path: Path, is_locked: bool) -> bool:
    """Say whether a holder may live that wrote its name; `is_locked`: this process has the lock of the system now."""
    if holder["host"] == socket.gethostname():
        return not is_locked and _started(holder["pid"]) == holder["started"]
    return not is_locked or is_shared(path)


def is_shared(path: Path) -> bool:
    """Say whether other machines may see the file too, whose locks this one does not."""
    best, kind = 0, ""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape")
        if len(mount) >= best and path.resolve().is_relative_to(mount):
            best, kind = len(mount), after.split()[0]
    return kind.startswith(SHARED)


def _holder(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: found[key] for key in ("user", "host", "pid", "started", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _myself() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an account without a name, in a container
        user = str(os.getuid())
    pid, now = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
    return {"user": user, "host": socket.gethostname(), "pid": pid, "started": _started(pid), "since": now}


def _started(pid: int) -> str:
    """Return when a process began, as the system counts; a number that is used again has another."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _explain(holder: dict[str, Any], path: Path) -> str:
    where = f"'{path.resolve().parent.parent}'"
    if not holder:
        return f"another run works in {where}; wait until it has ended"
    who = f"{holder['user']} on {holder['host']} (process {holder['pid']}) since {holder['since']}"
    text = f"another run works in {where}: {who}; wait until it has ended, or ask {holder['user']}"
    if holder["host"] == socket.gethostname():
        return f"{text}; to stop it: kill -INT {holder['pid']}"
    return f"{text}; if {holder['host']} has crashed or the process is gone there, remove {path} and run again"
