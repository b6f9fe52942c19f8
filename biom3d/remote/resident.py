"""Data that lie in a host's working folder and stay there: what they are, and how a job sees them.

Nothing of them comes here but names, sizes and hashes, which a manifest keeps (manifest.py). What `biom3d remote send`
has brought is linked from the store, which knows its hash; all else is read there once, and remembered here by inode,
size and times, like files of ours. A job sees the folder itself, read-only.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from biom3d.errors import DataError
from biom3d.remote import commands, questions
from biom3d.remote.hashes import SETTLED_NS, Cache, State
from biom3d.remote.host import Entry, Mount, Say
from biom3d.remote.job import FOLDER, WORK
from biom3d.remote.manifest import Item, Manifest, read_manifest
from biom3d.remote.progress import Progress, size_text
from biom3d.remote.site import KEY, Site, read_hashes, shown, zero_ended

NOT_THERE = 66
BATCH_BYTES = 2**30  # hashed by one command; after each, what is known is remembered
BATCH_FILES = 1000
ODD = re.compile(r"[\n\\]")  # in names: hashing tools write them otherwise
AGAIN = "run the same command again: it asks the server anew, and computes what depends on it"

IsWanted = Callable[[str], bool]  # takes a name below the path


@dataclass(frozen=True)
class Seen:
    """One file there; `device` and `state.inode` tell it from all others of the host."""

    device: int
    state: State


class Residents:
    """What lies in the working folder of one host; thread-safe."""

    def __init__(self, site: Site, cache: Cache) -> None:
        self._site = site
        self._cache = cache
        self._is_checked = site.pool.settings.check_store
        self._workdir = site.root.parent
        self._lock = threading.Lock()
        self._known: dict[PurePosixPath, tuple[Seen, str]] = {}  # what was found before, and its hash

    def describe(self, path: str, is_wanted: IsWanted, say: Say) -> Manifest:
        """Return what lies at `path`, relative to the working folder.

        Raises:
            DataError: nothing is there, or a link, or something that changes while it is read.
        """
        with self._lock:
            seen, now_ns = self._list(path, is_wanted)
            keys = self._identify(path, seen, now_ns, say)
            return Manifest(path, tuple(sorted(Item(name, seen[name].state.size, key) for name, key in keys.items())))

    def identify(self, manifest_file: Path) -> tuple[Entry, ...]:
        """Return entries for what a manifest stands for, after a look whether it is still there as it says.

        Raises:
            DataError: it is not.
        """
        manifest = read_manifest(manifest_file)
        names = {item.name for item in manifest.files}
        found = self.describe(manifest.path, names.__contains__, lambda line: None)
        gone = sorted(names - {item.name for item in found.files})
        changed = sorted({item.name for item in manifest.files} & {i.name for i in {*found.files} - {*manifest.files}})
        for what, which in (("is no longer there", gone), ("is not what it was", changed)):
            if which:
                raise DataError(f"{self._site.name}: '{_joined(manifest.path, which[0])}' {what}; {AGAIN}")
        return tuple(
            Entry(str(PurePosixPath(manifest.path) / item.name), manifest_file, item.key, item.size, manifest.path)
            for item in manifest.files
        )

    def mount(self, folder: PurePosixPath, entries: Sequence[Entry]) -> tuple[Mount, ...]:
        """Return mounts that bring the entries to the job that works in `folder`; places for them are made."""
        single = {entry.resident: entry.name == entry.resident for entry in entries if entry.resident}
        if not single:
            return ()
        folders = tuple(path for path, is_file in single.items() if not is_file)
        files = tuple(path for path, is_file in single.items() if is_file)
        self._site.ask(questions.make_places(folder / WORK, folders, files))
        target = PurePosixPath(FOLDER) / WORK
        return tuple(Mount(self._workdir / path, target / path) for path in sorted(single))

    def _list(self, path: str, is_wanted: IsWanted) -> tuple[dict[str, Seen], int]:
        """Return the wanted files at `path`, and the host's time in ns."""
        done = self._site.pool.execute(questions.list_states(self._workdir, path), repeat=True)
        if done.code == NOT_THERE:
            raise DataError(
                f"{self._site.name}: there is no '{path}' in '{self._workdir}'; 'biom3d remote datasets' and 'models'"
                " list what is there, 'biom3d remote send' brings a data set"
            )
        if done.code:
            raise self._site.failure(done.code, done.err)
        time_s, _, listing = done.out.partition(b"\n")
        seen = {}
        for record in filter(None, listing.split(b"\0")):
            kind, device, inode, size, changed, touched, raw = record.split(b" ", 6)
            name = raw.decode("utf-8", "surrogateescape")
            if kind == b"d" or (name and not is_wanted(name)):
                continue
            if kind != b"f":
                what = "a symbolic link, and a job does not see where it leads" if kind == b"l" else "no plain file"
                raise DataError(f"{self._site.name}: '{_joined(path, name)}' is {what}; put the file itself there")
            seen[name] = Seen(int(device), State(int(inode), int(size), _ns(changed), _ns(touched)))
        return seen, int(time_s) * 10**9

    def _identify(self, path: str, seen: Mapping[str, Seen], now_ns: int, say: Say) -> dict[str, str]:
        """Return name -> hash; only what nobody knows is read."""
        places = {name: self._workdir / path / name for name in seen}
        keys = {name: known[1] for name in seen if (known := self._known.get(places[name])) and known[0] == seen[name]}
        if not self._is_checked:
            keys |= self._find_stored({name: seen[name] for name in seen if name not in keys})
            states = {self._label(path, name): seen[name].state for name in seen if name not in keys}
            remembered = self._cache.find(states)
            keys |= {name: key for name in seen if (key := remembered.get(self._label(path, name)))}
        unknown = {name: seen[name] for name in seen if name not in keys}
        if unknown:
            keys |= self._read(path, unknown, now_ns, say)
        self._known |= {places[name]: (seen[name], key) for name, key in keys.items()}
        return keys

    def _find_stored(self, seen: Mapping[str, Seen]) -> dict[str, str]:
        """Return the hashes of files that the store links: they are their names there."""
        stamped = {name: file for name, file in seen.items() if file.state.mtime_ns // 10**9 == commands.STAMP}
        if not stamped:
            return {}
        wanted = "".join(f"{file.device} {file.state.inode}\n" for file in stamped.values()).encode()
        answer = self._site.ask(questions.find_stored(self._site.root), wanted).out
        rows = (line.split() for line in answer.splitlines())
        stored = {(int(row[0]), int(row[1])): row[2].decode(errors="replace") for row in rows if len(row) == 3}
        found = {name: stored.get((file.device, file.state.inode), "") for name, file in stamped.items()}
        return {name: key for name, key in found.items() if KEY.fullmatch(key)}

    def _read(self, path: str, seen: Mapping[str, Seen], now_ns: int, say: Say) -> dict[str, str]:
        """Have files hashed there, and remember those that have been at rest for a while."""
        total = sum(file.state.size for file in seen.values())
        say(f"{path}: {self._site.name} reads {len(seen)} new file(s), {size_text(total)}, to learn what they hold")
        progress = Progress("reading there", total, say)
        keys: dict[str, str] = {}
        for batch in _batches(seen):
            keys |= self._hash(path, batch)
            progress.add(sum(seen[name].state.size for name in batch))
            after, _ = self._list(path, set(batch).__contains__)
            busy = [name for name in batch if name not in keys or not _is_same(after.get(name), seen[name])]
            if busy:
                where = _joined(path, busy[0])
                raise DataError(f"{self._site.name}: '{where}' changes while it is read; wait until it is complete")
            settled = [
                name
                for name in batch
                if max(seen[name].state.mtime_ns, seen[name].state.ctime_ns) < now_ns - SETTLED_NS
            ]
            self._cache.learn_own((self._label(path, name), seen[name].state, keys[name]) for name in settled)
        return keys

    def _hash(self, path: str, names: Sequence[str]) -> dict[str, str]:
        """Return name -> hash of files below `path`, or of `path` itself, which is called ''."""
        folder = self._workdir / path
        if not names[0]:
            own = self._hash_in(folder.parent, [folder.name])
            return {"": own[folder.name]} if own else {}
        return self._hash_in(folder, names)

    def _hash_in(self, folder: PurePosixPath, names: Sequence[str]) -> dict[str, str]:
        plain = zero_ended(f"./{name}" for name in names if not ODD.search(name))
        odd = [name for name in names if ODD.search(name)]
        hasher, keys = self._site.hasher, {}
        if plain:
            out = self._site.ask(commands.hash_files(folder, hasher), plain).out
            keys = {name.removeprefix("./"): key for name, key in read_hashes(out).items()}
        if odd:
            given = zero_ended(f"./{name}" for name in odd)
            lines = self._site.ask(commands.hash_odd_files(folder, hasher), given).out.decode(errors="replace")
            keys |= {name: line[:64] for name, line in zip(odd, lines.splitlines(), strict=False)}
        return {name: key for name, key in keys.items() if KEY.fullmatch(key)}

    def _label(self, path: str, name: str) -> str:
        """Return under which name the cache here keeps a file there."""
        return f"{self._site.name}:{self._workdir / path / name}"


def _is_same(after: Seen | None, before: Seen) -> bool:
    """Say whether nobody wrote to a file; a new link to it changes the other time."""
    return after is not None and replace(after.state, ctime_ns=0) == replace(before.state, ctime_ns=0)


def _batches(seen: Mapping[str, Seen]) -> list[list[str]]:
    """Cut what is to be hashed into parts that end in a minute or so."""
    batches: list[list[str]] = []
    room = 0
    for name, file in seen.items():
        if not batches or room < file.state.size or len(batches[-1]) >= BATCH_FILES:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(name)
        room -= file.state.size
    return batches


def _ns(seconds: bytes) -> int:
    """Read what `find` prints of a time: `1700000000.1234567890`, the tenth digit is always 0."""
    whole, _, fraction = seconds.partition(b".")
    return int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))


def _joined(path: str, name: str) -> str:
    """Return the whole name, fit for a message."""
    return shown(str(PurePosixPath(path) / name).encode("utf-8", "surrogateescape"))
