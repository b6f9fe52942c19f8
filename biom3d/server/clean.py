"""What lies on the server and nobody uses any more: data sets, and rests of jobs. Shown, and removed when told.

What a job uses, and results that nobody has fetched, are never among it.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from biom3d.remote import questions
from biom3d.remote.data import CONTENT, DATASETS
from biom3d.remote.host import Host
from biom3d.remote.job import EXIT, WORK
from biom3d.remote.local import LocalHost
from biom3d.remote.progress import size_text
from biom3d.remote.runtime import Runtime
from biom3d.remote.site import zero_ended
from biom3d.remote.verbs import Cleaning, JobFolder, clean, plan_cleaning
from biom3d.server.gate import disk_usage

ROOT = ".biom3d"  # below the working folder
DAY_S = 86_400
SOCKETS = ("/var/run/docker.sock", "/run/user/{uid}/docker.sock", "/run/user/{uid}/podman/podman.sock")
JOB = re.compile(r"/jobs/([0-9a-f]{24})(?:/|$)")


@dataclass(frozen=True)
class DataSet:
    """A data set that was sent here: how long nobody used or changed it, and the bytes of its files."""

    name: str
    age_s: float
    size: int


@dataclass(frozen=True)
class Unused:
    """What could go, and what is as old and stays.

    `results`: folders of jobs that ended well, and whose results nobody fetched; `foreign`: data sets not placed by us.
    """

    jobs: Cleaning
    datasets: tuple[DataSet, ...]
    results: tuple[JobFolder, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.jobs.size + sum(one.size for one in self.datasets)


def open_here(workdir: Path, engine_socket: str) -> tuple[Host, Runtime]:
    """Return this machine as a host of the working folder, and what knows its jobs: the engine if there is one."""
    from biom3d.remote.containers import Containers
    from biom3d.remote.venv import Venv

    usual = [os.environ.get("DOCKER_HOST", ""), *(one.format(uid=os.getuid()) for one in SOCKETS)]
    sockets = [engine_socket] if engine_socket else [one for one in usual if os.access(_path(one), os.W_OK)]
    host = LocalHost(workdir / ROOT, sockets[0] if sockets else None)
    return host, Containers(host) if sockets else Venv(host)


def _path(socket: str) -> str:
    return socket.removeprefix("unix://")


def find_unused(host: Host, runtime: Runtime, days: float, now: float) -> Unused:
    """Return what nobody has used for so many days (`now` in seconds since 1970).

    Raises:
        ConfigError: less than a day is asked for.
        ContainerError: the engine cannot say which jobs run; then nothing is known to be unused.
    """
    found = plan_cleaning(host, days, runtime)
    well = {job.id for job in runtime.list_jobs() if job.state == "exit 0"}
    results = tuple(folder for folder in found.folders if folder.id in well or _holds_results(host, folder.id))
    held = {folder.id for folder in results}
    jobs = replace(
        found,
        folders=tuple(folder for folder in found.folders if folder.id not in held),
        ended=tuple(job for job in found.ended if job not in held),
    )
    folder = Path(host.root).parent / DATASETS
    found_there = [measure(place, now) for place in sorted(_folders(folder))]
    old = [one for one in found_there if one.age_s >= days * DAY_S]
    kept = used_datasets(host, {job.id for job in jobs.folders})
    ours = {one.name for one in old if (folder / one.name / CONTENT).is_file()}
    return Unused(
        jobs,
        tuple(one for one in old if one.name in ours - kept),
        results,
        tuple(one.name for one in old if one.name not in ours),
    )


def _holds_results(host: Host, job: str) -> bool:
    """Say whether a job has ended well, and so waits for somebody to fetch what it made: whoever does removes it."""
    return (host.read(host.root / "jobs" / job / EXIT) or b"").strip() == b"0"


def _folders(parent: Path) -> list[Path]:
    try:
        return [Path(one.path) for one in os.scandir(parent) if one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def measure(place: Path, now: float) -> DataSet:
    """Return size and age of a folder: since when no file of it was changed or linked, and no folder named by a job.

    Every use of a data set begins with a question (`questions.list_states`) that sets the time of its folder.
    """
    newest, size = 0.0, 0
    for folder, _, names in os.walk(place):
        newest = max(newest, Path(folder).stat().st_mtime)
        for name in names:
            facts = Path(folder, name).lstat()
            newest, size = max(newest, facts.st_ctime), size + facts.st_size
    return DataSet(place.name, now - newest, size)


def used_datasets(host: Host, without: Iterable[str] = ()) -> set[str]:
    """Return the data sets that a job's folder mounts or links, or has a place for; those of jobs `without` not."""
    jobs = [job for job in _folders(Path(host.root / "jobs")) if job.name not in {*without}]
    return {name for job in jobs for name in _names(job / WORK / DATASETS)}


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_unused(host: Host, runtime: Runtime, unused: Unused, now: float) -> tuple[str, ...]:
    """Remove it, except what a job has taken up since; return the data sets that so stay."""
    clean(host, unused.jobs, runtime)
    return tuple(one.name for one in unused.datasets if not _remove_dataset(host, one.name, unused.jobs.days, now))


