"""Jobs in a Python environment of the host, without a container engine: a detached runner supervises each of them."""

import gzip
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from biom3d import __version__
from biom3d.errors import ConfigError, HostError
from biom3d.remote import gpus, venv_lines
from biom3d.remote.ends import GRACE_S, REMOVED, End
from biom3d.remote.follow import Follower, shown_line
from biom3d.remote.host import FULL_BYTES, Entry, Finished, Host, Mount, Say
from biom3d.remote.job import FOLDER, WORK
from biom3d.remote.processes import find_marked, mark
from biom3d.remote.runtime import VENV, Capacity, Found, Launch, Seen, Software, seen, seen_running, starter, utc
from biom3d.remote.site import shown

OURS = "biom3d-workflow"  # the distribution, and the first word of our images' names
NO_ENVIRONMENT = 65
READ_BYTES = 2**20  # of a log, in one question
BEHIND_BYTES = 2**27  # as much of a log as an engine keeps; older lines that nobody read in time are not shown
LONG_LINE = 2**20
# Not imported: torch alone takes seconds. Where our code is a checkout, its version does not change with it.
QUESTION = """
import hashlib, importlib.metadata as metadata, importlib.util as util, json, pathlib, platform
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
found = util.find_spec("biom3d")
digest = hashlib.sha256()
if found and found.origin:
    for path in sorted(pathlib.Path(found.origin).parent.rglob("*.py")):
        digest.update(str(path.relative_to(pathlib.Path(found.origin).parent)).encode() + b"\\0" + path.read_bytes())
print(json.dumps({"python": platform.python_version(), "ours": version("biom3d-workflow"), "torch": version("torch"),
                  "code": digest.hexdigest()}))
"""


@dataclass(frozen=True)
class Environment:
    """An environment of a host: where it is and what is in it; `ours` and `torch` are versions, empty if not there.

    `code` is a hash of the package `biom3d` there.
    """

    path: PurePosixPath
    python: str
    ours: str
    torch: str
    code: str

    @property
    def software(self) -> Software:
        """Return what takes the place of an image."""
        names = ((OURS, self.ours), ("torch", self.torch))
        inside = ", ".join(f"{name} {version}" for name, version in names if version)
        text = f"environment '{self.path}' (Python {self.python}{', ' if inside else ''}{inside})"
        return Software(f"python {self.python} {OURS} {self.ours} torch {self.torch} {self.code}", text)


