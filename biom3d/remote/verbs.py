"""What runs on a host and what lies there: jobs, their logs, GPUs, and what could be removed."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from biom3d.errors import ConfigError, HostError, LostConnection
from biom3d.remote import gpus, questions
from biom3d.remote.container import GRACE_S, LABEL, container_name
from biom3d.remote.engine import read_facts, translated
from biom3d.remote.follow import Follower, split_lines
from biom3d.remote.host import Host, Say
from biom3d.remote.site import shown, store_name, zero_ended

if TYPE_CHECKING:
    from docker.models.containers import Container

FOLLOW_TRIES = 20  # each with the patience of the connection itself, two minutes
LEAST_DAYS = 1.0  # a job that waits for a GPU has a folder and no container yet


@dataclass(frozen=True)
class Seen:
    """A job's container: `state` is `running`, `exit N` or the engine's own word; `since` when it came to that."""

    id: str
    name: str
    state: str
    since: str
    threads: str
    mem_mb: str
    devices: tuple[str, ...]
    owner: str  # uid
    is_ours: bool


@dataclass(frozen=True)
class JobFolder:
    """A job's folder: how long nobody changed it, and the bytes that only it holds."""

    id: str
    age_s: float
    size: int


@dataclass(frozen=True)
class Cleaning:
    """What could be removed: folders of jobs, and files of the store (name -> size)."""

    folders: tuple[JobFolder, ...]
    files: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(folder.size for folder in self.folders) + sum(self.files.values())


def list_jobs(host: Host) -> tuple[Seen, ...]:
    """Return the jobs that the engine knows, those that run first; also other accounts'."""
    rootless = read_facts(host.engine(), host.name).is_rootless
    uid = str(host.user()[0])
    found = []
    for container in _containers(host):
        owner = uid if rootless else str(container.attrs["Config"].get("User") or "0").partition(":")[0]
        found.append(_seen(container, owner, owner == uid))
    return tuple(sorted(found, key=lambda seen: (seen.state != "running", seen.since, seen.id)))


def _containers(host: Host) -> "list[Container]":
    with translated(host.name, "listing jobs"):
        return list(host.engine().containers.list(all=True, filters={"label": LABEL}, ignore_removed=True))


def _seen(container: "Container", owner: str, is_ours: bool) -> Seen:
    state, words = container.attrs["State"], container.labels
    has_ended = state["Status"] in ("exited", "dead")
    times = {"running": state.get("StartedAt"), "ended": state.get("FinishedAt")}
    since = times["ended" if has_ended else "running"] or ""
    return Seen(
        id=words[LABEL],
        # Anybody on the host can name a job, and a terminal obeys what is not printable.
        name="".join(sign if sign.isprintable() else "?" for sign in words.get(f"{LABEL}.name", "")),
        state=f"exit {state['ExitCode']}" if has_ended else state["Status"],
        since=since if not since.startswith("0001") else container.attrs["Created"],
        threads=words.get(f"{LABEL}.threads", ""),
        mem_mb=words.get(f"{LABEL}.mem_mb", ""),
        devices=tuple(words.get(f"{LABEL}.gpus", "").split()),
        owner=owner,
        is_ours=is_ours,
    )


