"""What runs on a host and what lies there: jobs, their logs, GPUs, and what could be removed."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from biom3d.errors import ConfigError, ContainerError, HostError, LostConnection
from biom3d.remote import claims, gpus, questions
from biom3d.remote.containers import Containers
from biom3d.remote.host import Host, Say
from biom3d.remote.job import LABEL
from biom3d.remote.runtime import VENV, Runtime, Seen
from biom3d.remote.site import shown, store_name, zero_ended

FOLLOW_TRIES = 20  # each with the patience of the connection itself, two minutes
LEAST_DAYS = 1.0  # a job that waits for a GPU has a folder and no container yet


@dataclass(frozen=True)
class JobFolder:
    """A job's folder: how long nobody changed it, and the bytes that only it holds."""

    id: str
    age_s: float
    size: int


@dataclass(frozen=True)
class Cleaning:
    """What could be removed: folders of jobs, files of the store (name -> size), and jobs that ended long ago.

    Claims older than `days` are of clients that never come back.
    """

    folders: tuple[JobFolder, ...]
    files: Mapping[str, int]
    ended: tuple[str, ...] = ()
    days: float = 0.0

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(folder.size for folder in self.folders) + sum(self.files.values())


def list_jobs(host: Host, runtime: Runtime | None = None) -> tuple[Seen, ...]:
    """Return the jobs that the host knows, those that run first; also other accounts'.

    `runtime`: what supervises ours there (default: its container engine).
    """
    found = (runtime or Containers(host)).list_jobs()
    return tuple(sorted(found, key=lambda seen: (seen.state != "running", seen.since, seen.id)))


def job_rows(jobs: Iterable[Seen], progress: Mapping[str, str] = MappingProxyType({})) -> list[tuple[str, ...]]:
    """Return the rows of a table of jobs; `progress` of those that say it, by id."""
    return [
        (
            seen.id,
            seen.state,
            local_time(seen.since),
            seen.threads,
            seen.mem_mb if seen.mem_mb != "0" else "-",
            ",".join(seen.devices) or "-",
            "you" if seen.is_mine else seen.owner,
            seen.name,
            progress.get(seen.id, "-"),
        )
        for seen in jobs
    ]


