"""The seam between a job's life and what supervises the job on its host.

Two implementations pass the same tests (tests/remote/test_lifecycle.py): `containers.Containers`, where a container
engine does it, and `venv.Venv`, where a small detached runner does, in a Python environment of the host.
"""

import getpass
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Protocol

from biom3d.remote.ends import End
from biom3d.remote.follow import Follower, Source
from biom3d.remote.host import Entry, Mount, Say
from biom3d.remote.job import LABEL, JobSpec, content_hash
from biom3d.remote.processes import Marked

DOCKER, PODMAN, VENV = "docker", "podman", "venv"
CONTAINER = "container"  # what the first two start
KINDS = (DOCKER, PODMAN, VENV)
OWNER = f"{LABEL}.owner"  # who started the job; a gate sets it itself
ACCESS = f"{LABEL}.access"  # how a gate answers who asks: it is theirs, or of somebody with the same working folder, or
YOURS, SHARED, OTHERS = "yours", "shared", "others"  # out of reach


@dataclass(frozen=True)
class Capacity:
    """All the cores and the memory that a host has."""

    cores: int
    memory_mb: int


@dataclass(frozen=True)
class Software:
    """What a job runs with: `id` changes when its content does, `text` is for people."""

    id: str
    text: str


@dataclass(frozen=True)
class Found:
    """A job that the host knows: it runs, or it has ended, or (neither) it was prepared and never started.

    `starter` is who started it, if that was somebody else.
    """

    is_running: bool
    end: End | None
    starter: str = ""

    @property
    def is_prepared(self) -> bool:
        """Whether it has not been started yet."""
        return not self.is_running and self.end is None


@dataclass(frozen=True)
class Launch:
    """All that is needed to start a job whose inputs and scripts are on the host."""

    spec: JobSpec
    id: str
    software: Software
    folder: PurePosixPath
    entries: tuple[Entry, ...]
    mounts: tuple[Mount, ...]
    devices: tuple[str, ...]

    @cached_property
    def labels(self) -> dict[str, str]:
        """What other clients, people and the gate's log read of the job: what it is, works on and takes."""
        return {
            LABEL: self.id,
            f"{LABEL}.name": self.spec.name,
            f"{LABEL}.threads": str(self.spec.resources.threads),
            f"{LABEL}.mem_mb": str(self.spec.resources.mem_mb),
            f"{LABEL}.gpus": " ".join(self.devices),
            f"{LABEL}.data": content_hash(self.entries),
            f"{LABEL}.software": self.software.id,
            OWNER: person(),
        }


@dataclass(frozen=True)
class Seen:
    """A job as lists show it: `state` is `running`, `exit N` or the host's own word; `since` when it came to that."""

    id: str
    name: str
    state: str
    since: str  # UTC, ISO 8601
    threads: str
    mem_mb: str
    devices: tuple[str, ...]
    owner: str  # a person, or a uid where nobody said more
    is_ours: bool  # of our account and folder: we may follow it, stop it and clean it up
    is_mine: bool  # and this person has started it
    kind: str = CONTAINER  # or VENV


class Runtime(Protocol):
    """What supervises jobs on one host. All methods may be called from several threads.

    They raise LostConnection when the host or its engine does not answer, else HostError or ContainerError.
    """

    kind: str  # of the jobs that it supervises: CONTAINER or VENV

    def capacity(self) -> Capacity:
        """Return what the host has."""
        ...

    def find_software(self, image: str) -> Software:
        """Return what a job of that image runs with; an error if the host does not have it."""
        ...

    def check(self, images: Iterable[str]) -> None:
        """Raise what jobs of these images would be refused with."""
        ...

    def find(self, job_id: str) -> Found | None:
        """Return what the host knows of the job."""
        ...

    def start(self, launch: Launch) -> bool:
        """Start the job, detached; False if another client was faster with the same job, which is left to it."""
        ...

    def follow(self, job_id: str, say: Say) -> Follower:
        """Return what shows the job's log and waits for its end."""
        ...

    def source(self, job_id: str) -> Source:
        """Return the job's log and how to stop it."""
        ...

    def remove(self, job_id: str) -> None:
        """Remove what is left of a job that has ended, except its folder."""
        ...

    def running(self) -> list[dict[str, str]]:
        """Return the labels of all jobs that run on the host: other clients', other accounts', other runtimes'."""
        ...

    def list_jobs(self) -> list[Seen]:
        """Return the jobs that run there or have ended there, also other accounts'."""
        ...


def seen(words: Mapping[str, str], state: str, since: str, owner: str, uid: str, kind: str) -> Seen:
    """Return a job with these labels as lists show it, to the account `uid`."""
    is_ours = owner == uid and words.get(ACCESS) != OTHERS
    return Seen(
        id=words[LABEL],
        name=_printable(words.get(f"{LABEL}.name", "")),
        state=state,
        since=since,
        threads=words.get(f"{LABEL}.threads", ""),
        mem_mb=words.get(f"{LABEL}.mem_mb", ""),
        devices=tuple(words.get(f"{LABEL}.gpus", "").split()),
        owner=_printable(words.get(OWNER, "")) or f"uid {owner}",
        is_ours=is_ours,
        is_mine=is_ours and not starter(words),
        kind=kind,
    )


def person() -> str:
    """Return who we are, for others on the host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        name = f"uid {os.getuid()}"
    return f"{name} on {socket.gethostname()}"


def starter(words: Mapping[str, str]) -> str:
    """Return who started the job with these labels; nothing if it was us, or nobody says."""
    owner, access = words.get(OWNER, ""), words.get(ACCESS)
    is_us = access == YOURS if access else owner in ("", person())
    return "" if is_us else _printable(owner) or "somebody else"


def _printable(text: str) -> str:
    """Anybody on the host can name a job, and a terminal obeys what is not printable."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def seen_running(found: Marked, uid: str) -> Seen:
    """Return a job that was found among the host's processes; one in a container does not say since when."""
    return seen(found.labels, "running", utc(found.since), found.uid, uid, VENV if found.since else CONTAINER)


def utc(seconds: int) -> str:
    """Return seconds since 1970 as text; nothing for 0."""
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else ""
