"""Bringing a job's outputs home from an SSH host: listed, sent in one stream or in pieces, verified, put in place."""

import gzip
import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from biom3d.errors import DataError, TransferError
from biom3d.files import output_error, remove, replace, scratch_folder
from biom3d.remote import commands, tarstream
from biom3d.remote.channel import Command, LinkLost
from biom3d.remote.hashes import Cache, State
from biom3d.remote.host import Finished, Say
from biom3d.remote.lanes import Lanes
from biom3d.remote.listing import Found, Listing
from biom3d.remote.manifest import Item
from biom3d.remote.packing import Stream
from biom3d.remote.progress import Part, Progress, Throttle
from biom3d.remote.ranges import BIG, Remote, fetch_big
from biom3d.remote.site import Site, packed, store_name, zero_ended

BATCH_BYTES = 64 * 2**20
LANE_BYTES = 32 * 2**20
CHUNK = 2**18
TRIES = 4
EARLY_FROM = 2**20  # bytes; what is more begins to come while the host still reads it for its hashes
PACKED_FROM = 2**20  # bytes; below, a stream ends before packing has begun to pay


class Collector:
    """Brings outputs from one host; thread-safe."""

    def __init__(self, site: Site, cache: Cache) -> None:
        self._site = site
        self._cache = cache
        self._parallel = site.pool.settings.parallel
        limit = site.pool.settings.bandwidth_mb_s
        self._throttle = Throttle(limit * 1e6 if limit else None)
        self._brought: dict[PurePosixPath, dict[str, str]] = {}  # of a job's folder: name -> key

    def collect(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]], say: Say) -> tuple[str, ...]:
        """Bring outputs to their places; return the names of those that do not exist on the host.

        Raises:
            TransferError: they are not what was announced, or do not arrive.
            OutputError: they cannot be written here.
        """
        work = folder / "work"
        listing = _list(self._site, work, [name for name, _ in outputs])
        found = listing.find()
        there = {item.name for item in found}
        wanted = [(name, target) for name, target in outputs if str(PurePosixPath(name)) in there]
        # What is here already need not come; where nothing is, the host reads its files while they come.
        is_known = sum(item.size for item in found) < EARLY_FROM or any(os.path.lexists(target) for _, target in wanted)
        keys = listing.read_keys(found) if is_known else {}
        with ExitStack() as stack:
            scratch = {parent: stack.enter_context(_scratch(parent)) for parent in {t.parent for _, t in wanted}}
            places = [
                _Place(target, scratch[target.parent] / f"{number}", _members(name, found))
                for number, (name, target) in enumerate(wanted)
            ]
            tasks = [task for place in places for task in place.prepare(self._cache, keys)]
            arrived = self._fetch(work, tasks, listing, say)
            keys = keys or listing.read_keys(found)
            for task in tasks:
                if arrived[task.found.name] != keys[task.found.name]:
                    raise self._changed(task)
            for output in places:
                output.put(self._cache, keys)
        files = {item.name: keys[item.name] for item in found if not item.is_folder and item.size}
        self._brought[folder] = self._brought.get(folder, {}) | files
        return tuple(name for name, _ in outputs if str(PurePosixPath(name)) not in there)

    def hold(self, folder: PurePosixPath, outputs: Sequence[str]) -> dict[str, tuple[Item, ...]]:
        """Put outputs (folders) into the store, without bringing them; return the files of those that are there.

        Raises:
            TransferError, HostError: they cannot be put there.
        """
        listing = _list(self._site, folder / "work", outputs)
        found = listing.find()
        keys = listing.read_keys(found)
        files = {item.name: keys[item.name] for item in found if not item.is_folder}
        done = self._store(folder, files)
        if done.code:
            raise self._site.failure(done.code, done.err)
        there = {item.name for item in found}
        return {
            name: tuple(
                Item(below, item.size, keys[item.name]) for item, below in _members(name, found) if not item.is_folder
            )
            for name in outputs
            if str(PurePosixPath(name)) in there
        }

    def keep(self, folder: PurePosixPath) -> None:
        """Put into the store what was brought from a job's folder, before that is removed: the next job may read it."""
        files = self._brought.pop(folder, {})
        if files:
            # It only saves time: files that are another account's cannot be kept, and need not be.
            self._store(folder, files)

    def _store(self, folder: PurePosixPath, files: dict[str, str]) -> Finished:
        """Link files of a job's folder (name -> hash) into the store."""
        base = folder.relative_to(self._site.root) / "work"
        pairs = (
            (f"{commands.STORE}/{store_name(key)}".encode(), os.fsencode(f"{base}/{name}"))
            for name, key in files.items()
        )
        names = zero_ended(f"./{name}" for name in files)
        line = commands.keep_outputs(self._site.root, folder / "work", len(names))
        return self._site.pool.execute(line, names + gzip.compress(tarstream.links(pairs), 1), repeat=True)

    def _fetch(self, work: PurePosixPath, tasks: "Sequence[_Task]", listing: Listing, say: Say) -> dict[str, str]:
        """Fetch files; return the hashes of what arrived."""
        total = sum(task.found.size for task in tasks)
        arrived: dict[str, str] = {}
        if not tasks:
            return arrived
        progress = Progress("fetching", total, say)
        lanes = Lanes(max(1, min(self._parallel, -(-total // LANE_BYTES))))
        self._site.pool.open_ahead(lanes.connections)
        for task in tasks:
            if task.found.size >= BIG:
                remote = Remote(self._site, work, task.found.name, task.found.size)
                arrived[task.found.name] = fetch_big(
                    remote, Path(task.path), task.parent, lanes, self._throttle, progress.part(), listing.read_key
                )
        small = plan_batches([task for task in tasks if task.found.size < BIG])
        lanes.each(small, lambda batch, lane: self._fetch_batch(work, batch, arrived, lane, progress))
        if total >= PACKED_FROM:
            progress.finish()
        return arrived

    def _fetch_batch(
        self, work: PurePosixPath, batch: "Sequence[_Task]", arrived: dict[str, str], lane: int, progress: Progress
    ) -> None:
        """Fetch files in one stream; after a lost link, those that had not arrived."""
        left, failures = deque(batch), 0
        while left:
            before = len(left)
            try:
                self._stream(work, left, arrived, lane, progress.part())
            except LinkLost:
                failures = failures + 1 if len(left) == before else 0
                if failures == TRIES:
                    raise

    def _stream(
        self, work: PurePosixPath, left: "deque[_Task]", arrived: dict[str, str], lane: int, part: Part
    ) -> None:
        """Fetch files; those that have arrived are taken off the list."""
        is_packed = self._site.has_zstd and sum(task.found.size for task in left) >= PACKED_FROM
        names, has_packed_names = packed(zero_ended(f"./{task.found.name}" for task in left))
        line = commands.send_files(work, is_packed, has_packed_names)
        with self._site.pool.start(line, lane) as command:
            command.feed(names)
            stream = Stream(command, is_packed, self._throttle)
            while left:
                task = left[0]
                key = _save(stream, task)
                if key is None:
                    raise self._broken(command, task)
                arrived[task.found.name] = key
                part.add(task.found.size)
                left.popleft()
            if stream.read(1):
                raise TransferError(f"{self._site.name}: the host sends more than it announced; refused")

    def _broken(self, command: Command, task: "_Task") -> Exception:
        code, err = command.finish() if not command.read(1) else (0, b"")
        return self._site.failure(code, err) if code else self._changed(task)

    def _changed(self, task: "_Task") -> Exception:
        return TransferError(
            f"{self._site.name}: output '{task.found.name}' is not what it was a moment ago; does something still"
            " write to it there? Run the same command again"
        )


@dataclass(frozen=True)
class _Task:
    """A file to be fetched: what it is on the host, the new file here, the folder of the output's final place."""

    found: Found
    path: str
    parent: Path


@dataclass(frozen=True)
class _Place:
    """An output here: its final place, where it is gathered until it is whole, its files and their names below it."""

    target: Path
    gathered: Path
    members: tuple[tuple[Found, str], ...]

    def prepare(self, cache: Cache, keys: dict[str, str]) -> list[_Task]:
        """Make the folders, take files that are here already; return what is to be fetched."""
        here = self._here(cache)
        tasks = []
        with _writing(self.target):
            for item, below in self.members:
                path = _join(self.gathered, below)
                if item.is_folder:
                    Path(path).mkdir(parents=True, exist_ok=True)
                elif below in here and here[below] == keys.get(item.name):
                    os.link(self.target / below, path)
                else:
                    tasks.append(_Task(item, path, self.target.parent))
        return tasks

    def put(self, cache: Cache, keys: dict[str, str]) -> None:
        """Put the whole output into its place, and remember what its files have."""
        with _writing(self.target):
            if self.gathered.is_dir() and self.target.exists() and not self.target.is_dir():
                remove(self.target)
            replace(self.gathered, self.target)
            top = self.target.absolute()
            files = [(_join(top, below), keys[item.name]) for item, below in self.members if not item.is_folder]
            cache.learn_own((path, State.of(os.stat(path)), key) for path, key in files)  # noqa: PTH116

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


def _join(folder: Path, below: str) -> str:
    """Return a path as text: 5,000 of them take 2 ms, as Path objects 40."""
    return f"{folder}/{below}" if below else str(folder)


def _list(site: Site, work: PurePosixPath, names: Sequence[str]) -> Listing:
    """Ask what lies below the outputs."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise DataError(f"output '{name}' lies outside of the working folder; name it by a path within")
    return Listing(site, work, names)


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


def _save(stream: Stream, task: _Task) -> str | None:
    """Write a file from the stream; return the hash of what came, None if that was too short."""
    digest, left = hashlib.sha256(), task.found.size
    with _writing(task.path), open(task.path, "wb", buffering=0) as file:
        while left and (data := stream.read(min(CHUNK, left))):
            digest.update(data)
            file.write(data)
            left -= len(data)
    return None if left else digest.hexdigest()


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    with _writing(parent), scratch_folder(parent) as folder:
        yield folder


@contextmanager
def _writing(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(Path(path), error) from error
