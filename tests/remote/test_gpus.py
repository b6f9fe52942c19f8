"""GPU requests and leases, with stand-ins for what only a GPU machine has: nvidia-smi, and NVIDIA's container hook.

Docker offers `--gpus` when a program of that hook's name is on its PATH; the stand-in writes down what it was asked.
"""

import os
import subprocess
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from biom3d.errors import ContainerError, HostError
from biom3d.remote import gpus
from biom3d.remote.job import LABEL, Resources
from biom3d.remote.lifecycle import Runner
from biom3d.remote.local import LocalHost
from tests.docker_engine import running_dockerd
from tests.remote.server import wait_for as wait_until
from tests.remote.test_lifecycle import Bench, in_thread, wait_for

pytestmark = pytest.mark.system
HOOK = """#!/usr/bin/env python3
import json, pathlib, sys
state = json.load(sys.stdin)
config = json.loads(pathlib.Path(state["bundle"], "config.json").read_text())
asked = [word for word in config["process"]["env"] if word.startswith("NVIDIA_VISIBLE_DEVICES=")]
with open("{record}", "a") as file:
    print(*asked, file=file)
"""
NVIDIA_SMI = "#!/bin/sh\n[ \"$*\" = '--query-gpu=index --format=csv,noheader' ] && printf '0\\n1\\n'\n"


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """An nvidia-smi that lists two devices, and locks of our own."""
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin/nvidia-smi", NVIDIA_SMI)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "LEASES", tmp_path / "leases")


@pytest.fixture(scope="module")
def gpu_engine(tmp_path_factory, docker_client, base_image):
    """A Docker Engine of our own that believes in GPUs; yields its socket and the record of what it was asked."""
    folder = tmp_path_factory.mktemp("engine")
    record = folder / "asked.txt"
    (folder / "bin").mkdir()
    write_program(folder / "bin/nvidia-container-runtime-hook", HOOK.format(record=record))
    with running_dockerd(folder, beside=True, programs=folder / "bin") as client:
        copy_image(base_image, docker_client, client)
        yield socket_of(client), record


def socket_of(client) -> str:
    """The path of the socket, which the SDK knows."""
    return client.api.get_adapter("http+docker://").socket_path


def copy_image(reference, source, target):
    target.images.load(b"".join(source.images.get(reference).save(named=True)))


@pytest.fixture
def bench(tmp_path, gpu_engine, base_image, two_gpus):
    bench = Bench(tmp_path, base_image)
    bench.host = LocalHost(tmp_path / ".biom3d", gpu_engine[0])
    bench.runner = Runner(bench.host, bench.folder / ".ended")
    gpu_engine[1].unlink(missing_ok=True)
    yield bench
    bench.host.close()


def test_the_devices_are_those_of_nvidia_smi(two_gpus, tmp_path):
    assert gpus.find_devices(LocalHost(tmp_path)) == ("0", "1")


def test_a_machine_without_nvidia_smi_has_no_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert gpus.find_devices(LocalHost(tmp_path)) == ()


def test_a_broken_driver_is_told(two_gpus, tmp_path):
    write_program(tmp_path / "bin/nvidia-smi", "#!/bin/sh\necho 'No devices were found'; exit 6\n")
    with pytest.raises(HostError, match=r"nvidia-smi failed \(No devices were found\); is the driver loaded"):
        gpus.find_devices(LocalHost(tmp_path))


def test_a_leased_device_is_not_free_until_its_holder_ends(two_gpus, tmp_path):
    host = LocalHost(tmp_path)
    assert gpus.find_free(host, ("0", "1")) == ("0", "1")
    holder = subprocess.Popen(["flock", str(tmp_path / "leases/1"), "sleep", "60"])
    end = time.monotonic() + 20
    while gpus.find_free(host, ("0", "1")) != ("0",):
        assert time.monotonic() < end
    subprocess.run(["pkill", "-KILL", "-P", str(holder.pid)], check=True)
    holder.wait(20)
    assert gpus.find_free(host, ("0", "1")) == ("0", "1")


def test_the_container_gets_the_leased_device_and_only_that(bench, gpu_engine):
    bench.run("echo $BIOM3D_LEASES > out", resources=Resources(gpus=1))
    assert bench.text() == "0\n"
    assert gpu_engine[1].read_text() == "NVIDIA_VISIBLE_DEVICES=0\n"


