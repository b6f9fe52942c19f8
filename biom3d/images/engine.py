"""This machine's (or DOCKER_HOST's) container engine: connecting, and its errors in our words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from biom3d.errors import Biom3dError, ContainerError

if TYPE_CHECKING:
    import docker

SOCKET = "unix:///var/run/docker.sock"
DISK_FULL = "the engine's disk is full; free some space (docker system df shows what is used) and run it again"


def connect() -> "docker.DockerClient":
    """Return a client of the engine at DOCKER_HOST, else at the default socket; ContainerError says why not."""
    try:
        import docker
    except ImportError as error:
        raise ContainerError(
            "images need the Docker SDK for Python; run: pip install 'biom3d-workflow[images]'"
        ) from error
    with translated("connecting"):
        client = docker.from_env(timeout=600)
        client.ping()
        return client


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the SDK's errors in the block into ContainerError; `what` was tried."""
    import docker.errors
    import requests.exceptions

    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise explain(what, str(error)) from error


def explain(what: str, reason: str) -> Biom3dError:
    """Return the error for an engine's words: what happened, where, what to do."""
    where = os.environ.get("DOCKER_HOST", SOCKET)
    reason = " ".join(reason.split())
    if "Permission denied" in reason or "permission denied while trying to connect" in reason:
        return ContainerError(
            f"no permission on the engine's socket {where}; add yourself to its group (sudo usermod -aG docker "
            "$USER, then log in again), or use a rootless engine"
        )
    if any(words in reason for words in ("No such file or directory')", "Connection refused", "Error while fetching")):
        return ContainerError(
            f"no container engine answers at {where}; start it (sudo systemctl start docker), or let DOCKER_HOST "
            "name the socket of Docker or Podman"
        )
    if "no space left on device" in reason.lower():
        return ContainerError(f"{what}: {DISK_FULL}")
    return ContainerError(f"{what}: {reason}")


def find_image(client: "docker.DockerClient", reference: str) -> Any | None:
    """Return the engine's image of that name, or None."""
    import docker.errors

    with suppress(docker.errors.ImageNotFound), translated(f"looking for image '{reference}'"):
        try:
            return client.images.get(reference)
        except docker.errors.ImageNotFound:
            return None
    return None


def need_image(client: "docker.DockerClient", reference: str, remedy: str) -> Any:
    """Return the engine's image of that name; ContainerError with `remedy` where there is none."""
    image = find_image(client, reference)
    if image is None:
        raise ContainerError(f"image '{reference}' is not on this machine; run: {remedy}")
    return image


def remove_image(client: "docker.DockerClient", reference: str) -> None:
    """Remove a name, and the image if it has no other; nothing there is fine."""
    import docker.errors

    with suppress(docker.errors.APIError):
        client.images.remove(reference)