class Venv:
    """A Python environment of one host; see `runtime.Runtime`.

    `folder` is the environment's: absolute, or below the home folder there.
    """

    kind = VENV

    def __init__(self, host: Host, folder: str | None = None) -> None:
        self._host = host
        self._folder = folder
        self._lock = threading.Lock()
        self._looked: tuple[Capacity, Environment] | None = None

    def capacity(self) -> Capacity:
        """Return the cores and the memory of the host."""
        return self._look()[0]

    def environment(self) -> Environment:
        """Return what is in the environment; HostError if there is none or its Python does not run."""
        return self._look()[1]

    def find_software(self, image: str) -> Software:
        """Return the environment, whatever the image."""
        return self.environment().software

    def check(self, images: Iterable[str]) -> None:
        """Raise an error if the environment cannot stand in for one of these images."""
        environment = self.environment()
        for image in images:
            refuse_image(image, environment, self._host.name)

    def find(self, job_id: str) -> Found | None:
        """Return what the job's folder and the host's processes say."""
        found = self._read_state(self._ask(venv_lines.find_job(self._of(job_id))).out.decode())
        return replace(found, starter=starter(self._labels(job_id))) if found and found.is_running else found

    def _labels(self, job_id: str) -> dict[str, str]:
        """Return what the job's folder says of who started it."""
        text = (self._host.read(self._of(job_id) / venv_lines.LABELS) or b"").decode(errors="replace")
        with suppress(ValueError, AttributeError):
            return {str(key): str(value) for key, value in json.loads(text.partition("=")[2]).items()}
        return {}

    def start(self, launch: Launch) -> bool:
        """Link the inputs and start the job, detached, or say that a client that was faster has done it."""
        links = plan_links(launch.entries, launch.mounts)
        if links:
            self._ask(venv_lines.link_inputs(launch.folder / WORK), _pack(links))
        words = mark(launch.labels)
        variables = [
            ("CUDA_VISIBLE_DEVICES", ",".join(launch.devices)),
            ("BIOM3D_LEASES", " ".join(launch.devices)),
            ("BIOM3D_LEASE_FOLDER", str(gpus.LEASES)),
            ("BIOM3D_MEMORY_KB", str(launch.spec.resources.mem_mb * 1024)),
        ]
        line = venv_lines.start_job(launch.folder, launch.id, self.environment().path, words, variables)
        answer = self._ask(line, venv_lines.launch_script().encode()).out.decode()
        self._read_state(answer)
        return answer.strip() != venv_lines.TAKEN

    def follow(self, job_id: str, say: Say) -> Follower:
        """Return what shows the job's log and waits for its end."""
        return Follower(self.source(job_id), say)

    def source(self, job_id: str) -> "VenvSource":
        """Return the job's log."""
        return VenvSource(self, job_id)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended."""
        self._ask(venv_lines.drop_job(self._of(job_id), job_id))

    def running(self) -> list[dict[str, str]]:
        """Return the labels of all jobs that run on the host, also of those in containers."""
        return [found.labels for found in find_marked(self._host)]

    def list_jobs(self) -> list[Seen]:
        """Return the jobs that run, also other accounts' and those in containers, and ours that have ended."""
        uid = str(self._host.user()[0])
        running = [seen_running(found, uid) for found in find_marked(self._host)]
        known = {job.id for job in running}
        ended = read_ended(self._ask(venv_lines.list_ended(self._host.root)).out.decode(errors="replace"), uid)
        return [*running, *(job for job in ended if job.id not in known)]

    def _look(self) -> tuple[Capacity, Environment]:
        with self._lock:
            if self._looked is None:
                folder = self._folder or str(self._host.root.parent / "env")
                done = self._host.run(venv_lines.describe(folder), stdin=QUESTION.encode())
                self._looked = read_description(done, self._host.name, folder)
            return self._looked

    def _of(self, job_id: str) -> PurePosixPath:
        return self._host.root / "jobs" / job_id

    def _ask(self, line: str, stdin: bytes = b"") -> Finished:
        done = self._host.run(line, stdin=stdin)
        if done.code:
            if self._host.free_bytes() < FULL_BYTES:
                raise HostError(f"{self._host.name}: the disk there is full ({self._host.root}); free some space")
            raise HostError(
                f"{self._host.name}: a command failed there with exit code {done.code}:"
                f" {shown(done.err) or 'no message'}; run: biom3d remote doctor"
            )
        return done

    def _read_state(self, text: str) -> Found | None:
        """Read what `venv_lines.find_job` prints."""
        word, _, rest = text.strip().partition(" ")
        if word == venv_lines.ELSEWHERE:
            raise HostError(
                f"{self._host.name}: the job was started on '{rest}', which is another machine with the same folder;"
                " name that one as the host, so that all is done there"
            )
        if word in ("none", ""):
            return None
        return Found(word != "ended", read_end(rest) if word == "ended" else None)


class VenvSource:
    """The log of one job; see `follow.Source`."""

    def __init__(self, runtime: Venv, job_id: str) -> None:
        self._runtime, self._id = runtime, job_id
        self.name = f"job {job_id[:12]}"
        self._attempt, self._offset, self._rest = "", 0, b""

    def watch(self, show: Callable[[str], None]) -> End:
        """Show lines until the job has ended and all of its log was read."""
        while True:
            found, size = self._read(show)
            if found is None:
                return REMOVED
            if found.end is not None and self._offset >= size:
                if self._rest:
                    show(shown_line(self._rest))
                    self._rest = b""
                return found.end

    def stop(self) -> None:
        """Ask the job to end, kill it when it does not."""
        self._runtime._ask(venv_lines.stop_job(self._runtime._of(self._id), self._id, GRACE_S))

    def print(self, say: Say) -> None:
        """Say the lines of the log."""
        done = self._runtime._ask(venv_lines.print_log(self._runtime._of(self._id), BEHIND_BYTES))
        for line in done.out.splitlines():
            say(line.decode(errors="replace"))

    def _read(self, show: Callable[[str], None]) -> tuple[Found | None, int]:
        """Show what is new; return how the job is, and the size of its log."""
        folder = self._runtime._of(self._id)
        done = self._runtime._ask(venv_lines.read_log(folder, self._attempt, self._offset, READ_BYTES))
        state, _, more = done.out.partition(b"\n")
        found = self._runtime._read_state(state.decode())
        if found is None:
            return None, 0
        facts, _, data = more.partition(b"\n")
        size, offset, attempt = facts.decode().split(" ", 2)
        if attempt != self._attempt:
            self._attempt, self._rest = attempt, b""
        self._offset = int(offset) + len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONG_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            show(shown_line(line))
        if int(size) - self._offset > BEHIND_BYTES:
            skipped = int(size) - self._offset - BEHIND_BYTES // 2
            self._offset, self._rest = self._offset + skipped, b""
            show(f"[{skipped // 2**20} MB of the log are not shown]")
        return found, int(size)


