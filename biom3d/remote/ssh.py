"""A host reached by SSH: commands, files and its container engine over connections that are made again when lost."""

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from biom3d.errors import HostError
from biom3d.remote import commands, hashes, held, questions
from biom3d.remote.auth import find_person
from biom3d.remote.channel import Pool
from biom3d.remote.collect import Collector
from biom3d.remote.dial import connect_engine
from biom3d.remote.host import Entry, Finished, Mount, Say
from biom3d.remote.hostkeys import Person
from biom3d.remote.manifest import is_manifest
from biom3d.remote.progress import size_text
from biom3d.remote.resident import Residents
from biom3d.remote.site import Site, look, store_name, zero_ended
from biom3d.remote.ssh_config import SSHSettings
from biom3d.remote.staging import Stager

if TYPE_CHECKING:
    import docker

FOLDER = ".biom3d"  # below workdir: all that is ours on the host
NOT_THERE = 66


class SSHHost:
    """A machine reached by SSH; see `host.Host`. It is connected to when first needed, and again when that is lost."""

    def __init__(self, settings: SSHSettings, person: Person | None = None, cache: Path | None = None) -> None:
        """Prepare; `person` answers questions (default: whoever sits at the terminal), `cache` keeps local hashes.

        Raises:
            ConfigError: a name, a port, a key file or ~/.ssh/config cannot be used.
        """
        self.name = settings.host
        self.settings = settings
        self._pool = Pool(settings, person or find_person())
        self._cache = hashes.Cache(cache)
        self._lock = threading.Lock()
        self._connecting = threading.Lock()  # to the engine, which may take long; closing does not wait for it
        self._looked: tuple[Site, Stager, Collector] | None = None
        self._engine: docker.DockerClient | None = None
        self._residents: Residents | None = None

    is_here = False

    @property
    def residents(self) -> Residents:
        """What lies in the working folder there and is used without a copy here."""
        site = self._look()[0]
        with self._lock:
            self._residents = self._residents or Residents(site, self._cache)
            return self._residents

    @property
    def root(self) -> PurePosixPath:
        """Our folder on the host; the host is asked where that is."""
        return self._look()[0].root

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float | None = None, repeat: bool = False
    ) -> Finished:
        """Run a line of POSIX shell on the host; HostError if the host cannot be asked, or too much time is over."""
        return self._pool.execute(command, stdin, timeout_s, repeat)

    def engine(self) -> "docker.DockerClient":
        """Return a client of the host's container engine; ContainerError if there is none or it refuses."""
        site = self._look()[0]
        with self._connecting:
            if self._engine is None:
                self._engine = connect_engine(site, self.settings.engine_socket)
            return self._engine

    def user(self) -> tuple[int, int]:
        """Return uid and gid of our account on the host."""
        site = self._look()[0]
        return site.uid, site.gid

    def free_bytes(self) -> int:
        """Return the free space of the file system that holds `root`."""
        site = self._look()[0]
        blocks, size = site.ask(commands.free_bytes(site.root)).out.split()
        return int(blocks) * int(size)

    def identify(self, inputs: Iterable[tuple[str, Path]]) -> tuple[Entry, ...]:
        """Return an entry for every file of `inputs`, by its content; see `hashes.identify` and `resident`."""
        here: list[tuple[str, Path]] = []
        there: list[Entry] = []
        for name, path in inputs:
            if is_manifest(path):
                there += self.residents.identify(path)
            elif (stays := held.stood_for(path)) is not None:
                there += held.entries_of(stays, name, path)
            else:
                here.append((name, path))
        return tuple(sorted((*hashes.identify(here, self._cache), *there), key=lambda entry: entry.name))

    def stage(self, folder: PurePosixPath, entries: Sequence[Entry], say: Say) -> tuple[Mount, ...]:
        """Make the entries readable by the job that works in `folder`; see `staging.Stager`."""
        stager = self._look()[1]
        there = [entry for entry in entries if entry.resident]
        if there:
            say(f"{len(there)} file(s), {size_text(sum(entry.size for entry in there))}, lie on the server")
        mounts = self.residents.mount(self._own(folder), there)
        here = [entry for entry in entries if not entry.resident]
        if lost := self.lacking([entry for entry in here if entry.source.name == held.FILE]):
            raise held.gone(lost[0].source.parent, self.name)
        return (*stager.stage(self._own(folder), here, say), *mounts)

    def lacking(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries that would have to be sent; see `forecast`."""
        return self._look()[0].find_missing([entry for entry in entries if not entry.resident])

    def write(self, path: PurePosixPath, content: bytes) -> None:
        """Write a small file on the host, atomically; folders are made."""
        self._put(lambda temporary: commands.write_file(path, temporary, len(content)), content)

    def write_scripts(self, folder: PurePosixPath, steps: bytes, run: bytes) -> None:
        """Write both scripts of a job in one command."""
        self._put(lambda new: commands.write_scripts(self._own(folder), new, len(steps), len(run)), steps + run)

    def _put(self, line_for: Callable[[str], str], content: bytes) -> None:
        site = self._look()[0]

        def attempt() -> Finished:
            # A name of its own for each: what is left of one that was cut off must not take away the next one's file.
            with self._pool.start(line_for(f"tmp-{uuid.uuid4().hex[:12]}")) as command:
                return command.complete(content)

        done = self._pool.again(attempt)
        if done.code:
            raise site.failure(done.code, done.err)

    def read(self, path: PurePosixPath) -> bytes | None:
        """Return the content of a small file on the host, None if it is not there."""
        site = self._look()[0]
        done = self._pool.execute(commands.read_file(path), repeat=True)
        if done.code == NOT_THERE:
            return None
        if done.code:
            raise site.failure(done.code, done.err)
        return done.out

    def collect(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]], say: Say) -> tuple[str, ...]:
        """Bring outputs home, verified; return the names of those that do not exist; see `collect.Collector`."""
        return self._look()[2].collect(self._own(folder), outputs, say)

    def hold(self, folder: PurePosixPath, outputs: Sequence[tuple[str, Path]]) -> tuple[held.Held, ...]:
        """Leave outputs (folders) in the store, and put here what stands for them."""
        collector = self._look()[2]
        files = collector.hold(self._own(folder), [name for name, _ in outputs])
        made = {name: held.Held(self.name, folder.name, name, files[name]) for name, _ in outputs if name in files}
        for name, target in outputs:
            if name in made:
                held.put_stand_in(made[name], target)
        return tuple(made.values())

    def find_damaged(self, entries: Sequence[Entry]) -> list[Entry]:
        """Have the host hash its copies again; those that are damaged leave the store, so that they are sent again."""
        site = self._look()[0]
        sent = [entry for entry in entries if not entry.resident]
        keys = {entry.key for entry in site.find_missing(sent, is_checked=True)}
        if keys:
            site.ask(questions.drop_damaged(site.root), zero_ended(map(store_name, keys)))
        return [entry for entry in sent if entry.key in keys]

    def let_go(self, names: Iterable[str]) -> None:
        """Remove contents from the store that no job has linked."""
        site = self._look()[0]
        site.ask(questions.drop_unused(site.root), zero_ended(map(store_name, names)))

    def keep(self, folder: PurePosixPath) -> None:
        """Put into the store what was brought from a job's folder."""
        self._look()[2].keep(self._own(folder))

    def remove(self, folder: PurePosixPath) -> None:
        """Remove a job's folder; what was brought from it stays in the store."""
        site = self._look()[0]
        self.keep(folder)
        site.ask(commands.remove_folder(folder))

    def close(self) -> None:
        """End the connections; jobs go on."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        self._pool.close()

    def _look(self) -> tuple[Site, Stager, Collector]:
        with self._lock:
            if self._looked is None:
                site = look(self._pool, self.settings.workdir, self.name)
                self._looked = (site, Stager(site, self.settings.check_store), Collector(site, self._cache))
            return self._looked

    def _own(self, folder: PurePosixPath) -> PurePosixPath:
        root = self.root
        if not folder.is_relative_to(root) or folder == root or ".." in folder.parts:
            raise HostError(f"{self.name}: '{folder}' is no folder of a job; wanted one below '{root}'")
        return folder
