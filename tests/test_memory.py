import os
import re
import resource
import subprocess
import sys

import docker.errors
import numpy as np
import pytest

from biom3d.errors import ConfigError
from biom3d.memory import memory_limit, resident_bytes

KB = 1024


def machine(tmp_path, cgroup="0::/job\n", files=()):
    """Write what the kernel says of a process that holds 100 kB where 1000 kB are free."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 4000 kB\nMemAvailable:    1000 kB\n")
    (tmp_path / "proc" / "self" / "status").write_text("Name:\tpython\nVmSize:\t  500 kB\nVmRSS:\t  100 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in files:
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {"proc": tmp_path / "proc", "cgroups": tmp_path / "cgroup"}


def test_all_that_is_free_and_what_is_held_is_allowed(tmp_path):
    limit = memory_limit(None, **machine(tmp_path, files=[("memory.max", "max\n")]))
    assert (limit.bytes, limit.who) == (1100 * KB, "this machine has")


@pytest.mark.parametrize(
    ("cgroup", "name"),
    [
        ("0::/job/step\n", "job/step/memory.max"),
        ("0::/job/step\n", "job/memory.max"),
        ("0::/of/the/host\n", "memory.max"),  # in a container
        ("0::/../..\n", "memory.max"),
        ("5:cpu:/\n7:memory,hugetlb:/docker/1\n", "memory/docker/1/memory.limit_in_bytes"),
        ("7:memory:/docker/1\n", "memory/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_the_container_is_found(tmp_path, cgroup, name):
    limit = memory_limit(None, **machine(tmp_path, cgroup, [(name, f"{300 * KB}\n")]))
    assert (limit.bytes, limit.who) == (300 * KB, "the container allows")


def test_the_tightest_limit_counts(tmp_path):
    where = machine(tmp_path, files=[("job/memory.max", f"{300 * KB}")])
    assert memory_limit(0.0001, **where).who == "--memory_limit allows"
    assert memory_limit(1, **where).who == "the container allows"


def test_ulimit_counts_what_is_reserved_too():
    code = "from biom3d.memory import *; limit = memory_limit(None); print(limit.bytes, limit.who)"
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))  # noqa: E731
    words = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=True)
    size, who = words.stdout.strip().split(" ", 1)
    assert who == "ulimit -v allows"
    assert 5e8 < int(size) < 1e9


@pytest.mark.parametrize("asked", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(asked):
    with pytest.raises(ConfigError, match="--memory_limit"):
        memory_limit(asked)


def test_this_process_holds_something():
    assert 1e6 < resident_bytes() < 1e11


@pytest.mark.system
def test_the_limit_of_a_real_container_is_kept_before_anything_is_read(docker_client, cpu_image, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        # 4 GB each that lie nowhere: only the header is written
        shape, kind = (64, 8192, 8192), "<u2" if part == "images" else "|u1"
        with open(tmp_path / part / "a.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + np.dtype(kind).itemsize * 64 * 8192 * 8192)
    words = "preprocess --img_path /data/images --msk_path /data/masks --out_dir /data/out --plan_out /data/p.yaml"
    with pytest.raises(docker.errors.ContainerError) as failed:
        docker_client.containers.run(
            cpu_image,
            ["python", "-m", *f"biom3d.{words}".split()],
            mem_limit="500m",
            user=f"{os.getuid()}:{os.getgid()}",
            volumes={str(tmp_path): {"bind": "/data", "mode": "rw"}},
            remove=True,
        )
    said = failed.value.stderr.decode()
    assert failed.value.exit_status == 2
    needed = r"'/data/images/a.npy': its preprocessing needs \d\.\d GB of memory or more, the container allows 0.5 GB"
    assert re.search(needed, said)
    assert "Traceback" not in said