def read_description(done: Finished, host: str, folder: str) -> tuple[Capacity, Environment]:
    """Read what `venv_lines.describe` prints."""
    if done.code == NO_ENVIRONMENT:
        raise HostError(
            f"{host}: there is no environment '{folder}'; make it there: python3 -m venv {folder} &&"
            f" {folder}/bin/pip install 'biom3d-workflow[engine]', or say where it is: host-venv in the profile"
        )
    lines = done.out.decode(errors="replace").splitlines()
    try:
        cores, kilobytes, path, facts = int(lines[0]), int(lines[1]), lines[2], json.loads(lines[3])
        environment = Environment(PurePosixPath(path), **facts)
    except (ValueError, IndexError, TypeError):
        raise HostError(
            f"{host}: the Python of the environment '{folder}' does not run ({shown(done.err) or shown(done.out)});"
            " make the environment again"
        ) from None
    return Capacity(cores, kilobytes // 1024), environment


def refuse_image(image: str, environment: Environment, host: str) -> None:
    """Raise an error if the environment cannot stand in for the image; images that are not ours may be anything."""
    maker, _, rest = image.partition("/")
    variant = rest.partition(":")[0]
    if maker != OURS:
        return
    if variant.startswith(("upstream", "official")):
        raise ConfigError(
            f"image '{variant}' holds another program than ours, and runs only where there are containers;"
            " take a host with host-runtime: docker or podman, or our own engine"
        )
    problem = describe_mismatch(environment)
    if problem:
        raise HostError(f"{host}: {problem}")


def describe_mismatch(environment: Environment) -> str:
    """Return what is wrong with our package in the environment and what to do; nothing if it is the same as here."""
    install = f"{environment.path}/bin/pip install 'biom3d-workflow[engine]=={__version__}'"
    if not environment.ours:
        return f"there is no {OURS} in the environment '{environment.path}'; there: {install}"
    if environment.ours != __version__:
        found = f"{OURS} {environment.ours} in the environment '{environment.path}'"
        return f"{found}, and {__version__} here; there: {install}"
    return ""


def read_end(text: str) -> End:
    """Read `CODE MEMORY`, each `-` if not known: a job that could not write down its end was killed from outside."""
    code, _, used = text.partition(" ")
    return End(int(code), used.strip() not in ("", "-")) if code.isdigit() else REMOVED


def read_ended(text: str, uid: str) -> list[Seen]:
    """Read what `venv_lines.list_ended` prints."""
    found = []
    for line in text.splitlines():
        _, code, used, moment, mark_ = (*line.split(" ", 4), "", "", "", "")[:5]
        try:
            words = json.loads(mark_.partition("=")[2])
            state = f"exit {read_end(f'{code} {used}').code}"
            found.append(seen(words, state, utc(int(moment)), uid, uid, VENV))
        except (ValueError, TypeError, KeyError):
            continue  # half written
    return found


def plan_links(entries: Sequence[Entry], mounts: Sequence[Mount]) -> tuple[tuple[str, str], ...]:
    """Return names in the working folder of a job and the files of the host that they lead to.

    A container would see them as mounts. What is mounted as a folder is linked file by file, so that nobody writes
    into the folder itself; a folder of which we know no file is linked as it is.

    Raises:
        ConfigError: a file has an absolute name, where nothing can be put without a container.
    """
    work = PurePosixPath(FOLDER, WORK)
    sources = {mount.target: mount.source for mount in mounts}
    links: dict[PurePosixPath, PurePosixPath] = {}
    used: set[PurePosixPath] = set()
    for entry in entries:
        target = work / entry.name
        above = next((place for place in (target, *target.parents) if place in sources), None)
        if above is not None:
            links[target] = sources[above] / target.relative_to(above)
            used.add(above)
    links |= {target: source for target, source in sources.items() if target not in used}
    for target, source in links.items():
        if not target.is_relative_to(work) and source != target:
            raise ConfigError(
                f"input '{target}' lies outside the working folder, and without a container a job sees only its own;"
                f" give it a name there, for example: ln -s {target.parent} inputs"
            )
    return tuple(
        sorted((str(target.relative_to(work)), str(source)) for target, source in links.items() if source != target)
    )


def _pack(links: Sequence[tuple[str, str]]) -> bytes:
    """Return a tar stream of symbolic links."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for name, source in links:
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.linkname = tarfile.SYMTYPE, source
            archive.addfile(member)
    return gzip.compress(packed.getvalue(), 1)
