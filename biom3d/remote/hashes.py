"""Which content a file has: SHA-256, remembered by path, inode, size and times, so that nothing is read twice."""

import hashlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import DataError
from biom3d.remote.host import Entry

CHUNK = 2**20
THREADS = 4  # hashing leaves the interpreter's lock; more threads than a disk has use for
TRIES = 3  # to read a file that somebody writes to
# A file that changed a moment ago may change again within one tick of its file system's clock: not remembered.
SETTLED_NS = 2_000_000_000
ROWS = 500  # of a question to the cache; SQLite allows 999 values


@dataclass(frozen=True)
class State:
    """What tells that a file has not changed: inode, size, time of change of content and of anything, in ns."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, facts: os.stat_result) -> "State":
        """Return the state from `stat`."""
        return cls(facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


class Cache:
    """What files had when they were last read, in an SQLite file; without one where it cannot be written."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self._lock = threading.Lock()

    def find(self, states: Mapping[str, State]) -> dict[str, str]:
        """Return path -> key for those files that are as they were."""
        found: dict[str, str] = {}
        names = list(states)
        with suppress(sqlite3.Error, OSError), self._lock, closing(self._open()) as table:
            for start in range(0, len(names), ROWS):
                part = [os.fsencode(name) for name in names[start : start + ROWS]]
                marks = ",".join("?" * len(part))
                words = f"SELECT path, inode, size, mtime, ctime, key FROM hashes WHERE path IN ({marks})"  # noqa: S608 - only "?"
                rows = table.execute(words, part)
                for path, inode, size, mtime, ctime, key in rows:
                    if states[os.fsdecode(path)] == State(inode, size, mtime, ctime):
                        found[os.fsdecode(path)] = key
        return found

    def learn(self, known: Iterable[tuple[str, State, str]]) -> None:
        """Remember path, state and key of files of which we do not know who writes to them."""
        settled = time.time_ns() - SETTLED_NS
        self.learn_own(row for row in known if max(row[1].mtime_ns, row[1].ctime_ns) < settled)

    def learn_own(self, known: Iterable[tuple[str, State, str]]) -> None:
        """Remember path, state and key of files that we have just written."""
        rows = [
            (os.fsencode(path), state.inode, state.size, state.mtime_ns, state.ctime_ns, key)
            for path, state, key in known
        ]
        if rows:
            with suppress(sqlite3.Error, OSError), self._lock, closing(self._open()) as table, table:
                table.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        table = sqlite3.connect(self._path, timeout=10)
        table.execute("PRAGMA synchronous = OFF")  # losing it costs reading files again
        table.execute(
            "CREATE TABLE IF NOT EXISTS hashes (path BLOB PRIMARY KEY, inode INTEGER, size INTEGER, mtime INTEGER,"
            " ctime INTEGER, key TEXT) WITHOUT ROWID"
        )
        return table


def default_path() -> Path:
    """Return where the cache lies: in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "biom3d" / "hashes.sqlite"


def identify(inputs: Iterable[tuple[str, Path]], cache: Cache) -> tuple[Entry, ...]:
    """Return an entry for every file of `inputs`, by its content; folders are walked. Sorted by name.

    Raises:
        DataError: a file is not there, is no file, cannot be read, or changes all the time.
    """
    files = sorted(walk(inputs))
    states = {str(path): _state(path) for _, path in files}
    keys = cache.find(states)
    unknown = [name for name in states if name not in keys]
    with ThreadPoolExecutor(THREADS) as threads:
        read = list(threads.map(hash_file, (Path(name) for name in unknown)))
    cache.learn((name, state, key) for name, (state, key) in zip(unknown, read, strict=True))
    keys |= {name: key for name, (_, key) in zip(unknown, read, strict=True)}
    sizes = {name: state.size for name, state in states.items()}
    sizes |= {name: state.size for name, (state, _) in zip(unknown, read, strict=True)}
    return tuple(Entry(name, path, keys[str(path)], sizes[str(path)]) for name, path in files)


def hash_file(path: Path) -> tuple[State, str]:
    """Read a file; return its state and SHA-256 of one moment: it was the same before and after."""
    for _ in range(TRIES):
        try:
            with open(path, "rb") as file:
                before = State.of(os.fstat(file.fileno()))
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if State.of(os.fstat(file.fileno())) == before:
                    return before, digest
        except OSError as error:
            raise _unreadable(path, error) from error
    raise DataError(f"input '{path}' changes while it is read; wait until whoever writes it has finished")


def walk(inputs: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield name and absolute path of all files; links are followed, a folder within itself is refused."""
    for name, path in inputs:
        yield from _walk(name, path.absolute(), ())


def _walk(name: str, path: Path, above: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    try:
        facts = path.stat()
        children = sorted(path.iterdir()) if stat.S_ISDIR(facts.st_mode) else []
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISREG(facts.st_mode):
        yield name, path
        return
    if not stat.S_ISDIR(facts.st_mode):
        raise DataError(f"input '{path}' is neither a file nor a folder; remove it")
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        raise DataError(f"input '{path}' is a link to a folder that it lies in; remove it")
    for child in children:
        yield from _walk(f"{name}/{child.name}", child, (*above, here))


def _state(path: Path) -> State:
    try:
        return State.of(path.stat())
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"input '{path}': {error.strerror}; is it still there, and may you read it?")
