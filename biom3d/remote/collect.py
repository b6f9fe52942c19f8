"""Bringing a job's outputs home from an SSH host: listed, sent in one stream or in pieces, verified, put in place."""

import dataclasses
import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from biom3d.errors import DataError, HostError, TransferError
from biom3d.files import output_error, remove, replace, scratch_folder
from biom3d.remote import commands, tarstream
from biom3d.remote.channel import Command, LinkLost
from biom3d.remote.hashes import Cache, State
from biom3d.remote.host import Say
from biom3d.remote.lanes import Lanes
from biom3d.remote.packing import Stream
from biom3d.remote.progress import Part, Progress, Throttle
from biom3d.remote.ranges import BIG, Remote, fetch_big
from biom3d.remote.site import KEY, Site, read_hashes, store_name, zero_ended

BATCH_BYTES = 64 * 2**20
LANE_BYTES = 32 * 2**20
CHUNK = 2**18
TRIES = 4
LISTED = 200  # outputs per question: their names fit one command line
PACKED_FROM = 2**20  # bytes; below, a stream ends before packing has begun to pay


@dataclass(frozen=True)
class Found:
    """A file or folder that lies below an output, on the host. `name` is relative to the job's working folder."""

    name: str
    size: int
    is_folder: bool
    key: str = ""  # SHA-256, once it is known


def read_listing(out: bytes, outputs: Iterable[str]) -> tuple[Found, ...]:
    """Read what `list_outputs` prints; TransferError for anything that no honest job and host would have there."""
    tops = {str(PurePosixPath(name)) for name in outputs}
    found = []
    for record in filter(None, out.split(b"\0")):
        kind, size, raw = record.split(b" ", 2) if record.count(b" ") >= 2 else (b"?", b"0", record)
        name = raw.decode("utf-8", "surrogateescape").removeprefix("./")
        if not {"", ".", ".."}.isdisjoint(name.split("/")) or not _is_below(name, tops):
            raise TransferError(f"the host names a file outside of the outputs: {name!r}; refused")
        if kind not in (b"f", b"d") or not size.isdigit():
            what = "a symbolic link" if kind == b"l" else "no plain file"
            raise TransferError(f"output {name!r} is {what} on the host; a step must write plain files")
        found.append(Found(name, int(size) if kind == b"f" else 0, kind == b"d"))
    return tuple(sorted(found, key=lambda item: item.name))


def _is_below(name: str, tops: set[str]) -> bool:
    while name and name not in tops:
        name = name.rpartition("/")[0]
    return bool(name)


