"""This machine as a host: inputs are read where they are, outputs are renamed into place."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biom3d.errors import DataError, HostError
from biom3d.files import atomic_path, output_error, remove, replace
from biom3d.remote import engine
from biom3d.remote.held import Held, gone, stood_for
from biom3d.remote.host import Entry, Finished, Mount, Say
from biom3d.remote.job import RUN, STEPS, WORK

if TYPE_CHECKING:
    import docker

# A folder with more inputs than this is mounted whole: every mount costs the engine about a millisecond.
FILES_OF_ONE_FOLDER = 64
MOVES = "moves.json"  # in a job's folder: outputs on their way to their places


class LocalHost:
    """This machine. `root` is ours and must lie on the file system of the outputs, which are renamed."""

    is_here = True

    def __init__(self, root: Path, engine_socket: str | None = None) -> None:
        self.name = "this machine"
        self.root = PurePosixPath(root.resolve())
        self._engine = engine.Connection(self.name, engine_socket)

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float | None = None, repeat: bool = False
    ) -> Finished:
        """Run a line of POSIX shell; HostError if there is no shell or the time is over."""
        try:
            done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, timeout=timeout_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"{self.name}: could not run '{command}': {error}") from error
        return Finished(done.returncode, done.stdout, done.stderr)

    def engine(self) -> "docker.DockerClient":
        """Return a client of this machine's container engine; ContainerError if there is none."""
        return self._engine.client()

    def user(self) -> tuple[int, int]:
        """Return our uid and gid."""
        return os.geteuid(), os.getegid()

    def free_bytes(self) -> int:
        """Return the free space of the file system that holds `root`."""
        Path(self.root).mkdir(parents=True, exist_ok=True)
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_frsize

    def identify(self, inputs: Iterable[tuple[str, Path]]) -> tuple[Entry, ...]:
        """Return an entry for every file; here size and time of change stand for the content, nothing is read."""
        given = list(inputs)
        for _, path in given:
            if stood_for(path) is not None:
                raise gone(path, self.name)
        return tuple(sorted((_entry(name, path) for name, path in _walk(given)), key=lambda entry: entry.name))

    def stage(self, folder: PurePosixPath, entries: Sequence[Entry], say: Say) -> tuple[Mount, ...]:
        """Return mounts of the files where they are; places for them are made, or the engine would, owned by root."""
        work = Path(folder) / WORK
        work.mkdir(parents=True, exist_ok=True)
        mounts = plan_mounts(entries, PurePosixPath("/job") / WORK)
        for mount in mounts:
            if mount.target.is_relative_to("/job"):
                _make_place(Path(folder) / mount.target.relative_to("/job"), Path(mount.source).is_dir())
        return mounts

    def write(self, path: PurePosixPath, content: bytes) -> None:
        """Write a small file, atomically."""
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(content)

    def write_scripts(self, folder: PurePosixPath, steps: bytes, run: bytes) -> None:
        """Write both scripts of a job."""
        self.write(folder / STEPS, steps)
        self.write(folder / RUN, run)

    def read(self, path: PurePosixPath) -> bytes | None:
        """Return the content of a small file, None if it is not there."""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None

    def collect(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]], say: Say) -> tuple[str, ...]:
        """Rename outputs into their places; return the names that are not there.

        What is about to move is written down first, so that a collection cut short is told from a missing output.
        """
        work = Path(folder) / WORK
        moving = _read_moves(Path(folder)) | {
            name: _inode(work / name) for name, _ in outputs if (work / name).exists()
        }
        self.write(folder / MOVES, json.dumps(moving).encode())
        missing = []
        for name, target in outputs:
            if (work / name).exists():
                _move(work / name, target)
            elif not (target.exists() and moving.get(name) == _inode(target)):
                missing.append(name)
        return tuple(missing)

    def hold(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]]) -> tuple[Held, ...]:
        """Nothing is held: what a job makes is here."""
        raise AssertionError(outputs)

    def find_damaged(self, entries: Sequence[Entry]) -> list[Entry]:
        """Nothing was sent: jobs read the files that are here."""
        return []

    def let_go(self, names: Iterable[str]) -> None:
        """Nothing is held."""
        raise AssertionError(names)

    def keep(self, folder: PurePosixPath) -> None:
        """Nothing was brought: outputs were renamed into their places."""

    def remove(self, folder: PurePosixPath) -> None:
        """Remove a job's folder."""
        remove(Path(folder))

    def close(self) -> None:
        """Nothing is open here but the engine's client."""
        self._engine.close()


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and target.exists() and not target.is_dir():
            remove(target)
        replace(source, target)
    except OSError as error:
        raise output_error(target, error) from error


def _read_moves(folder: Path) -> dict[str, list[int]]:
    try:
        moves: dict[str, list[int]] = json.loads((folder / MOVES).read_bytes())
    except FileNotFoundError:
        return {}
    return moves


def _inode(path: Path) -> list[int]:
    """Return what a file keeps when it is renamed."""
    facts = path.stat()
    return [facts.st_dev, facts.st_ino]


def plan_mounts(entries: Sequence[Entry], work: PurePosixPath) -> tuple[Mount, ...]:
    """Return read-only mounts that bring each entry to its name; a folder with very many of them comes whole.

    Files of one folder may be mounted as a folder only when their names there are the names here.
    """
    groups: dict[tuple[Path, PurePosixPath], list[Entry]] = {}
    for entry in entries:
        target = work / entry.name
        same_name = entry.source.name == target.name
        key = (entry.source.parent, target.parent) if same_name else (entry.source, target)
        groups.setdefault(key, []).append(entry)
    folders: list[Mount] = []
    files: list[Mount] = []
    for (source, target), members in groups.items():
        if len(members) > FILES_OF_ONE_FOLDER and target != work:
            folders.append(Mount(PurePosixPath(source), target))
        else:
            files += [Mount(PurePosixPath(entry.source), work / entry.name) for entry in members]
    needed = [*folders, *(mount for mount in files if not any(_brings(folder, mount) for folder in folders))]
    # A folder comes before what is mounted into it.
    return tuple(sorted(needed, key=lambda mount: (len(mount.target.parts), str(mount.target))))


def _brings(folder: Mount, mount: Mount) -> bool:
    if not (mount.target.is_relative_to(folder.target) and mount.source.is_relative_to(folder.source)):
        return False
    return mount.target.relative_to(folder.target) == mount.source.relative_to(folder.source)


def _walk(inputs: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    for name, path in inputs:
        if path.is_dir():
            yield from _walk((f"{name}/{child.name}", child) for child in sorted(path.iterdir()))
        else:
            yield name, path


def _entry(name: str, path: Path) -> Entry:
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"input '{path}': {error.strerror}; is it still there, and may you read it?") from error
    key = f"{facts.st_dev}-{facts.st_ino}-{facts.st_size}-{facts.st_mtime_ns}"
    return Entry(name, path.resolve(), key, facts.st_size)


def _make_place(path: Path, is_folder: bool) -> None:
    if is_folder:
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():  # of a job without a container: touching it would touch the input itself
            path.touch()
