"""Podman in Docker's place: its socket is found, and said how to start; a job runs in it where Podman can run."""

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from biom3d.errors import ContainerError
from biom3d.remote import podman
from biom3d.remote.host import Finished
from biom3d.remote.job import Command, JobSpec
from biom3d.remote.lifecycle import Runner
from biom3d.remote.profile import Settings, open_host, open_runtime
from tests.remote.interrupted import interrupt_each_member
from tests.remote.server import wait_for
from tests.remote.test_gpus import copy_image
from tests.remote.test_lifecycle import Bench

pytestmark = pytest.mark.system


@pytest.fixture
def runtime_folder(monkeypatch):
    """What a session of an account has; short, for a socket's path has at most 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    (folder / "podman").mkdir()
    yield folder
    subprocess.run(["umount", "-l", folder / "root/overlay"], capture_output=True)  # Podman leaves its storage mounted
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def service(runtime_folder, monkeypatch):
    """Podman's service on the account's own socket, with storage of its own."""
    socket = runtime_folder / "podman/podman.sock"
    storage = ["--root", str(runtime_folder / "root"), "--runroot", str(runtime_folder / "run")]
    line = ["podman", *storage, "system", "service", "--time=0", f"unix://{socket}"]
    # Its own limits are higher than what root may set in some machines of tests.
    (runtime_folder / "conf").write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(runtime_folder / "conf"))
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(socket.exists, "Podman's socket")
    yield socket
    process.terminate()
    process.wait(20)


def test_the_socket_of_the_account_is_found_without_being_named(service, tmp_path):
    host = open_host(Settings(runtime="podman"), tmp_path)
    facts = open_runtime(Settings(runtime="podman"), host)
    assert facts.capacity().cores == os.cpu_count()
    assert podman.find_socket(host) == str(service)
    assert host.engine().version()["Components"][0]["Name"] == "Podman Engine"
    host.close()


def test_a_job_runs_in_podman(service, tmp_path, docker_client, base_image):
    settings, said = Settings(runtime="podman"), []
    host = open_host(settings, tmp_path)
    copy_image(base_image, docker_client, host.engine())
    runner = Runner(host, tmp_path / ".ended", runtime=open_runtime(settings, host))
    spec = JobSpec("podman", (Command("rule", "echo hello; echo done > out"),), base_image, (), ("out",))
    runner.run(spec, tmp_path, said.append, threading.Event())
    assert (tmp_path / "out").read_text() == "done\n"
    assert said[-1] == "hello"
    assert [job for job in runner.runtime.list_jobs() if job.name == "podman"] == []
    host.close()


def test_a_group_interrupted_in_every_member_goes_on_and_runs_none_twice(service, tmp_path, docker_client, base_image):
    settings = Settings(runtime="podman")
    bench = Bench(tmp_path, base_image)
    bench.host = open_host(settings, tmp_path)
    copy_image(base_image, docker_client, bench.host.engine())
    bench.runner = Runner(bench.host, tmp_path / ".ended", runtime=open_runtime(settings, bench.host))
    interrupt_each_member(bench)
    bench.host.close()


def test_a_socket_that_is_not_active_is_told_with_the_command_that_starts_it(runtime_folder, tmp_path):
    with pytest.raises(ContainerError, match=r"not active; start it there: systemctl .*podman\.socket"):
        open_host(Settings(runtime="podman"), tmp_path).engine()


def test_a_socket_where_nobody_listens_is_told(runtime_folder, tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(runtime_folder / "podman/podman.sock"))
    with pytest.raises(ContainerError, match="nobody listens at Podman's socket; start it"):
        open_host(Settings(runtime="podman"), tmp_path).engine()


def test_a_host_without_podman_is_told():
    class Host:
        name = "h"

        def run(self, _: str) -> Finished:
            return Finished(podman.NO_PODMAN, b"", b"")

    with pytest.raises(ContainerError, match="podman is not there; install it"):
        podman.find_socket(Host())