def _remove_dataset(host: Host, name: str, days: float, now: float) -> bool:
    """Remove a data set and what only it uses of the store; False if somebody uses it after all.

    It is moved away before the last look: from then on no job finds it.
    """
    place = Path(host.root).parent / DATASETS / name
    aside = Path(host.root) / "tmp" / f"clean-{uuid.uuid4().hex}"
    place.rename(aside)
    if name in used_datasets(host) or measure(aside, now).age_s < days * DAY_S:
        aside.rename(place)
        return False
    inodes = {Path(folder, file).lstat().st_ino for folder, _, files in os.walk(aside) for file in files}
    stored = [path for path in Path(host.root / "store").glob("*/*") if path.lstat().st_ino in inodes]
    shutil.rmtree(aside)
    # `drop_unused` keeps what another data set or a job links.
    names = [str(path.relative_to(host.root / "store")) for path in stored]
    host.run(questions.drop_unused(PurePosixPath(host.root)), stdin=zero_ended(names))
    return True


def table(unused: Unused, people: Mapping[str, str]) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each thing that could go: what, name, person, age and size."""
    things = [("job", one.id, one) for one in unused.jobs.folders] + [
        ("data set", one.name, one) for one in unused.datasets
    ]
    return [
        (what, name, people.get(name, "-"), f"{one.age_s / DAY_S:.0f} days", size_text(one.size))
        for what, name, one in things
    ]


def notes(unused: Unused, people: Mapping[str, str]) -> list[str]:
    """Return what else is to be told: what goes besides, and what is as old and stays."""
    files = unused.jobs.files
    told = [f"{len(files)} file(s) that no job or data set uses, {size_text(sum(files.values()))}"] if files else []
    told += [f"{len(unused.jobs.ended)} entries of jobs that ended"] if unused.jobs.ended else []
    told += [f"{size_text(unused.size)} in all"]
    told += [
        f"job {folder.id} of {people.get(folder.id, 'somebody')} stays: it ended well, and nobody fetched its results"
        for folder in unused.results
    ]
    told += [f"data set '{name}' stays: it was not sent with 'biom3d remote send'" for name in unused.foreign]
    return told


def usage_text(workdir: Path, quota_gb: float) -> str:
    """Return what lies in the working folder, beside what the gate allows."""
    limit = f" of {quota_gb:g} GB that the gate allows (quota_gb)" if quota_gb else "; the gate has no quota_gb"
    return f"'{workdir}' holds {disk_usage(str(workdir)) / 1e9:.1f} GB{limit}"


def read_people(log: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return whose jobs (by id) and data sets (by name) those are that the gate's notes name, the last one for each."""
    people: dict[str, str] = {}
    for note in log:
        person, words = str(note.get("who", "")), note.get("args")
        words = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
        jobs = [match[1] for word in words if (match := JOB.search(word))]
        jobs += [note["job"]] if isinstance(note.get("job"), str) else []
        if note.get("verdict") == "ok":
            people |= dict.fromkeys(jobs, person)
            if note.get("what") == "place_dataset" and len(words) > 1:
                people[PurePosixPath(words[1]).name] = person
    return people
