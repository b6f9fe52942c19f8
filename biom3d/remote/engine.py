"""The container engine of a host: one client for all threads, what the engine says of its host, the image of a job."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biom3d.engine import connect, need_image, translated

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
        self.socket = socket
        self._client: docker.DockerClient | None = None
        self._lock = threading.Lock()

    def client(self) -> "docker.DockerClient":
        """Return the client; ContainerError says why there is none."""
        with self._lock:
            if self._client is None:
                self._client = connect(self._host, self.socket)
            return self._client

    def close(self) -> None:
        """Close the client, if there is one."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


def read_facts(client: "docker.DockerClient", host: str) -> Facts:
    """Ask the engine about its host."""
    with translated(host, "asking the engine what it is"):
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
    name = reference.rpartition("/")[2].partition(":")[0]
    ours = f"build it: biom3d images build {name}   and bring it to a host: biom3d remote send-image PROFILE {name}"
    others = f"if you trust its source: docker pull {reference}"
    remedy = others if "@" in reference else f"{ours}   or, {others}"
    return str(need_image(client, reference, remedy, host).id)
