"""A client killed at every step of the life of a job, by name: the same command goes on, and no job runs twice."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote.deadly import STEPS
from tests.remote.test_run import own_client

__all__ = ["own_client"]
pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
# One job after the other; each notes outside of its folder that it ran.
SNAKEFILE = """
rule job:
    input: lambda w: f"out_{int(w.k) - 1}" if int(w.k) else []
    output: "out_{k}"
    shell: "echo {wildcards.k} >> COUNT; sleep 0.2; echo {wildcards.k} > {output}"
"""


def run(folder: Path, words: list[str], program: list[str]) -> int:
    line = [sys.executable, "-m", *program, "--executor", "host", "--jobs", "1", "--nolock", "--rerun-incomplete"]
    done = subprocess.run(
        [*line, "--directory", str(folder), "--snakefile", str(folder / "Snakefile"), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def kill_at_each(folder: Path, options: list[str], steps: list[str]) -> None:
    """Kill the client after each step of a job of its own; the next client takes that up before its own job."""
    (folder / "Snakefile").write_text(SNAKEFILE.replace("COUNT", str(folder / "count")))
    for number, step in enumerate(steps):
        deadly = ["tests.remote.deadly", f"job {number}", step]
        assert run(folder, [*options, f"out_{number}"], deadly) == -signal.SIGKILL, step
    last = len(steps)
    assert run(folder, [*options, f"out_{last}"], ["snakemake"]) == 0
    ran = (folder / "count").read_text().split()
    assert [steps[k] for k in range(last) if ran.count(str(k)) != 1] == []
    assert [(folder / f"out_{k}").read_text() for k in range(last + 1)] == [f"{k}\n" for k in range(last + 1)]


def test_no_job_runs_twice_though_the_client_is_killed_at_each_step_of_one(tmp_path):
    kill_at_each(tmp_path, ["--host-runtime", "venv"], [step for step in STEPS if step != "stage over SSH"])
    assert list((tmp_path / ".snakemake/biom3d/jobs").iterdir()) == []


def test_nor_over_ssh_in_its_last_second(tmp_path, own_client):
    settings = {"address": "server", "config": own_client.config, "key-file": own_client.folder / "key"}
    settings |= {"workdir": own_client.folder / "lab", "runtime": "venv", "venv": sys.prefix}
    words = [word for name, value in settings.items() for word in (f"--host-{name}", str(value))]
    steps = ["stage over SSH", "bring", "note arrival", "leave", "report"]
    kill_at_each(tmp_path, words, steps)
    assert list((own_client.folder / "lab/.biom3d/jobs").iterdir()) == []