def job_rows(jobs: Iterable[Seen]) -> list[tuple[str, ...]]:
    """Return the rows of a table of jobs."""
    return [
        (
            seen.id[:12],
            seen.state,
            local_time(seen.since),
            seen.threads,
            seen.mem_mb if seen.mem_mb != "0" else "-",
            ",".join(seen.devices) or "-",
            "you" if seen.is_ours else f"uid {seen.owner}",
            seen.name,
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


def print_log(host: Host, job: Seen, is_followed: bool, say: Say) -> None:
    """Print what a job has said so far; followed, go on until it ends, and say how."""
    if is_followed:
        say(f"[ended with exit code {_follow(host, job, say)}]")
        return
    with translated(host.name, f"reading the log of {job.name}"):
        stream = host.engine().containers.get(container_name(job.id)).logs(stream=True, follow=False)
        for line in split_lines(stream):
            say(line.decode(errors="replace"))


def _follow(host: Host, job: Seen, say: Say) -> int:
    """Show the log until the job ends; a lost connection is made again, and no line comes twice."""
    follower = Follower(host, container_name(job.id), say)
    for _ in range(FOLLOW_TRIES):
        try:
            end = follower.wait(threading.Event())
            # A line that breaks just before the end looks like the end of the log: what was not seen yet comes now.
            follower.wait(threading.Event())
            return end.code
        except LostConnection as error:
            say(f"[{error}; trying again]")
    raise HostError(f"{host.name}: the connection is lost again and again; '{job.name}' goes on there")


def cancel(host: Host, job: Seen) -> str:
    """Stop a job, which gets time to save what it has; return how it ended.

    Raises:
        HostError: it is another account's, or does not run.
    """
    if not job.is_ours:
        raise HostError(f"{host.name}: job '{job.name}' belongs to the account with uid {job.owner}; ask its owner")
    if job.state != "running":
        raise HostError(f"{host.name}: job '{job.name}' does not run ({job.state}); nothing to stop")
    with translated(host.name, f"stopping {job.name}"):
        container = host.engine().containers.get(container_name(job.id))
        container.stop(timeout=GRACE_S)
        return _how_it_ended(container)


def _how_it_ended(container: "Container") -> str:
    import docker.errors

    with suppress(docker.errors.NotFound):  # whoever waits for it may have removed it already
        container.reload()
        return f"exit {container.attrs['State']['ExitCode']}"
    return "ended"


def gpu_rows(host: Host) -> list[tuple[str, str, str]]:
    """Return number, kind and user of each GPU of the host."""
    devices = gpus.find_devices(host)
    if not devices:
        return []
    kinds = _gpu_kinds(host)
    free = gpus.find_free(host, devices)
    users: dict[str, list[str]] = {}
    for seen in list_jobs(host):
        for device in seen.devices if seen.state == "running" else ():
            whose = "you" if seen.is_ours else f"uid {seen.owner}"
            users.setdefault(device, []).append(f"{seen.name} ({seen.id[:12]}, {whose})")
    return [(device, kinds.get(device, "-"), _lease(device, free, users)) for device in devices]


def _lease(device: str, free: Sequence[str], users: Mapping[str, Sequence[str]]) -> str:
    if device in free:
        return "free"
    return ", ".join(users.get(device, ())) or "leased by a program that is no container of ours"


def _gpu_kinds(host: Host) -> dict[str, str]:
    done = host.run(questions.show_gpus())
    rows = [[part.strip() for part in line.split(",")] for line in done.out.decode(errors="replace").splitlines()]
    return {row[0]: f"{row[1]}, {row[2]} MB" for row in rows if len(row) >= 3}


def plan_cleaning(host: Host, days: float) -> Cleaning:
    """Return what nobody has touched for so many days: folders of jobs without a container, files no job links.

    Raises:
        ConfigError: less than a day is asked for.
        ContainerError: the engine cannot say which jobs have a container; then nothing is known to be unused.
    """
    if days < LEAST_DAYS:
        raise ConfigError("a job that waits for a GPU has no container yet; give --older-than 1d or more")
    in_use = {container.labels[LABEL] for container in _containers(host)}
    folders = choose_folders(_read_folders(host), in_use, days)
    lines = _ask(host, questions.list_unused(host.root, round(days * 24 * 60))).splitlines()
    sizes = {name: int(size) for size, name in (line.split(" ", 1) for line in lines)}
    ours = {name: size for name, size in sizes.items() if _is_content(name)}
    return Cleaning(folders, ours)


def choose_folders(folders: Iterable[JobFolder], in_use: set[str], days: float) -> tuple[JobFolder, ...]:
    """Return the folders that nobody needs: named like a job's, old enough, without a container."""
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


def clean(host: Host, plan: Cleaning) -> None:
    """Remove what was planned, except what a job has taken up since."""
    in_use = {container.labels[LABEL] for container in _containers(host)}
    for folder in plan.folders:
        if folder.id not in in_use:
            host.remove(host.root / "jobs" / folder.id)
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