def test_two_devices_for_one_job(bench, gpu_engine):
    bench.run("touch out", resources=Resources(gpus=2))
    assert gpu_engine[1].read_text() == "NVIDIA_VISIBLE_DEVICES=0,1\n"


def test_a_job_without_a_gpu_sees_none(bench, gpu_engine):
    bench.run("touch out")
    assert not gpu_engine[1].exists()


def test_only_the_devices_that_the_user_named_are_used(bench, gpu_engine):
    bench.runner = Runner(bench.host, bench.folder / ".ended", devices=("1",))
    bench.run("touch out", resources=Resources(gpus=1))
    assert gpu_engine[1].read_text() == "NVIDIA_VISIBLE_DEVICES=1\n"


def test_more_devices_than_there_are_is_an_error(bench):
    with pytest.raises(HostError, match=r"3 GPU\(s\) wanted, and it has 2 to use"):
        bench.run("touch out", resources=Resources(gpus=3))


def start_each(bench: Bench, names: str, shell: str) -> list[threading.Thread]:
    """Start a job on one GPU for each name, which is its output and stands for {0}."""
    threads = []
    for name in names:
        spec = replace(bench.spec(shell.format(name), name), resources=Resources(gpus=1, threads=0))
        arguments = (spec, bench.folder, bench.lines.append, bench.stop)
        threads.append(threading.Thread(target=bench.runner.run, args=arguments))
        threads[-1].start()
    return threads


def test_jobs_never_share_a_device(bench):
    for thread in start_each(
        bench, "abcd", "date +%s.%N > {0}; sleep 0.5; date +%s.%N >> {0}; echo $BIOM3D_LEASES >> {0}"
    ):
        thread.join(90)
    uses = sorted((device, float(begin), float(end)) for begin, end, device in (bench.text(n).split() for n in "abcd"))
    for (device, _, end), (next_device, begin, _) in pairwise(uses):
        assert device != next_device or end <= begin


def test_jobs_at_the_same_time_use_all_devices(bench):
    threads = start_each(bench, "ab", "echo $BIOM3D_LEASES > {0}; while [ ! -e go ]; do sleep 0.1; done")
    jobs = Path(bench.host.root) / "jobs"
    wait_until(lambda: len([path for path in jobs.glob("*/work/[ab]") if path.read_text()]) == 2, "two jobs that run")
    for job in jobs.iterdir():
        (job / "work/go").touch()
    for thread in threads:
        thread.join(90)
    assert {bench.text("a"), bench.text("b")} == {"0\n", "1\n"}


def test_an_engine_that_cannot_give_gpus_is_told(tmp_path, base_image, two_gpus):
    bench = Bench(tmp_path, base_image)
    with pytest.raises(ContainerError, match="install nvidia-container-toolkit there"):
        bench.run("touch out", resources=Resources(gpus=1))
    assert bench.containers() == []
    bench.host.close()


def test_a_restarted_engine_costs_nothing(tmp_path, tmp_path_factory, base_image, docker_client):
    """Its containers are killed with it; the job is started again and ends as if nothing had been."""
    folder, data = tmp_path_factory.mktemp("engine"), tmp_path_factory.mktemp("data")
    socket = tmp_path / "sock"
    (tmp_path / "job").mkdir()
    bench = Bench(tmp_path / "job", base_image)
    with running_dockerd(folder, beside=True, data=data) as client:
        copy_image(base_image, docker_client, client)
        socket.symlink_to(socket_of(client))
        bench.host = LocalHost(tmp_path / "job/.biom3d", str(socket))
        bench.runner = Runner(bench.host, bench.folder / ".ended")
        thread, errors = in_thread(bench, "if [ -e second ]; then touch out; else touch second; sleep 60; fi")
        container = bench.wait_for_container()
        wait_for(tmp_path / "job/.biom3d/jobs" / container.labels[LABEL] / "work/second")
    with running_dockerd(folder, beside=True, data=data) as client:
        socket.unlink()
        socket.symlink_to(socket_of(client))
        thread.join(90)
    assert errors == []
    assert (tmp_path / "job/out").exists()
    assert any(line.startswith("connection lost") for line in bench.lines)
