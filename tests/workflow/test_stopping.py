"""A run is stopped by a signal to it alone: within seconds, nothing is left, the table says where it goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import docker
import pytest
from biom3d_workflow import orphans, stopping

from biom3d.remote.job import LABEL
from tests.workflow.conftest import ROOT, make_cells, write_request

SLOW = "models: {tiny: {folds: 1, num_epochs: 5000, num_steps: 4, width: 4, max_dim: 16, seed: 1}}\n"
BACKGROUND = ["sh", "-c", '"$@" & echo $! > pid; wait $!', "sh"]  # where a script's job is deaf to SIGINT
RUN = [sys.executable, "-m", "biom3d", "run", "--no_measure", "--cores", "2"]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]


@pytest.fixture
def cells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_cells({"train": 3})
    write_request(SLOW, ["cells\tdata/train/images\tdata/train/masks\ttiny"])


def wait_for(fact):
    limit = time.monotonic() + 120
    while not fact():
        assert time.monotonic() < limit
        time.sleep(0.05)


def stop(sign: int, command: list[str]) -> str:
    """Start a run in the background, stop it in its training; return what it printed."""
    printed = Path("printed")
    with open(printed, "w", encoding="utf-8") as file:
        run = subprocess.Popen([*BACKGROUND, *command], stdout=file, stderr=file)
    try:
        wait_for(lambda: printed.read_text().count("train: epoch ") > 1 or run.poll() is not None)
        os.kill(int(Path("pid").read_text()), sign)
        assert run.wait(120) == 1
    finally:
        if run.poll() is None:  # the shell's job outlives it; what that has started ends with it
            os.kill(int(Path("pid").read_text()), signal.SIGTERM)
            run.wait(120)
    return printed.read_text()


def assert_stopped(printed: str) -> None:
    row = next(row for row in json.loads(Path("logs/outcome.json").read_text())["rows"] if row["model"] == "tiny")
    assert row["state"] == "stopped"
    assert " of 5000" in row["why"]
    assert row["why"].startswith("train tiny/fold_0: goes on after epoch ")
    assert "FAILED" not in printed
    assert "Traceback" not in printed
    assert orphans.find(Path.cwd()) == []


@pytest.mark.system
def test_a_signal_to_the_run_alone_stops_it_whoever_it_is_sent_to(cells):
    assert_stopped(stop(signal.SIGINT, RUN))
    before = int(Path("logs/outcome.json").read_text().split("goes on after epoch ")[1].split()[0])
    again = stop(signal.SIGTERM, [*SNAKEMAKE, "--workflow-profile", str(ROOT / "profiles/local"), "--cores", "2"])
    assert_stopped(again)
    assert f"train: epoch {before + 1}/5000 " in again


@pytest.mark.system
def test_in_containers_too(cells, cpu_image):
    assert_stopped(stop(signal.SIGTERM, [*RUN, "--profile", "docker"]))
    containers = docker.from_env().containers.list(all=True, filters={"label": LABEL})
    mounts = [mount.get("Source", "") for container in containers for mount in container.attrs["Mounts"]]
    assert [source for source in mounts if source.startswith(str(Path.cwd()))] == []


def test_a_step_that_does_not_listen_is_killed_and_what_copies_its_words_is_not(monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_S", 0.3)
    deaf = f"{sys.executable} -c \"import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True);"
    job = subprocess.Popen(
        ["bash", "-c", f'set -o pipefail; {deaf} time.sleep(600)" | tee /dev/null; echo ended'],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout.readline() == "deaf\n"
    said: list[str] = []
    stopper = stopping.Stopper(said.append)
    killer = threading.Thread(target=stopper._end_steps)
    killer.start()
    assert job.communicate(timeout=60)[0] == "ended\n"
    stopper.end()
    killer.join()
    assert said[0].startswith("stopping: ")
