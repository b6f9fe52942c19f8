"""A run that is stopped by SIGINT or SIGTERM, whoever sends it and to whomever: its jobs are told, and none is left.

Snakemake by itself waits for running jobs to their end: it counts on a terminal, whose Ctrl-C reaches them too. And
what a script starts in the background is deaf to SIGINT. So the steps are told here, one by one: they note what is
done and end; those that do not are killed.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 20.0  # until steps that do not end are killed; a training stops within a batch
ONE_WISH_S = 1.0  # signals so close are one: a terminal and a program may both send it
LOOK_S = 0.1
SHELLS = ("bash", "sh")  # a job is a shell with its step, and what copies the step's words to a log
COPIERS = (b"tee", b"copy_lines.py")
Say = Callable[[str], None]


def hear() -> None:
    """Hear SIGINT also where a shell has started us in the background; before the first job nothing else is needed."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Stopper:
    """Listens for signals while jobs run."""

    def __init__(self, say: Say) -> None:
        self.was_asked = False
        self._is_here, self._say = False, say
        self._last = 0.0
        self._hurry, self._ended = threading.Event(), threading.Event()

    def listen(self, is_here: bool) -> None:
        """Begin, in place of what Snakemake does with the signals; in the main thread.

        `is_here`: jobs are processes of ours, and nobody else ends them.
        """
        self._is_here = is_here
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, self._on_signal)

    def end(self) -> None:
        """Say that no job runs any more: what is started from now on is no step."""
        self._ended.set()

    def _on_signal(self, *_: object) -> None:
        before, self._last = self._last, time.monotonic()
        if self.was_asked and self._last - before < ONE_WISH_S:
            return
        is_first, self.was_asked = not self.was_asked, True
        if not self._is_here or (is_first and self._ended.is_set()):
            raise KeyboardInterrupt
        if is_first:
            threading.Thread(target=self._end_steps, daemon=True).start()
            raise KeyboardInterrupt  # as by Ctrl-C: Snakemake starts no more jobs, and waits for those that run
        self._hurry.set()

    def _end_steps(self) -> None:
        """Tell all steps, also those that start in this moment, and kill what does not listen."""
        self._say(f"stopping: what runs notes what is done; after {PATIENCE_S:g} s, or another Ctrl-C, it is killed")
        told: set[int] = set()
        limit = time.monotonic() + PATIENCE_S
        while not self._ended.wait(LOOK_S):
            is_late = self._hurry.is_set() or time.monotonic() > limit
            for pid in find_steps(os.getpid()):
                if is_late or pid not in told:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL if is_late else signal.SIGTERM)
                    told.add(pid)


def find_steps(pid: int, proc: Path = Path("/proc")) -> Iterator[int]:
    """Yield the processes of the steps that a process has started in shells."""
    children: dict[int, list[tuple[int, str]]] = {}
    for path in proc.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            begin, _, rest = path.read_text(errors="replace").rpartition(")")
            children.setdefault(int(rest.split()[1]), []).append((int(path.parent.name), begin.partition("(")[2]))
    for shell, name in children.get(pid, []):
        if name in SHELLS:
            yield from (step for step, _ in children.get(shell, []) if not _is_copier(proc / str(step)))


def _is_copier(process: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return True  # it has ended
    return any(word.rpartition(b"/")[2] in COPIERS for word in words)
