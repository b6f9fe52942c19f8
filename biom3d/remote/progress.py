"""How a transfer goes: bytes, rate, time left, for the person who waits; and the limit of bandwidth."""

import threading
import time

from biom3d.events import duration_text
from biom3d.remote.host import Say

EVERY_S = 5.0
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Throttle:
    """Lets bytes pass at a limited rate, together over all threads; None: no limit."""

    def __init__(self, bytes_s: float | None) -> None:
        self._bytes_s = bytes_s
        self._lock = threading.Lock()
        self._free = 0.0

    def take(self, count: int) -> None:
        """Wait until `count` bytes may go."""
        if self._bytes_s is None:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + count / self._bytes_s
        if start > now:
            time.sleep(start - now)


class Progress:
    """Counts bytes of files and tells now and then how far it is."""

    def __init__(self, verb: str, total: int, say: Say) -> None:
        self._verb = verb
        self._total = total
        self._say = say
        self._lock = threading.Lock()
        self._start = self._told = time.monotonic()
        self._done = 0

    def add(self, count: int) -> None:
        """Count bytes that are done, below zero for those that have to go again."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            is_due = now - self._told >= EVERY_S and self._done < self._total
            if is_due:
                self._told = now
            done, seconds = self._done, now - self._start
        if is_due and done > 0:
            left = duration_text(seconds / done * (self._total - done))
            self._say(
                f"{self._verb}: {size_text(done)} of {size_text(self._total)}, {rate_text(done, seconds)}, {left} left"
            )

    def part(self) -> "Part":
        """Return the account of a part that may have to be taken back."""
        return Part(self)

    def finish(self) -> None:
        """Tell what was done in all."""
        seconds = time.monotonic() - self._start
        self._say(
            f"{self._verb}: {size_text(self._total)} in {duration_text(seconds)}, {rate_text(self._total, seconds)}"
        )


class Part:
    """What one stream has added to the progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0

    def add(self, count: int) -> None:
        """Count bytes that went."""
        self._done += count
        self._progress.add(count)

    def set(self, done: int) -> None:
        """Say how many bytes have really arrived."""
        self._progress.add(done - self._done)
        self._done = done


def size_text(count: float) -> str:
    """Write bytes as `12.4 GB`."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def rate_text(count: float, seconds: float) -> str:
    """Write a rate as `58.0 MB/s`."""
    return f"{size_text(count / max(seconds, 1e-3))}/s"
