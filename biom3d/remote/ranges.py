"""Big files from the host, in ranges over several connections; one that broke off goes on where it was."""

import fcntl
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from biom3d.errors import TransferError
from biom3d.remote import commands
from biom3d.remote.channel import LinkLost
from biom3d.remote.lanes import Lanes
from biom3d.remote.packing import LEVEL, PAYS, Stream
from biom3d.remote.progress import Part, Throttle
from biom3d.remote.site import Site

BIG = 64 * 2**20
RANGE = 32 * 2**20  # bytes of one command
PIECE = 4 * 2**20  # bytes of one note of what is there
TRIES = 4


@dataclass(frozen=True)
class Remote:
    """A file on the host: below which folder, its name there, size."""

    site: Site
    work: PurePosixPath
    name: str
    size: int

    @property
    def mark(self) -> str:
        """Return what tells it from others; its job's folder is named by all that the job was made from."""
        text = f"{self.work}/{self.name} {self.size}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


class Partial:
    """A file that arrives in pieces, with a note of those that are there; both stay when we are killed."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.path = folder / f".{remote.mark}.biom3d-part"
        self._remote = remote
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another client fetches the same: then we work beside it
            os.close(self._descriptor)
            self.path = self.path.with_name(f"{self.path.name}-{uuid.uuid4().hex[:8]}")
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.ftruncate(self._descriptor, remote.size)
        self._note = self.path.with_name(f"{self.path.name}.done")
        self._there = self._read_note()
        self.is_resumed = bool(self._there)
        self._changed = threading.Condition()
        self._is_over = False

    def lacking(self) -> list[tuple[int, int]]:
        """Return runs of pieces that are not there: first, count; none longer than a range."""
        runs: list[tuple[int, int]] = []
        for number in range(-(-self._remote.size // PIECE)):
            if number in self._there:
                continue
            if runs and sum(runs[-1]) == number and runs[-1][1] < RANGE // PIECE:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((number, 1))
        return runs

    def size_of(self, number: int) -> int:
        """Return the bytes of a piece."""
        return min(PIECE, self._remote.size - number * PIECE)

    def size_there(self) -> int:
        """Return the bytes that are there."""
        return sum(self.size_of(number) for number in self._there)

    def put(self, number: int, data: bytes) -> None:
        """Write a piece, and note it."""
        os.pwrite(self._descriptor, data, number * PIECE)
        with self._changed:
            self._there.add(number)
            with open(self._note, "a", encoding="ascii") as note:
                note.write(f"{number}\n")
            self._changed.notify_all()

    def hash(self) -> str:
        """Return its SHA-256; reads pieces in their order, each as soon as it is there."""
        digest = hashlib.sha256()
        for number in range(-(-self._remote.size // PIECE)):
            with self._changed:
                self._changed.wait_for(lambda n=number: n in self._there or self._is_over)  # type: ignore[misc]
                if self._is_over:
                    return ""
            digest.update(os.pread(self._descriptor, self.size_of(number), number * PIECE))
        return digest.hexdigest()

    def give_up(self) -> None:
        """End the wait for pieces that will not come."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def take(self, target: Path) -> None:
        """Move the whole file to its place."""
        self.path.rename(target)
        self._note.unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove what cannot be used."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it; the next one may take it up."""
        os.close(self._descriptor)

    def _read_note(self) -> set[int]:
        try:
            words = self._note.read_text(encoding="ascii").split()
        except OSError:
            return set()
        return {int(word) for word in words if word.isdigit() and int(word) * PIECE < self._remote.size}


def fetch_big(
    remote: Remote,
    target: Path,
    folder: Path,
    lanes: Lanes,
    throttle: Throttle,
    part: Part,
    read_key: Callable[[str], str],
) -> str:
    """Fetch a big file to `target`; what is under way lies in `folder`. Return its SHA-256.

    Raises:
        TransferError: it is not what was announced, which `read_key` tells.
        OSError: it cannot be written here.
    """
    while True:
        partial = Partial(folder, remote)
        try:
            key = _fill(remote, partial, lanes, throttle, part)
            if key == read_key(remote.name):
                partial.take(target)
                return key
            partial.drop()
        finally:
            partial.close()
        if not partial.is_resumed:
            raise TransferError(
                f"{remote.site.name}: output '{remote.name}' did not arrive as it is there; run the same command again"
            )
        part.set(0)  # what was here was of an older file


def _fill(remote: Remote, partial: Partial, lanes: Lanes, throttle: Throttle, part: Part) -> str:
    """Fetch all pieces that lack; return the hash of the whole."""
    part.add(partial.size_there())
    is_packed = _pays(remote)
    with ThreadPoolExecutor(1) as reader:
        key = reader.submit(partial.hash)
        try:
            runs = partial.lacking()
            lanes.each(runs, lambda run, lane: _fetch(remote, partial, run, lane, is_packed, throttle, part))
        except BaseException:
            partial.give_up()
            raise
        return key.result()


def _fetch(
    remote: Remote,
    partial: Partial,
    run: tuple[int, int],
    lane: int,
    is_packed: bool,
    throttle: Throttle,
    part: Part,
) -> None:
    """Fetch a run of pieces, after a lost link from where it broke."""
    number, end, failures = run[0], sum(run), 0
    while number < end:
        try:
            line = _line(remote, number, end - number, is_packed)
            with remote.site.pool.start(line, lane) as command:
                command.end_input()
                stream = Stream(command, is_packed, throttle)
                while number < end:
                    data = stream.read(partial.size_of(number))
                    if len(data) < partial.size_of(number):
                        raise remote.site.failure(*command.finish())
                    partial.put(number, data)
                    part.add(len(data))
                    number, failures = number + 1, 0
        except LinkLost:
            failures += 1
            if failures == TRIES:
                raise


def _line(remote: Remote, number: int, pieces: int, is_packed: bool) -> str:
    blocks = PIECE // commands.BLOCK
    return commands.send_range(remote.work, remote.name, number * blocks, pieces * blocks, is_packed)


def _pays(remote: Remote) -> bool:
    """Say whether the host should pack the file, from a sample out of its middle."""
    import zstandard

    if not remote.site.has_zstd:
        return False
    middle = remote.size // 2 // commands.BLOCK
    sample = remote.site.ask(commands.send_range(remote.work, remote.name, middle, 2, is_packed=False)).out
    return len(sample) > PAYS * len(zstandard.ZstdCompressor(level=LEVEL).compress(sample))
