"""The container engine of a host, through the Docker SDK: Docker, or Podman behind its Docker-compatible socket."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biom3d.errors import ContainerError, LostConnection

if TYPE_CHECKING:
    import docker

MB = 2**20


@dataclass(frozen=True)
class Facts:
    """What an engine says of its host.

    `cores` and `memory_mb` are all it has. `is_rootless`: it runs as a user, so root in its containers is that user.
    `can_limit_*`: whether its kernel lets it limit processor and memory (a rootless engine often may not).
    """

    cores: int
    memory_mb: int
    is_rootless: bool = False
    is_podman: bool = False
    can_limit_cores: bool = True
    can_limit_memory: bool = True


class Connection:
    """One client of an engine for all threads; made when first asked for."""

    def __init__(self, host: str, socket: str | None = None) -> None:
        self._host = host
        self._socket = socket
        self._client: docker.DockerClient | None = None
        self._lock = threading.Lock()

    def client(self) -> "docker.DockerClient":
        """Return the client; ContainerError says why there is none."""
        with self._lock:
            if self._client is None:
                self._client = connect(self._host, self._socket)
            return self._client

    def close(self) -> None:
        """Close the client, if there is one."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


def connect(host: str, socket: str | None = None) -> "docker.DockerClient":
    """Return a client of this machine's engine: at `socket`, else where DOCKER_HOST says, else at the usual place."""
    try:
        import docker
    except ImportError as error:
        raise ContainerError(
            "running containers needs the Docker SDK; install it: pip install 'biom3d-workflow[remote]'"
        ) from error
    where = f"unix://{socket}" if socket else os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    with translated(host, where):
        # No limit on the time between two answers: a silent training is not a broken one.
        client = docker.DockerClient(base_url=where) if socket else docker.from_env(timeout=None)
        client.ping()
        return client


@contextmanager
def translated(host: str, what: str) -> Iterator[None]:
    """Turn an engine's errors into ours; `what` was asked of it.

    Raises:
        LostConnection: it does not answer.
        ContainerError: it answers that it will not or cannot.
    """
    import docker.errors
    import requests.exceptions

    try:
        yield
    except docker.errors.DockerException as error:  # before the others: an answer of the engine is an OSError, too
        raise ContainerError(explain(host, what, error)) from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise LostConnection(explain(host, what, error)) from error


def explain(host: str, what: str, error: BaseException) -> str:
    """Return what an engine's error means and what to do."""
    text = str(error)
    lower = text.lower()
    for words, remedy in REMEDIES:
        if any(word in lower for word in words):
            return f"{host}: {remedy.format(what=what)}"
    return f"{host}: the container engine refused {what}: {getattr(error, 'explanation', None) or text}"


# Words in an engine's error, in small letters -> what happened and what to do.
REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("permission denied", "permissionerror"),
        "no permission to use the container engine ({what}); ask the administrator to add you to the group 'docker'"
        " (and log in again), or for rootless Docker or Podman",
    ),
    (
        ("filenotfounderror", "no such file or directory'", "connection refused", "connectionrefused"),
        "no container engine answers ({what}); install Docker and start it (sudo systemctl start docker), or set"
        " DOCKER_HOST to where it listens",
    ),
    (
        ("could not select device driver", "nvidia-container-cli", "unresolvable cdi", "nvidia runtime"),
        "the engine cannot give GPUs to containers; install nvidia-container-toolkit there and restart the engine,"
        " or run on the CPU: gpu: 0 in config.yaml",
    ),
    (
        ("no space left on device",),
        "the disk of the container engine is full; free some space (docker system df shows what takes it)",
    ),
)


def read_facts(client: "docker.DockerClient", host: str) -> Facts:
    """Ask the engine about its host."""
    with translated(host, "to say what it is"):
        info = client.info()
        components = client.version().get("Components") or []
    return Facts(
        cores=int(info["NCPU"]),
        memory_mb=int(info["MemTotal"]) // MB,
        is_rootless="rootless" in " ".join(info.get("SecurityOptions") or []),
        is_podman=any("Podman" in str(part.get("Name")) for part in components),
        can_limit_cores=bool(info.get("CpuCfsQuota", True)),
        can_limit_memory=bool(info.get("MemoryLimit", True)),
    )


def image_id(client: "docker.DockerClient", host: str, reference: str) -> str:
    """Return the id of an image that the host has.

    Nothing is pulled: a name alone does not say who made what is behind it.
    """
    import docker.errors

    with translated(host, f"to show image '{reference}'"):
        try:
            return str(client.images.get(reference).id)
        except docker.errors.ImageNotFound as error:
            name = reference.rpartition("/")[2].partition(":")[0]
            raise ContainerError(
                f"{host}: image '{reference}' is not there; build it: biom3d images build {name}"
                f"   or bring it: biom3d images load FILE   or, if you trust its source: docker pull {reference}"
            ) from error
