"""What is promised to jobs that are about to start, beside what the list of this machine's processes shows."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from biom3d.remote.job import LABEL, Resources
from biom3d.remote.local import LocalHost
from biom3d.remote.processes import mark
from biom3d.remote.room import Room, lacking
from biom3d.remote.runtime import Capacity
from biom3d.remote.venv import Venv

pytestmark = pytest.mark.system


def labels(job: str, gpus: str = "", threads: int = 2) -> dict[str, str]:
    numbers = {f"{LABEL}.threads": str(threads), f"{LABEL}.mem_mb": "10", f"{LABEL}.gpus": gpus}
    return {LABEL: job, f"{LABEL}.name": job, **numbers}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    host = LocalHost(tmp_path / ".biom3d")
    yield Room(Venv(host, sys.prefix))
    host.close()


def seen(room: Room, job: str, is_fresh: bool = True) -> int:
    return sum(other[LABEL] == job for other in room.others(is_fresh))


@pytest.fixture
def running() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", "input()", mark(labels("room-runs"))], stdin=subprocess.PIPE)
    end = time.monotonic() + 10
    while mark(labels("room-runs")).encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        assert time.monotonic() < end
    yield "room-runs"
    process.kill()
    process.wait()


def test_a_promise_counts_before_the_job_runs(room):
    room.promise(labels("a"))
    assert seen(room, "a") == 1


def test_a_job_that_was_promised_and_never_ran_is_forgotten_by_the_next_look(room):
    room.promise(labels("a"))
    room.settle("a")
    assert seen(room, "a") == 0


def test_a_job_that_has_just_started_counts_until_the_host_is_asked_again(room):
    room.others(is_fresh=True)
    room.promise(labels("a"))
    room.settle("a")
    assert seen(room, "a", is_fresh=False) == 1


def test_a_job_that_runs_and_is_promised_counts_once(room, running):
    room.promise(labels(running))
    assert seen(room, running) == 1


def test_a_promise_made_again_outlives_the_look_that_forgets_the_first(room):
    room.promise(labels("a"))
    room.settle("a")
    room.promise(labels("a"))
    assert seen(room, "a") == 1


def test_the_devices_of_a_job_are_promised_until_the_host_is_asked_again(room):
    room.promise(labels("a", gpus="0 1"))
    before = room.promised_devices()
    room.settle("a")
    room.others(is_fresh=True)
    assert (before, room.promised_devices()) == ({"0", "1"}, set())


def test_promised_cores_lack_to_the_next(room):
    room.promise(labels("a", threads=3))
    ours = [other for other in room.others(is_fresh=True) if other[LABEL] == "a"]
    assert lacking(Resources(threads=2, mem_mb=1), Capacity(4, 100), ours) == "2 cores wanted, 1 of 4 free"