def local_time(stamp: str) -> str:
    """Return an engine's time stamp (UTC) in our time zone, to the second."""
    try:
        moment = datetime.fromisoformat(stamp[:19]).replace(tzinfo=UTC)
    except ValueError:
        return stamp
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def find_job(jobs: Sequence[Seen], word: str) -> Seen:
    """Return the one job that `word` means: the beginning of its id, or its name; ConfigError if not exactly one."""
    found = [seen for seen in jobs if seen.id == word] or [
        seen for seen in jobs if seen.name == word or (word and seen.id.startswith(word))
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{seen.id[:12]} ({seen.name})" for seen in found or jobs) or "none"
    problem = "more than one job is meant by" if found else "no job is called"
    raise ConfigError(f"{problem} '{word}'; give the id of one of these: {known}")


def print_log(host: Host, job: Seen, is_followed: bool, say: Say, runtime: Runtime | None = None) -> None:
    """Print what a job has said so far; followed, go on until it ends, and say how."""
    runtime = _supervisor(host, job, runtime)
    if is_followed:
        say(f"[ended with exit code {_follow(host, runtime, job, say)}]")
    else:
        runtime.source(job.id).print(say)


def _supervisor(host: Host, job: Seen, runtime: Runtime | None) -> Runtime:
    """Return what supervises the job; HostError if this profile is for the other kind."""
    runtime = runtime or Containers(host)
    if job.kind != runtime.kind:
        wanted = "venv" if job.kind == VENV else "docker or podman"
        raise HostError(f"{host.name}: job '{job.name}' is of another kind; take a profile with host-runtime: {wanted}")
    return runtime


def _follow(host: Host, runtime: Runtime, job: Seen, say: Say) -> int:
    """Show the log until the job ends; a lost connection is made again, and no line comes twice."""
    follower = runtime.follow(job.id, say)
    for _ in range(FOLLOW_TRIES):
        try:
            end = follower.wait(threading.Event())
            # A line that breaks just before the end looks like the end of the log: what was not seen yet comes now.
            follower.wait(threading.Event())
            assert end is not None
            return end.code
        except LostConnection as error:
            say(f"[{error}; trying again]")
    raise HostError(f"{host.name}: the connection is lost again and again; '{job.name}' goes on there")


def cancel(host: Host, job: Seen, runtime: Runtime | None = None, who: str = "somebody", is_meant: bool = False) -> str:
    """Stop a job, which gets time to save what it has; return how it ended. Clients that follow it learn `who` did it.

    `is_meant`: also if somebody else has started it, who shares account and working folder.

    Raises:
        HostError: it is out of our reach, or somebody else's and that is not meant, or does not run.
    """
    runtime = _supervisor(host, job, runtime)
    if not job.is_ours:
        raise HostError(f"{host.name}: job '{job.name}' is out of your reach; its owner can stop it: {job.owner}")
    if job.state != "running":
        raise HostError(f"{host.name}: job '{job.name}' does not run ({job.state}); nothing to stop")
    if not job.is_mine and not is_meant:
        raise HostError(
            f"{host.name}: job '{job.name}' was started by {job.owner}, who shares the working folder;"
            " --others stops it all the same"
        )
    folder = host.root / "jobs" / job.id
    claims.note_cancel(host, folder, who)
    try:
        runtime.source(job.id).stop()
    except ContainerError:  # refused: then nobody has cancelled it
        claims.note_cancel(host, folder, "")
        raise
    found = runtime.find(job.id)  # whoever waits for it may have removed it already
    return f"exit {found.end.code}" if found and found.end else "ended"


def gpu_rows(host: Host, runtime: Runtime | None = None) -> list[tuple[str, str, str]]:
    """Return number, kind and user of each GPU of the host."""
    devices = gpus.find_devices(host)
    if not devices:
        return []
    kinds = _gpu_kinds(host)
    free = gpus.find_free(host, devices)
    users: dict[str, list[str]] = {}
    for seen in list_jobs(host, runtime):
        for device in seen.devices if seen.state == "running" else ():
            whose = "you" if seen.is_mine else seen.owner
            users.setdefault(device, []).append(f"{seen.name} ({seen.id[:12]}, {whose})")
    return [(device, kinds.get(device, "-"), _lease(device, free, users)) for device in devices]


def _lease(device: str, free: Sequence[str], users: Mapping[str, Sequence[str]]) -> str:
    if device in free:
        return "free"
    return ", ".join(users.get(device, ())) or "leased by a program that is no job of ours"


def _gpu_kinds(host: Host) -> dict[str, str]:
    done = host.run(questions.show_gpus())
    rows = [[part.strip() for part in line.split(",")] for line in done.out.decode(errors="replace").splitlines()]
    return {row[0]: f"{row[1]}, {row[2]} MB" for row in rows if len(row) >= 3}


def plan_cleaning(host: Host, days: float, runtime: Runtime | None = None) -> Cleaning:
    """Return what nobody has touched for so many days: folders of jobs that neither run nor wait, files no job links.

    A job that ended longer ago than that waits for no client any more.

    Raises:
        ConfigError: less than a day is asked for.
        ContainerError: the engine cannot say which jobs have a container; then nothing is known to be unused.
    """
    if days < LEAST_DAYS:
        raise ConfigError("a job that waits for a GPU is not running yet; give --older-than 1d or more")
    runtime = runtime or Containers(host)
    folders = choose_folders(_read_folders(host), _in_use(runtime, days), days)
    lines = _ask(host, questions.list_unused(host.root, round(days * 24 * 60))).splitlines()
    sizes = {name: int(size) for size, name in (line.split(" ", 1) for line in lines)}
    ours = {name: size for name, size in sizes.items() if _is_content(name)}
    ended = tuple(job.id for job in runtime.list_jobs() if job.is_ours and _ended_before(job, days))
    return Cleaning(folders, ours, ended, days)


def _in_use(runtime: Runtime, days: float) -> set[str]:
    """Return the jobs that run, by whatever means, and those whose results may still be fetched."""
    waiting = {job.id for job in runtime.list_jobs() if not _ended_before(job, days)}
    return waiting | {labels[LABEL] for labels in runtime.running()}


def _ended_before(job: Seen, days: float) -> bool:
    if not job.state.startswith("exit "):
        return False
    try:
        ended = datetime.fromisoformat(job.since[:19]).replace(tzinfo=UTC)
    except ValueError:
        return False
    return (datetime.now(UTC) - ended).total_seconds() >= days * 86_400


def choose_folders(folders: Iterable[JobFolder], in_use: set[str], days: float) -> tuple[JobFolder, ...]:
    """Return the folders that nobody needs: named like a job's, old enough, and of none `in_use`."""
    return tuple(
        folder
        for folder in folders
        if questions.JOB_FOLDER.fullmatch(folder.id) and folder.id not in in_use and folder.age_s >= days * 86_400
    )


def _is_content(name: str) -> bool:
    key = name.rpartition("/")[2]
    with suppress(HostError):  # what it raises for what is no SHA-256
        return store_name(key) == name
    return False


def _read_folders(host: Host) -> list[JobFolder]:
    lines = _ask(host, questions.list_job_folders(host.root)).splitlines()
    rows = [line.split(" ", 2) for line in lines]
    return [JobFolder(row[2], float(row[0]), int(row[1])) for row in rows if len(row) == 3]


def clean(host: Host, plan: Cleaning, runtime: Runtime | None = None) -> None:
    """Remove what was planned, except what a job has taken up since."""
    runtime = runtime or Containers(host)
    in_use = _in_use(runtime, plan.days)
    for job_id in plan.ended:
        if job_id not in in_use:
            runtime.remove(job_id)
    for folder in plan.folders:
        if folder.id not in in_use:
            host.remove(host.root / "jobs" / folder.id)
    if plan.days:
        claims.strike_out(host, in_use, plan.days)
    if plan.files:
        done = host.run(questions.drop_unused(host.root), stdin=zero_ended(plan.files))
        _raise_if_failed(host, done.code, done.err)


def _ask(host: Host, line: str) -> str:
    done = host.run(line)
    _raise_if_failed(host, done.code, done.err)
    return done.out.decode(errors="replace")


def _raise_if_failed(host: Host, code: int, err: bytes) -> None:
    if code:
        raise HostError(f"{host.name}: a command failed there with exit code {code}: {shown(err)}; run the doctor")
