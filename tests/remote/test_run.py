"""The workflow on a host over SSH: a real sshd, an unprivileged account that may use the real container engine."""

import os
import subprocess
from pathlib import Path

import pytest

from biom3d import synth
from tests.workflow.conftest import ROOT, run_snakemake, write_request
from tests.workflow.test_docker import OPTIONS, results

pytestmark = pytest.mark.system
ROWS = ["cells\tdata/train/images\tdata/train/masks\ttiny", "new\tdata/new/images\tdata/new/masks\t\ttiny"]


@pytest.fixture
def with_engine(account):
    """The account may use the engine, as an administrator would arrange it."""
    group = Path("/var/run/docker.sock").group()
    subprocess.run(["usermod", "-aG", group, account.name], check=True)


def make_project(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)
    for name, count in (("train", "3"), ("new", "2")):
        assert synth.main([f"data/{name}", "--count", count, "--shape", "16", "24", "24", "--cells", "4"]) == 0
    write_request(f"models:\n  tiny: {{{OPTIONS}}}\n", ROWS)


def options(client) -> list[str]:
    settings = {"host": "server", "config": client.config, "key-file": client.folder / "key", "workdir": "lab"}
    words = [word for name, value in settings.items() for word in (f"--ssh-{name}", str(value))]
    return ["--workflow-profile", str(ROOT / "profiles/docker"), *words]


def test_results_over_ssh_equal_those_of_this_python(client, with_engine, cpu_image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path / "ssh")
    done = run_snakemake(*options(client))
    assert done.returncode == 0, done.stderr
    make_project(tmp_path / "here")
    assert run_snakemake("--workflow-profile", str(ROOT / "profiles/local")).returncode == 0
    ours, theirs = results(tmp_path / "here"), results(tmp_path / "ssh")
    assert sorted(ours) == sorted(theirs)
    wanted = [name for name in ours if name.startswith("data/pred") or name.endswith(("metrics.json", "summary.csv"))]
    assert [name for name in wanted if ours[name] != theirs[name]] == []
