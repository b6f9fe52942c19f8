"""The workflow on a host over SSH: a real sshd, an unprivileged account that may use the real container engine."""

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from biom3d import synth
from tests.remote.conftest import Client
from tests.remote.server import Server
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


@pytest.fixture
def own_client(tmp_path, key):
    """A client that gets in as who runs the tests: nobody else may be allowed to read this Python."""
    trusted = tmp_path / "authorized_keys"
    shutil.copy(key.with_name("key.pub"), trusted)
    server = Server(tmp_path / "sshd", options=f"PermitRootLogin prohibit-password\nAuthorizedKeysFile {trusted}")
    (tmp_path / "client").mkdir()
    shutil.copy(key, tmp_path / "client" / "key")
    yield Client(tmp_path / "client", server, SimpleNamespace(name=getpass.getuser()))
    server.stop()


@pytest.fixture(params=["docker", "venv"])
def far(request):
    """Options for the workflow on a host, with containers or without."""
    if request.param == "docker":
        request.getfixturevalue("with_engine"), request.getfixturevalue("cpu_image")
        return options(request.getfixturevalue("client"))
    client = request.getfixturevalue("own_client")
    runtime = ["--ssh-runtime", "venv", "--ssh-venv", sys.prefix]
    return [*options(client), "--ssh-workdir", str(client.folder / "lab"), *runtime]


def test_results_over_ssh_equal_those_of_this_python(far, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path / "ssh")
    done = run_snakemake(*far)
    assert done.returncode == 0, done.stderr
    make_project(tmp_path / "here")
    assert run_snakemake("--workflow-profile", str(ROOT / "profiles/local")).returncode == 0
    ours, theirs = results(tmp_path / "here"), results(tmp_path / "ssh")
    assert sorted(ours) == sorted(theirs)
    wanted = [name for name in ours if name.startswith("data/pred") or name.endswith(("metrics.json", "summary.csv"))]
    assert [name for name in wanted if ours[name] != theirs[name]] == []
