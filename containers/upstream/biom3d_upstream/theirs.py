"""How a command of Biom3d is started, followed and stopped."""

import importlib.metadata
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from biom3d_upstream import RELEASE
from biom3d_upstream.contract import InputError, StepError

GRACE_S = 10.0  # between asking a command to end and killing it
SHOWN_LINES = 200  # enough to hold a traceback


def require_release() -> None:
    """Raise InputError unless this environment holds the release of Biom3d that the adapter knows."""
    try:
        found = importlib.metadata.version("biom3d")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != RELEASE:
        raise InputError(
            f"this environment holds Biom3d {found}, the adapter drives {RELEASE}; use the image upstream-{RELEASE}"
        )


def run_theirs(
    step: str,
    words: Sequence[str],
    folder: Path,
    threads: int | None = None,
    follow: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Run `python -m biom3d.<step>` in `folder`; print its lines on stderr and return the last ones.

    `follow` is called with every line. Raises StepError where the command fails; a signal or an exception ends it.
    """
    require_release()
    # -P: the working folder is not searched for modules, so nothing in it can stand in for Biom3d
    command = [sys.executable, "-P", "-m", f"biom3d.{step}", *words]
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder, threads),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last: deque[str] = deque(maxlen=SHOWN_LINES)
    try:
        assert child.stdout is not None
        for line in _lines(child.stdout):
            print(line, file=sys.stderr, flush=True)
            last.append(line)
            follow(line)
        code = child.wait()
    finally:
        _end(child)
    if code != 0:
        raise StepError(failure_text(step, code, last))
    return list(last)


def environment(folder: Path, threads: int | None) -> dict[str, str]:
    """Return the variables for a command that may run as any user, without a home, on a read-only root."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    places = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    names = ("USER", "LOGNAME")  # asked for by libraries; a numeric user has no name
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if threads else ()
    return {
        **os.environ,
        **dict.fromkeys(places, str(home.resolve())),
        **dict.fromkeys(names, "biom3d"),
        **dict.fromkeys(counts, str(threads)),
        "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",  # its logger never flushes
    }


def failure_text(step: str, code: int, lines: Sequence[str]) -> str:
    """Say why a command ended: its last line that is no progress, or what its exit code means."""
    if code in (-9, 137):
        return f"Biom3d's {step} was killed, probably out of memory; give it more (mem_mb), or use a smaller patch"
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if any("bus error" in line.lower() or "shared memory" in line.lower() for line in lines) or code == -7:
        said += "; /dev/shm is too small: give the container more shared memory"
    return f"Biom3d's {step} failed (exit {code}): {said[:300]}"


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield whole lines; of a progress bar, which overwrites itself, only the last state."""
    for line in stream:
        yield line.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2]


def _end(child: subprocess.Popen[bytes]) -> None:
    """Stop a command that still runs; its loader processes end with it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()