class Collector:
    """Brings outputs from one host; thread-safe."""

    def __init__(self, site: Site, cache: Cache) -> None:
        self._site = site
        self._cache = cache
        self._parallel = site.pool.settings.parallel
        limit = site.pool.settings.bandwidth_mb_s
        self._throttle = Throttle(limit * 1e6 if limit else None)
        self._brought: dict[PurePosixPath, tuple[Found, ...]] = {}

    def collect(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]], say: Say) -> tuple[str, ...]:
        """Bring outputs to their places; return the names of those that do not exist on the host.

        Raises:
            TransferError: they are not what was announced, or do not arrive.
            OutputError: they cannot be written here.
        """
        work = folder / "work"
        found = self._find(work, [name for name, _ in outputs])
        there = {item.name for item in found}
        wanted = [(name, target) for name, target in outputs if str(PurePosixPath(name)) in there]
        with ExitStack() as stack:
            scratch = {parent: stack.enter_context(_scratch(parent)) for parent in {t.parent for _, t in wanted}}
            places = [
                _Place(target, scratch[target.parent] / f"{number}", _members(name, found))
                for number, (name, target) in enumerate(wanted)
            ]
            self._fetch(work, [task for place in places for task in place.prepare(self._cache)], say)
            for output in places:
                output.put(self._cache)
        self._brought[folder] = (*self._brought.get(folder, ()), *found)
        return tuple(name for name, _ in outputs if str(PurePosixPath(name)) not in there)

    def keep(self, folder: PurePosixPath) -> None:
        """Put into the store what was brought from a job's folder, before that is removed: the next job may read it."""
        files = {item.name: item for item in self._brought.pop(folder, ()) if not item.is_folder and item.size}
        if not files:
            return
        base = folder.relative_to(self._site.root) / "work"
        pairs = (
            (f"{commands.STORE}/{store_name(item.key)}".encode(), os.fsencode(str(base / item.name)))
            for item in files.values()
        )
        names = zero_ended(f"./{name}" for name in files)
        line = commands.keep_outputs(self._site.root, folder / "work", len(names))
        # It only saves time: files that are another account's cannot be kept, and need not be.
        self._site.pool.execute(line, names + gzip.compress(tarstream.links(pairs), 1))

    def _find(self, work: PurePosixPath, names: Sequence[str]) -> tuple[Found, ...]:
        """Return what lies below the outputs, with the hashes of the files."""
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise DataError(f"output '{name}' lies outside of the working folder; name it by a path within")
        found: list[Found] = []
        keys: dict[str, str] = {}
        for start in range(0, len(names), LISTED):
            part = zero_ended(f"./{PurePosixPath(name)}" for name in names[start : start + LISTED])
            out = self._site.ask(commands.list_outputs(work, self._site.hasher), part).out
            listing, _, hashes = out.partition(b"\0\0") if not out.startswith(b"\0") else (b"", b"", b"")
            found += read_listing(listing, names)
            keys |= {name.removeprefix("./"): key for name, key in read_hashes(hashes).items()}
        found.sort(key=lambda item: item.name)
        keys |= self._hash_odd(work, [item.name for item in found if not item.is_folder and item.name not in keys])
        lacking = [item.name for item in found if not item.is_folder and item.name not in keys]
        if lacking:
            raise HostError(f"{self._site.name}: output '{lacking[0]}' cannot be read there; see whose file it is")
        return tuple(item if item.is_folder else dataclasses.replace(item, key=keys[item.name]) for item in found)

    def _hash_odd(self, work: PurePosixPath, names: Sequence[str]) -> dict[str, str]:
        """Return the hashes of files with line breaks or backslashes in their names."""
        if not names:
            return {}
        line = commands.hash_odd_files(work, self._site.hasher)
        lines = (
            self._site.ask(line, zero_ended(f"./{name}" for name in names)).out.decode(errors="replace").splitlines()
        )
        return {name: text[:64] for name, text in zip(names, lines, strict=False) if KEY.fullmatch(text[:64])}

    def _fetch(self, work: PurePosixPath, tasks: "Sequence[_Task]", say: Say) -> None:
        total = sum(task.found.size for task in tasks)
        if not tasks:
            return
        progress = Progress("fetching", total, say)
        lanes = Lanes(max(1, min(self._parallel, -(-total // LANE_BYTES))))
        for task in tasks:
            if task.found.size >= BIG:
                remote = Remote(self._site, work, task.found.name, task.found.size, task.found.key)
                fetch_big(remote, task.path, task.parent, lanes, self._throttle, progress.part())
        small = plan_batches([task for task in tasks if task.found.size < BIG])
        lanes.each(small, lambda batch, lane: self._fetch_batch(work, batch, lane, progress))
        if total >= PACKED_FROM:
            progress.finish()

    def _fetch_batch(self, work: PurePosixPath, batch: "Sequence[_Task]", lane: int, progress: Progress) -> None:
        """Fetch files in one stream; after a lost link, those that had not arrived."""
        left, failures = list(batch), 0
        while left:
            before = len(left)
            try:
                self._stream(work, left, lane, progress.part())
            except LinkLost:
                failures = failures + 1 if len(left) == before else 0
                if failures == TRIES:
                    raise

    def _stream(self, work: PurePosixPath, left: "list[_Task]", lane: int, part: Part) -> None:
        """Fetch files; those that have arrived are taken off the list."""
        is_packed = self._site.has_zstd and sum(task.found.size for task in left) >= PACKED_FROM
        names = zero_ended(f"./{task.found.name}" for task in left)
        with self._site.pool.start(commands.send_files(work, is_packed), lane) as command:
            command.feed(names)
            stream = Stream(command, is_packed, self._throttle)
            while left:
                task = left[0]
                if _save(stream, task) != task.found.key:
                    raise self._broken(command, task)
                part.add(task.found.size)
                left.pop(0)
            if stream.read(1):
                raise TransferError(f"{self._site.name}: the host sends more than it announced; refused")

    def _broken(self, command: Command, task: "_Task") -> Exception:
        code, err = command.finish() if not command.read(1) else (0, b"")
        if code:
            return self._site.failure(code, err)
        return TransferError(
            f"{self._site.name}: output '{task.found.name}' is not what it was a moment ago; does something still"
            " write to it there? Run the same command again"
        )


@dataclass(frozen=True)
class _Task:
    """A file to be fetched: what it is on the host, the new file here, the folder of the output's final place."""

    found: Found
    path: Path
    parent: Path


@dataclass(frozen=True)
class _Place:
    """An output here: its final place, where it is gathered until it is whole, its files and their names below it."""

    target: Path
    gathered: Path
    members: tuple[tuple[Found, str], ...]

    def prepare(self, cache: Cache) -> list[_Task]:
        """Make the folders, take files that are here already; return what is to be fetched."""
        here = self._here(cache)
        tasks = []
        with _writing(self.target):
            for item, below in self.members:
                path = self.gathered / below
                if item.is_folder:
                    path.mkdir(parents=True, exist_ok=True)
                elif here.get(below) == item.key:
                    os.link(self.target / below, path)
                else:
                    tasks.append(_Task(item, path, self.target.parent))
        return tasks

    def put(self, cache: Cache) -> None:
        """Put the whole output into its place, and remember what its files have."""
        with _writing(self.target):
            if self.gathered.is_dir() and self.target.exists() and not self.target.is_dir():
                remove(self.target)
            replace(self.gathered, self.target)
            top = self.target.absolute()
            files = [(top / below, item.key) for item, below in self.members if not item.is_folder]
            cache.learn_own((str(path), State.of(path.stat()), key) for path, key in files)

    def _here(self, cache: Cache) -> dict[str, str]:
        """Return the keys of files that have the same name and size, and are known."""
        if not os.path.lexists(self.target):
            return {}
        states: dict[str, State] = {}
        top = self.target.absolute()
        for item, below in self.members:
            path = top / below
            if not item.is_folder and path.is_file() and not path.is_symlink() and path.stat().st_size == item.size:
                states[str(path)] = State.of(path.stat())
        known = cache.find(states)
        return {below: known[text] for _, below in self.members if (text := str(top / below)) in known}


def _members(name: str, found: Sequence[Found]) -> tuple[tuple[Found, str], ...]:
    """Return what belongs to an output, with the names below it."""
    top = str(PurePosixPath(name))
    return tuple(
        (item, item.name[len(top) + 1 :]) for item in found if item.name == top or item.name.startswith(f"{top}/")
    )


def plan_batches(tasks: Sequence[_Task]) -> list[list[_Task]]:
    """Cut files into streams."""
    batches: list[list[_Task]] = []
    room = 0
    for task in tasks:
        if not batches or room < task.found.size:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(task)
        room -= task.found.size
    return batches


def _save(stream: Stream, task: _Task) -> str:
    """Write a file from the stream; return the hash of what came."""
    digest, left = hashlib.sha256(), task.found.size
    with _writing(task.path), open(task.path, "wb") as file:
        while left and (data := stream.read(min(CHUNK, left))):
            digest.update(data)
            file.write(data)
            left -= len(data)
    return digest.hexdigest()


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    with _writing(parent), scratch_folder(parent) as folder:
        yield folder


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error
