"""The workflow on a host over SSH: a real sshd, an unprivileged account that may use the real container engine."""

import getpass
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.remote.conftest import Client
from tests.remote.server import Server
from tests.server.gated import Door, opened
from tests.server.test_image import Box, box, image
from tests.workflow.conftest import ROOT, SMALL_CONFIG, make_cells, run_snakemake, write_request
from tests.workflow.test_docker import results

__all__ = ["box", "image"]
pytestmark = pytest.mark.system
ROWS = ["cells\tdata/train/images\tdata/train/masks\ttiny", "new\tdata/new/images\tdata/new/masks\t\ttiny"]


@pytest.fixture
def with_engine(account, docker_client):
    """The account may use the engine, as an administrator would arrange it."""
    group = Path("/var/run/docker.sock").group()
    subprocess.run(["usermod", "-aG", group, account.name], check=True)


def make_project(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)
    make_cells({"train": 3, "new": 2})
    write_request(SMALL_CONFIG, ROWS)


def options(client) -> list[str]:
    settings = {"address": "server", "config": client.config, "key-file": client.folder / "key", "workdir": "lab"}
    words = [word for name, value in settings.items() for word in (f"--host-{name}", str(value))]
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


def without_containers(client: Client) -> list[str]:
    runtime = ["--host-runtime", "venv", "--host-venv", sys.prefix]
    return [*options(client), "--host-workdir", str(client.folder / "lab"), *runtime]


@pytest.fixture
def door(server, account, with_engine, cpu_image):
    """A bare host whose key opens the gate only, which allows containers of our image."""
    with opened(server, account) as door:
        shutil.rmtree(door.root)
        door.configure(images=[cpu_image])
        yield door
        assert [note["why"] for note in door.notes() if note["verdict"] != "ok"] == []


def through_the_gate(client: Client, door: Door) -> list[str]:
    return [*options(client), "--host-key-file", str(door.key), "--host-workdir", str(door.workdir)]


@pytest.fixture
def gated_box(box):
    """The server image, whose keys open the gate only."""
    box.start("server", "run", "--gate", shm_size="1g")
    box.wait()
    yield box
    notes = [json.loads(line) for line in (box.folder / "state/.biom3d-gate.log").read_text().splitlines()]
    assert [note["why"] for note in notes if note["verdict"] != "ok"] == []
    jobs = [note for note in notes if note["what"] == "job"]
    assert {(note["who"], note["exit"]) for note in jobs} == {("anna", 0)}


def on_the_server_image(box: Box, folder: Path) -> list[str]:
    key = " ".join((box.folder / "state/hostkeys/ssh_host_ed25519_key.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{box.port} {key}\n")
    (folder / "config").write_text(f"Host *\n  UserKnownHostsFile {folder}/known\n  IdentityAgent none\n")
    settings = {"address": "127.0.0.1", "port": box.port, "user": "biom3d", "key-file": box.key, "workdir": "/work"}
    settings |= {"config": folder / "config", "runtime": "venv", "venv": "/opt/venv"}
    words = [word for name, value in settings.items() for word in (f"--host-{name}", str(value))]
    return ["--workflow-profile", str(ROOT / "profiles/docker"), *words]


FAR = {
    "docker": lambda get: (get("with_engine"), get("cpu_image"), options(get("client")))[-1],
    "venv": lambda get: without_containers(get("own_client")),
    "gate": lambda get: through_the_gate(get("client"), get("door")),
    "server image with the gate": lambda get: on_the_server_image(get("gated_box"), get("tmp_path")),
}


@pytest.fixture(params=FAR)
def far(request):
    """Options for the workflow on a host: with containers or without, by a full key or through the gate."""
    return FAR[request.param](request.getfixturevalue)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The same project, run by this Python."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("here") / "project"
    make_project(folder)
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/local"))
    os.chdir(before)
    assert done.returncode == 0, done.stderr
    return folder


def test_results_over_ssh_equal_those_of_this_python(far, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path / "ssh")
    done = run_snakemake(*far)
    assert done.returncode == 0, done.stderr
    ours, theirs = results(here), results(tmp_path / "ssh")
    assert sorted(ours) == sorted(theirs)
    wanted = [name for name in ours if name.startswith("data/pred") or name.endswith(("metrics.json", "summary.csv"))]
    assert len(wanted) > 3
    assert [name for name in wanted if ours[name] != theirs[name]] == []
