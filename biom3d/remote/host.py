"""The seam between a job and the machine that runs it: what a host can do.

Two implementations, `local.LocalHost` and `ssh.SSHHost`, pass the same tests (tests/remote/test_host.py).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import docker

    from biom3d.remote.held import Held

Say = Callable[[str], None]  # takes a line for the person who waits
FULL_BYTES = 2**16  # less is free: the disk is full


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: bytes
    err: bytes


@dataclass(frozen=True)
class Entry:
    """One file that a job reads.

    `name` is where the job finds it: a path relative to its working folder, or an absolute one. `source` is the file
    here, on the client. `key` says which content it has: equal keys, equal content. `size` is in bytes. `resident`: it
    lies on the host already, in or at this path below the working folder there, and `source` only stands for it.
    """

    name: str
    source: Path
    key: str
    size: int
    resident: str | None = None


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host that the job's container sees at `target`."""

    source: PurePosixPath
    target: PurePosixPath
    read_only: bool = True


class Host(Protocol):
    """A machine that runs jobs. All methods may be called from several threads."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether it is this machine: what it makes is here already, and need not be held there."""
        ...

    @property
    def root(self) -> PurePosixPath:
        """Our folder on the host; jobs/ID/ in it are the jobs' own folders, with work/ in each."""
        ...

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float | None = None, repeat: bool = False
    ) -> Finished:
        """Run a line of POSIX shell on the host; HostError if the host cannot be asked.

        `repeat`: it may run twice, which saves the question whether the line is alive, and is done if it was not.
        """
        ...

    def engine(self) -> "docker.DockerClient":
        """Return a client of the host's container engine; ContainerError if there is none or it refuses."""
        ...

    def user(self) -> tuple[int, int]:
        """Return uid and gid of our account on the host."""
        ...

    def free_bytes(self) -> int:
        """Return the free space of the file system that holds `root`."""
        ...

    def identify(self, inputs: Iterable[tuple[str, Path]]) -> tuple[Entry, ...]:
        """Return an entry for every file of `inputs` (name for the job, path here); folders are walked.

        A manifest stands for what lies on the host only. DataError for what is not there. Sorted by name.
        """
        ...

    def stage(self, folder: PurePosixPath, entries: Sequence[Entry], say: Say) -> tuple[Mount, ...]:
        """Make the entries readable by the job that works in `folder`; nothing is sent that is there already.

        Afterwards an entry is at `folder`/work/NAME, or one of the mounts returned brings it there. Entries with an
        absolute name always come by a mount.
        """
        ...

    def write(self, path: PurePosixPath, content: bytes) -> None:
        """Write a small file on the host, atomically; folders are made."""
        ...

    def write_scripts(self, folder: PurePosixPath, steps: bytes, run: bytes) -> None:
        """Write both scripts of the job that works in `folder`; each appears when all of it is there."""
        ...

    def read(self, path: PurePosixPath) -> bytes | None:
        """Return the content of a small file on the host, None if it is not there."""
        ...

    def collect(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]], say: Say) -> tuple[str, ...]:
        """Bring files and folders from `folder`/work/NAME to their places here; each replaces the old one when whole.

        Return the names that do not exist on the host; the others have arrived, verified.
        """
        ...

    def hold(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]]) -> "tuple[Held, ...]":
        """Leave outputs (folders) where later jobs find them, and put here what stands for them; see held.py.

        Return what is held now: not those that do not exist on the host.
        """
        ...

    def find_damaged(self, entries: Sequence[Entry]) -> list[Entry]:
        """Read again what was sent for these; return those that are not what they were, to be sent again."""
        ...

    def let_go(self, names: Iterable[str]) -> None:
        """Remove these contents, which were held, unless a job has them."""
        ...

    def keep(self, folder: PurePosixPath) -> None:
        """Let later jobs use what was brought from a job's folder after that is removed, where it saves sending it."""
        ...

    def remove(self, folder: PurePosixPath) -> None:
        """Remove a job's folder on the host; nothing happens if it is not there."""
        ...

    def close(self) -> None:
        """End connections; jobs go on."""
        ...
