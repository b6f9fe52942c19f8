"""A real container engine for tests, and images in it: the one that answers, else one started here as root."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import docker.errors
import pytest

from biom3d.events import Reporter
from biom3d.images.build import build_image
from biom3d.images.table import load_table

DEFAULT_SOCKET = "/var/run/docker.sock"
START_LIMIT_S = 90


@contextmanager
def running_dockerd(
    folder: Path, beside: bool = False, data: Path | None = None, programs: Path | None = None
) -> Iterator[docker.DockerClient]:
    """Run a Docker Engine of our own while the block lasts; its log and pid file lie in `folder`.

    `beside`: another engine may run. Ours then keeps its images in `data` (else in `folder`) and
    has a network name space of its own: in a common one it would take away the other's bridge.
    `programs` is searched first for what the engine calls, such as a stand-in for the NVIDIA hook.
    """
    if os.geteuid() != 0 or shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.fail(
            "no container engine answers, and none can be started: run requirements/system.sh as root, or start "
            "Docker and let DOCKER_HOST name its socket"
        )
    folder.mkdir(parents=True, exist_ok=True)
    short = Path(tempfile.mkdtemp(prefix="b3d-engine-"))  # a socket's path has at most 107 characters
    socket = str(short / "socket") if beside else DEFAULT_SOCKET
    command = ["dockerd", "--host", f"unix://{socket}", "--pidfile", str(folder / "dockerd.pid")]
    if beside:
        places = ["--data-root", str(data or folder / "data"), "--exec-root", str(short / "exec")]
        command = ["unshare", "--net", *command, *places, "--bridge=none", "--iptables=false"]
    path = ":".join([*([str(programs)] if programs else []), os.environ["PATH"], "/usr/sbin", "/sbin"])
    log = folder / "dockerd.log"
    with open(log, "w") as output:
        engine = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "PATH": path})
    try:
        yield _wait_for(f"unix://{socket}", engine, log)
    finally:
        engine.terminate()
        engine.wait(timeout=START_LIMIT_S)
        shutil.rmtree(short, ignore_errors=True)


def _wait_for(where: str, engine: "subprocess.Popen[bytes]", log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and engine.poll() is None:
        if client := answering(where):
            return client
        time.sleep(0.1)
    pytest.fail(f"dockerd did not start; the end of its log:\n{log.read_text()[-2000:]}")


def answering(where: str | None = None) -> docker.DockerClient | None:
    """Return a client of the engine at `where` (none: as DOCKER_HOST says), if one answers."""
    try:
        client = docker.DockerClient(where, timeout=600) if where else docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException:
        return None
    return client


@pytest.fixture(scope="session")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """A client of the engine that answers, else of one that runs for this session and is stopped at its end."""
    if client := answering():
        yield client
        return
    if os.environ.get("DOCKER_HOST"):
        pytest.fail(f"no container engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}; start it or unset it")
    with running_dockerd(tmp_path_factory.mktemp("dockerd")) as client:
        yield client


@pytest.fixture(scope="session")
def cpu_image(docker_client: docker.DockerClient) -> str:
    """The image of variant `cpu` with this checkout's code; built where it is not there (minutes, once)."""
    return build_image(docker_client, load_table(), "cpu", Reporter("images")).reference


@pytest.fixture(scope="session")
def upstream_image(docker_client: docker.DockerClient) -> str:
    """The image with Biom3d 0.1.2 itself and our adapter."""
    return build_image(docker_client, load_table(), "upstream-0.1.2", Reporter("images")).reference
