"""Follows a job: its log lines as they come, then its end; asked again, it goes on where it broke off."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from biom3d.errors import ContainerError, HostError
from biom3d.remote.ends import GRACE_S, LAST_LINES, End
from biom3d.remote.host import Say

LINE_LIMIT = 2000  # characters of a line that are shown


class Source(Protocol):
    """Where the lines and the end of one job come from; it remembers what was shown."""

    name: str

    def watch(self, show: Callable[[str], None]) -> End:
        """Show lines as they come, until the job has ended."""
        ...

    def stop(self) -> None:
        """Ask the job to stop, kill it after GRACE_S; it has ended when this returns. None there is fine."""
        ...

    def print(self, say: Say) -> None:
        """Say all lines that there are now."""
        ...


class Follower:
    """Shows the log of one job and waits for its end; `last_lines` are kept for the report of a failure."""

    def __init__(self, source: Source, say: Say) -> None:
        self._source, self._say = source, say
        self._lines: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def last_lines(self) -> str:
        """Return the last lines of the log, as far as they were read."""
        return "\n".join(self._lines)

    def wait(self, stop: threading.Event, may_stop: bool = True) -> End | None:
        """Return how the job ended; with `stop` set it is asked to end, and killed when it does not.

        Without `may_stop` it is left alone then, and None returned.

        Raises:
            LostConnection: nobody knows; with `stop` set, the job may run on.
        """
        ended: list[End | Exception] = []
        over = threading.Event()

        def watch() -> None:
            try:
                ended.append(self._source.watch(self._show))
            except Exception as error:  # told by the thread that waits
                ended.append(error)
            finally:
                over.set()

        threading.Thread(target=watch, name=f"follow {self._source.name}", daemon=True).start()
        while not over.wait(0.1):
            if stop.is_set():
                if not may_stop:
                    return None
                with suppress(ContainerError):  # it ends at this very moment; else it is told below
                    self._source.stop()
                over.wait(2 * GRACE_S)
                break
        if not ended:
            raise HostError(f"{self._source.name} does not stop; have a look at it there")
        if isinstance(ended[0], Exception):
            raise ended[0]
        return ended[0]

    def _show(self, line: str) -> None:
        self._lines.append(line)
        self._say(line)


def shown_line(text: bytes) -> str:
    """Return a line of a log as it is shown; of a progress bar, which rewrites its line, the last state counts."""
    return text.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")[:LINE_LIMIT]


def split_lines(chunks: Iterator[bytes], limit: int = 2**20) -> Iterator[bytes]:
    """Yield lines without their end from chunks cut anywhere; a line longer than `limit` bytes comes in parts."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > limit:
            yield rest
            rest = b""
    if rest:
        yield rest
