"""One training by several processes gives the numbers of one process, and ends as one."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from biom3d.data import augment
from biom3d.data.patches import Case, sample_batch
from biom3d.errors import ConfigError
from biom3d.train import main
from biom3d.training.group import ALONE, Group, group_from
from tests.training.conftest import REQUEST, make_plan_file
from tests.training.test_train import curve, run, weights

# Sums of float32 in another order differ by 1e-7; 9 steps make it up to 1e-6 (measured), so 1e-4 tells a wrong sample
# or a wrong weight of the loss from rounding. In bfloat16 the gradients themselves are rounded: 3e-4 after 10 steps.
TOLERANCE = 1e-4
LONG = dataclasses.replace(REQUEST, num_epochs=1000)


def command(plan_file: Path, data: Path, target: Path, *more: str) -> list[str]:
    words = ["biom3d.train", "--config", plan_file, "--data_dir", data, "--run_dir", target, "--precision", "float32"]
    return [*map(str, words), "--threads", "2", *more]


def start(*words: str) -> subprocess.Popen:
    def heed_ctrl_c() -> None:  # which a test run in the background ignores, and its children with it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    words = (sys.executable, "-m", *words)
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)


def wait_for(fact, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(launcher: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def running(tmp_path, data):
    """A long training by two processes, after its first epoch."""
    make_plan_file(tmp_path / "long.yaml", LONG)
    process = start(*command(tmp_path / "long.yaml", data, tmp_path / "run", "--processes", "2"))
    wait_for(lambda: (tmp_path / "run.partial" / "log" / "log.csv").exists() or process.poll() is not None)
    yield process
    process.kill()
    process.communicate()


def assert_same_curve(a: Path, b: Path) -> None:
    pairs = list(zip(curve(a), curve(b), strict=True))
    assert all(float(x[key]) == pytest.approx(float(y[key]), abs=TOLERANCE) for x, y in pairs for key in x)


@pytest.mark.parametrize(("count", "size"), [(2, 2), (3, 2), (7, 3), (2, 1)])
def test_every_sample_is_of_one_process(count, size):
    parts = [range(count)[Group(rank, size).share(count)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(count))


def test_a_share_of_a_batch_is_a_part_of_it():
    case = Case("c", np.random.default_rng(0).random((1, 9, 9, 9), np.float32), np.ones((9, 9, 9), np.uint8), {})
    share = Group(1, 2).share(3)
    parts = [
        sample_batch([case], (4, 4, 4), (1, 1, 1), 3, 0.5, np.random.default_rng(1), s) for s in (slice(None), share)
    ]
    assert np.array_equal(parts[0][0][share], parts[1][0])


def test_a_share_of_a_batch_is_augmented_like_the_whole():
    images = torch.rand(3, 1, 6, 10, 10, generator=torch.Generator().manual_seed(0))
    masks, patch, share = (images[:, 0] > 0.5).long(), (4, 8, 8), Group(1, 2).share(3)
    parameters = augment.draw_parameters(3, patch, None, np.random.default_rng(5))
    parameters.noise[:] = 0.1
    whole, part = (
        augment.apply(images[s], masks[s], patch, parameters, torch.Generator().manual_seed(1), s)[0]
        for s in (slice(None), share)
    )
    assert torch.equal(whole[share], part)


def test_one_process_is_a_group_of_its_own():
    assert group_from({}) == group_from({"WORLD_SIZE": "1", "RANK": "0"}) == ALONE


def test_half_of_the_variables_of_torchrun_is_an_error():
    with pytest.raises(ConfigError, match="RANK is not set"):
        group_from({"WORLD_SIZE": "2"})


def test_more_processes_than_samples_are_refused(tmp_path, plan_file, data, capfd):
    assert run(plan_file, data, tmp_path / "run", "--processes", "3") == 2
    assert "a batch of 2 patch(es) cannot be shared by 3 processes" in capfd.readouterr().err


def test_the_launcher_refuses_a_wrong_number(tmp_path, plan_file, data, capfd):
    with pytest.raises(SystemExit, match="2"):
        run(plan_file, data, tmp_path / "run", "--processes", "0")
    assert "--processes: got '0'; wanted a whole number above 0" in capfd.readouterr().err


@pytest.mark.system
@pytest.mark.parametrize("batch_size", [2, 3])
def test_two_processes_have_the_loss_curve_of_one(tmp_path, data, batch_size):
    make_plan_file(tmp_path / "plan.yaml", dataclasses.replace(REQUEST, batch_size=batch_size))
    assert main(command(tmp_path / "plan.yaml", data, tmp_path / "one")[1:]) == 0
    assert start(*command(tmp_path / "plan.yaml", data, tmp_path / "two", "--processes", "2")).wait(120) == 0
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=TOLERANCE) for name in one)


@pytest.mark.system
def test_torchrun_trains_too(tmp_path, plan_file, data):
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    assert start(*torchrun, *command(plan_file, data, tmp_path / "two")).wait(120) == 0
    assert main(command(plan_file, data, tmp_path / "one")[1:]) == 0
    assert_same_curve(tmp_path / "one", tmp_path / "two")


@pytest.mark.system
def test_a_killed_training_goes_on_with_another_number_of_processes(tmp_path, plan_file, data):
    both = start(*command(plan_file, data, tmp_path / "killed", "--processes", "2"))
    wait_for(lambda: (tmp_path / "killed.partial" / "log" / "log.csv").exists() or both.poll() is not None)
    workers = workers_of(both)
    both.kill()
    wait_for(lambda: all(map(is_gone, workers)), 60)
    assert main(command(plan_file, data, tmp_path / "killed")[1:]) == 0
    assert main(command(plan_file, data, tmp_path / "whole")[1:]) == 0
    assert_same_curve(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.system
@pytest.mark.parametrize("rank", [0, 1])
def test_a_lost_process_ends_the_training_with_one_line(running, rank):
    os.kill(workers_of(running)[rank], signal.SIGKILL)
    lines = [line for line in running.communicate(timeout=60)[1].splitlines() if "epoch " not in line[:20]]
    assert lines[2:] == [  # the first two say what is trained
        f"train: error: process {rank + 1} of 2 was killed by SIGKILL, perhaps because the memory was full; run the "
        "same command again: it goes on after the last whole epoch"
    ]
    assert running.returncode == 1


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_processes_stop_together(running, number):
    workers = workers_of(running)
    running.send_signal(number)
    assert running.communicate(timeout=60)[1].count("train: stopped; finished parts are kept") == 1
    assert running.returncode == 130
    assert all(map(is_gone, workers))


@pytest.mark.system
def test_nothing_is_left_of_a_killed_launcher(running):
    workers = workers_of(running)
    running.kill()
    wait_for(lambda: all(map(is_gone, workers)), 60)


@pytest.mark.system
def test_a_mistake_that_one_process_finds_is_told_once(tmp_path, plan_file, data):
    mask = np.load(data / "masks" / "v0.npy")
    np.save(data / "masks" / "v0.npy", mask * 9)
    np.save(data / "masks" / "v1.npy", mask * 9)
    process = start(*command(plan_file, data, tmp_path / "run", "--processes", "2"))
    said = process.communicate(timeout=120)[1]
    assert said.count("holds labels 0..9, the plan knows 0..1") == said.count("error") == 1
    assert process.returncode == 2
