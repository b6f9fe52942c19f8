"""Jobs of a local run that was killed, and that go on without it: found by a word in their environment, and ended.

Nothing is lost: a training goes on after its last whole epoch, a prediction after its last whole volume.
"""

import os
import signal
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path

WORD = "BIOM3D_RUN"  # in the environment of every job: the project's folder and the run
PATIENCE_S = 20


def mark(folder: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let the jobs of this run carry its name."""
    environ[WORD] = f"{folder.resolve()}|{os.getpid()}"


def find(folder: Path, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes of earlier runs in a project that still live here, as far as we may see."""
    wanted = f"{WORD}={folder.resolve()}|".encode("utf-8", "surrogateescape")
    ours = f"{os.getpid()}".encode()
    found = []
    for path in proc.glob("[0-9]*/environ"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            runs = [word.removeprefix(wanted) for word in words if word.startswith(wanted)]
            if runs and runs[0] != ours and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return sorted(found)


def describe(left: list[int]) -> str:
    """Say what these processes are."""
    return f"jobs of a run that was killed still work (processes {', '.join(map(str, left))})"


def end(folder: Path, say: Callable[[str], None]) -> None:
    """End them, so that this run can go on where they are."""
    left = find(folder)
    if not left:
        return
    say(f"{describe(left)}; they are ended, and this run goes on where they are")
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sign)
        stop = time.monotonic() + PATIENCE_S
        while (left := find(folder)) and time.monotonic() < stop:
            time.sleep(0.1)
