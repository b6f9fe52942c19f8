"""Follows a container: its log lines as they come, then its end; asked again, it goes on where it broke off."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from biom3d.errors import ContainerError, LostConnection
from biom3d.remote.container import GONE, GRACE_S, LAST_LINES, SIGKILL, End, read_end
from biom3d.remote.engine import translated
from biom3d.remote.host import Host, Say

if TYPE_CHECKING:
    from docker.models.containers import Container

REMOVED = End(SIGKILL, is_out_of_memory=False)
LINE_LIMIT = 2000  # characters of a line that are shown


class Follower:
    """Shows the log of one container and waits for its end; `last_lines` are kept for the report of a failure."""

    def __init__(self, host: Host, name: str, say: Say) -> None:
        self._host, self._name, self._say = host, name, say
        self._seen = ""  # the engine's time stamp of the last line shown, and how many lines were shown with it:
        self._same = 0  # Podman's stamps are whole seconds
        self._lines: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def last_lines(self) -> str:
        """Return the last lines of the log, as far as they were read."""
        return "\n".join(self._lines)

    def wait(self, stop: threading.Event) -> End:
        """Return how the container ended; with `stop` set it is asked to end, and killed when it does not."""
        ended: list[End | Exception] = []
        over = threading.Event()

        def watch() -> None:
            try:
                with translated(self._host.name, f"reading the log of {self._name}"):
                    ended.append(self._watch())
            except Exception as error:  # told by the thread that waits
                ended.append(error)
            finally:
                over.set()

        threading.Thread(target=watch, name=f"follow {self._name}", daemon=True).start()
        while not over.wait(0.1):
            if stop.is_set():
                self._ask_to_stop()
                over.wait(2 * GRACE_S)
                break
        if not ended:
            raise ContainerError(f"{self._host.name}: container {self._name} does not stop; look at: docker ps")
        if isinstance(ended[0], Exception):
            raise ended[0]
        return ended[0]

    def _ask_to_stop(self) -> None:
        with suppress(ContainerError), translated(self._host.name, f"stopping {self._name}"):
            self._container().stop(timeout=GRACE_S)

    def _watch(self) -> End:
        """Read lines until the container has ended."""
        import docker.errors

        try:
            container = self._container()
            self._show(container, follow=True)
            end = read_end(container)
            if end is not None:  # a connection may have broken just before, or the engine turned its log over
                self._show(container, follow=False, tail=LAST_LINES)
        except docker.errors.APIError as error:
            if error.status_code in GONE:  # somebody has removed it
                return REMOVED
            raise
        if end is None:
            raise LostConnection(f"{self._host.name}: the log of {self._name} broke off")
        return end

    def _show(self, container: "Container", **options: Any) -> None:
        for line in self._read_lines(container, **options):
            self._lines.append(line)
            self._say(line)

    def _container(self) -> "Container":
        return self._host.engine().containers.get(self._name)

    def _read_lines(self, container: "Container", **options: Any) -> Iterator[str]:
        """Yield lines that were not yet seen, without the time stamp that tells so."""
        last, again = self._seen, self._same
        since = {"since": _seconds(last)} if last else {}
        stream = container.logs(stream=True, timestamps=True, **options, **since)
        for raw in split_lines(stream):
            stamp, _, text = raw.partition(b" ")
            moment = stamp.decode("ascii", "replace")
            if moment < last:
                continue
            if moment == last and again:
                again -= 1
                continue
            last = ""  # what comes now is new, also where stdout and stderr are not in order
            self._same = self._same + 1 if moment == self._seen else 1
            self._seen = moment
            # A progress bar rewrites its line; its last state is what counts.
            yield text.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")[:LINE_LIMIT]


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


def _seconds(stamp: str) -> float:
    """Return the engine's time stamp as seconds, a little early: nanoseconds are cut, and seen lines are dropped."""
    return datetime.fromisoformat(stamp).timestamp() - 0.001
