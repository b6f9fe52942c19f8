"""A container engine through the Docker SDK (Docker, or Podman behind its compatible socket): its errors in our words.

Shared by `images`, which makes images, and `remote`, which runs jobs in them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from biom3d.errors import ContainerError, LostConnection

if TYPE_CHECKING:
    import docker

HERE = "this machine"
SOCKET = "unix:///var/run/docker.sock"
CONNECT_S = 60.0  # an engine that does not even say that it is there


def connect(host: str = HERE, socket: str | None = None) -> "docker.DockerClient":
    """Return a client of this machine's engine: at `socket`, else where DOCKER_HOST says, else at the usual place.

    Raises:
        ContainerError, LostConnection: why there is none, and what to do.
    """
    try:
        import docker
    except ImportError as error:
        raise ContainerError(
            "containers need the Docker SDK for Python; install it: in the checkout, pip install '.[remote,images]'"
        ) from error
    where = f"unix://{socket}" if socket else os.environ.get("DOCKER_HOST") or SOCKET
    with translated(host, f"connecting to {where}"):
        client = docker.DockerClient(where, timeout=CONNECT_S) if socket else docker.from_env(timeout=CONNECT_S)
        client.ping()
        # No limit on the time between two answers: a silent training or build is not a broken one.
        client.api.timeout = None
        return client


@contextmanager
def translated(host: str, what: str) -> Iterator[None]:
    """Turn an engine's errors into ours; `what` is being done: "building 'cpu'".

    Raises:
        LostConnection: it does not answer.
        ContainerError: it answers that it will not or cannot.
    """
    import docker.errors

    try:
        yield
    except docker.errors.DockerException as error:  # before the others: an answer of the engine is an OSError, too
        raise ContainerError(explain(host, what, error)) from error
    except _no_answer() as error:
        raise LostConnection(explain(host, what, error)) from error


def _no_answer() -> tuple[type[BaseException], ...]:
    """Return what the SDK lets through; paramiko's only where it is loaded, for a DOCKER_HOST of ssh://."""
    import requests.exceptions

    paramiko = sys.modules.get("paramiko")
    ssh = (paramiko.SSHException,) if paramiko else ()
    return (requests.exceptions.RequestException, OSError, *ssh)


def explain(host: str, what: str, error: BaseException | str) -> str:
    """Return what an engine's error means and what to do."""
    text = " ".join(str(getattr(error, "explanation", None) or error).split())
    lower = f"{error} {text}".lower()
    for words, remedy in REMEDIES:
        if any(word in lower for word in words):
            return f"{host}: {remedy.format(what=what)}"
    return f"{host}: {what} failed: {text}"


# Words in an engine's error, in small letters -> what happened and what to do.
REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("permissionerror", "permission denied')", "permission denied while trying", "connect: permission denied"),
        "no permission to use the container engine ({what}); ask the administrator to add you to the group 'docker'"
        " (sudo usermod -aG docker $USER, then log in again), or for rootless Docker or Podman",
    ),
    (
        (
            *("filenotfounderror", "no such file or directory')", "connection refused", "connectionrefused"),
            *("unable to connect", "failed to resolve", "name or service not known"),
        ),
        "no container engine answers ({what}); install Docker and start it (sudo systemctl start docker), or set"
        " DOCKER_HOST to where Docker or Podman listens",
    ),
    (
        ("invalid bind address", "invalid proto"),
        f"DOCKER_HOST is no address ({{what}}); it looks like {SOCKET}, or unset it",
    ),
    (
        ("could not select device driver", "nvidia-container-cli", "unresolvable cdi", "nvidia runtime"),
        "the engine cannot give GPUs to containers; install nvidia-container-toolkit there and restart the engine,"
        " or run on the CPU: gpu: 0 in config.yaml",
    ),
    (
        ("container-init binary not found",),
        "Podman lacks the program that reaps processes in containers; install it there: apt-get install catatonit",
    ),
    (
        ("incorrect mount format",),
        "{what}: Podman cannot bring in files with quotes, commas or line breaks in their names; rename them",
    ),
    (
        ("no space left on device",),
        "{what}: the engine's disk is full; free some space (docker system df shows what takes it) and run it again",
    ),
)


def find_image(client: "docker.DockerClient", reference: str, host: str = HERE) -> Any | None:
    """Return the engine's image of that name, or None; nothing is pulled."""
    import docker.errors

    with translated(host, f"looking for image '{reference}'"):
        try:
            return client.images.get(reference)
        except docker.errors.ImageNotFound:
            return None


def need_image(client: "docker.DockerClient", reference: str, remedy: str, host: str = HERE) -> Any:
    """Return the engine's image of that name; ContainerError with `remedy` where there is none."""
    image = find_image(client, reference, host)
    if image is None:
        raise ContainerError(f"{host}: image '{reference}' is not there; {remedy}")
    return image


def remove_image(client: "docker.DockerClient", reference: str) -> None:
    """Remove a name, and the image if it has no other; nothing there is fine."""
    import docker.errors

    with suppress(docker.errors.APIError):
        client.images.remove(reference)
