"""The image `server`: sshd and the steps in one container, without root; a real client logs in."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import docker
import pytest

from biom3d.events import Reporter
from biom3d.images.build import build_image
from biom3d.images.table import load_table
from biom3d.remote.job import Command, JobSpec, Resources
from biom3d.remote.lifecycle import Runner
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
from biom3d.remote.venv import Venv
from biom3d.server.card import read_card
from biom3d.server.keys import read_public_key
from tests.remote.server import names_in, wait_for
from tests.server.conftest import new_key

pytestmark = pytest.mark.system
UID = 1234


@pytest.fixture(scope="module")
def image(docker_client):
    return build_image(docker_client, load_table(), "server", Reporter("images")).reference


class Box:
    """A container of the image, as docs/server.md starts it, with its three folders."""

    def __init__(self, client: docker.DockerClient, image: str, folder: Path) -> None:
        self.client, self.image, self.folder = client, image, folder
        for name in ("work", "state", "keys"):
            (folder / name).mkdir()
        for name in ("work", "state"):
            shutil.chown(folder / name, UID, UID)
        self.key = new_key(folder)
        shutil.copy(f"{self.key}.pub", folder / "keys" / "anna.pub")
        self.container = None

    def start(self, *command: str, **more) -> None:
        given = {"user": f"{UID}:{UID}", "read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"]}
        modes = {"work": "rw", "state": "rw", "keys": "ro"}
        self.container = self.client.containers.run(
            self.image,
            list(command),
            detach=True,
            hostname="box",
            security_opt=["no-new-privileges"],
            ports={"2222/tcp": ("127.0.0.1", None)},
            volumes={str(self.folder / name): {"bind": f"/{name}", "mode": mode} for name, mode in modes.items()},
            labels={"biom3d-test": "server"},
            **(given | more),
        )

    def wait(self) -> None:
        # It makes an RSA key of 4096 bits first, which takes long on a busy machine.
        has_come = lambda: "Server listening on 0.0.0.0" in self.log() or not self.is_running()  # noqa: E731
        wait_for(has_come, "sshd in the container", 180)

    def is_running(self) -> bool:
        self.container.reload()
        return self.container.status in ("created", "running")

    def log(self) -> str:
        return self.container.logs().decode()

    @property
    def port(self) -> int:
        self.container.reload()
        return int(self.container.attrs["NetworkSettings"]["Ports"]["2222/tcp"][0]["HostPort"])

    def inside(self, *words: str) -> str:
        code, out = self.container.exec_run(list(words))
        assert code == 0, out.decode()
        return out.decode()

    def stop(self) -> None:
        if self.container:
            self.container.remove(force=True)

    def fingerprint(self) -> str:
        return read_public_key(self.folder / "state" / "hostkeys" / "ssh_host_ed25519_key.pub").fingerprint

    def ssh(self, *words: str) -> "subprocess.CompletedProcess[str]":
        line = ["ssh", "-F", "none", "-i", self.key, "-p", str(self.port)]
        for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"):
            line += ["-o", option]
        return subprocess.run(
            [*line, "-o", "BatchMode=yes", *words[:-1], "biom3d@127.0.0.1", words[-1]],
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def box(docker_client, image, tmp_path):
    box = Box(docker_client, image, tmp_path)
    yield box
    box.stop()


@pytest.fixture
def host(box, home):
    """Our client, connected with the container."""
    box.start()
    box.wait()
    key = " ".join((box.folder / "state/hostkeys/ssh_host_ed25519_key.pub").read_text().split()[:2])
    (home / "known").write_text(f"[127.0.0.1]:{box.port} {key}\n")
    (home / "config").write_text(
        f"Host *\n  UserKnownHostsFile {home}/known\n  GlobalKnownHostsFile none\n  IdentityAgent none\n"
    )
    settings = SSHSettings(
        "127.0.0.1", box.port, "biom3d", key_file=box.key, jump=(), workdir="/work", config=home / "config"
    )
    host = SSHHost(settings, cache=home / "hashes.sqlite")
    yield host
    host.close()


def test_our_client_runs_a_step_there(host):
    done = host.run("python -m biom3d.check --help")
    assert (done.code, done.out[:33]) == (0, b"usage: python -m biom3d.check [-h")


def test_our_client_finds_all_it_needs_and_writes_to_the_mounted_folder(host, box):
    host.write(host.root / "jobs" / "x", b"content")
    assert host.user() == (UID, UID)
    assert (box.folder / "work/.biom3d/jobs/x").stat().st_uid == UID
    assert {"data", "logs"} <= set(names_in(box.folder / "work"))


def test_a_new_container_is_the_same_server(box):
    box.start()
    box.wait()
    before = box.fingerprint()
    box.stop()
    box.start()
    box.wait()
    assert f"host key {before}" in box.log()


def test_the_image_holds_no_host_key(docker_client, image):
    out = docker_client.containers.run(image, ["sh", "-c", "ls -A /etc/ssh /state /keys /work"], remove=True)
    assert "host" not in out.decode()
    assert "sshd_config" in out.decode()


def test_it_refuses_to_be_root(box):
    box.start(user="0:0")
    box.wait()
    assert "runs as root, which it needs not and must not" in box.log()


def test_a_folder_that_it_cannot_write_to_is_named_with_the_remedy(box):
    shutil.chown(box.folder / "state", 0, 0)
    box.start()
    box.wait()
    assert f"'/state' (host keys and people) cannot be written by uid {UID}" in box.log()


def test_passwords_terminals_and_forwarding_are_refused(box):
    box.start()
    box.wait()
    assert "(publickey)" in box.ssh("-o", "PreferredAuthentications=password", "true").stderr
    assert "PTY allocation request failed" in box.ssh("-tt", "true").stderr
    refused = box.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "true")
    assert "remote port forwarding failed" in refused.stderr


def test_its_sshd_passes_the_policy_of_ssh_audit(box):
    box.start()
    box.wait()
    audit = [str(Path(sys.executable).parent / "ssh-audit"), "-P", "Hardened Debian 12 (version 3)"]
    done = subprocess.run([*audit, "-p", str(box.port), "127.0.0.1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "Passed" in done.stdout


def test_a_bad_key_is_told_and_the_others_get_in(box):
    (box.folder / "keys" / "ben.pub").write_text("nonsense")
    box.start()
    box.wait()
    assert "ben.pub is passed over" in box.log()
    assert box.ssh("id -un").stdout == "biom3d\n"


def test_people_are_let_in_and_out_without_a_restart(box):
    (box.folder / "keys" / "anna.pub").rename(box.folder / "keys" / "later")
    box.start()
    box.wait()
    assert "Permission denied" in box.ssh("true").stderr
    box.inside("biom3d", "server", "authorize", "/keys/later", "--name", "anna", "--no-gate")
    assert box.ssh("true").returncode == 0
    box.inside("biom3d", "server", "revoke", "--name", "anna")
    assert box.ssh("true").returncode != 0


def test_with_the_gate_people_get_no_shell(box):
    box.start("server", "run", "--gate")
    box.wait()
    assert box.ssh("id").returncode == 77
    assert "biom3d-gate --name anna --workdir /work" in (box.folder / "state/.ssh/authorized_keys").read_text()
    note = json.loads((box.folder / "state/.biom3d-gate.log").read_text())
    assert (note["verdict"], note["key"]) == ("refused", read_public_key(Path(f"{box.key}.pub")).fingerprint)


def test_it_makes_its_own_card(box):
    box.start()
    box.wait()
    box.inside(
        "biom3d", "server", "init", "/work", "--address", "gpu1.example.org", "--port", "2200", "--inner-port", "2222"
    )
    card = read_card(box.folder / "work" / "card.yaml")
    assert (card.user, card.port, card.environment, card.engine) == ("biom3d", 2200, "/opt/venv", "")
    assert box.fingerprint() in card.fingerprints


def test_stop_ends_it_at_once(box):
    box.start()
    box.wait()
    box.container.stop(timeout=8)
    assert box.container.wait()["StatusCode"] != 137


def test_a_job_runs_there_as_on_a_bare_host(host, home):
    """A whole step, staged, supervised and collected by the client, in the image's own Python."""
    lines: list[str] = []
    shell = "python -m biom3d.synth out --count 1 --shape 8 16 16 --cells 2; ls out/* > listing"
    command = Command("rule", shell, makes=("listing",))
    spec = JobSpec("box", (command,), "", (), ("listing",), resources=Resources(mem_mb=2000))
    runner = Runner(host, home / ".ended", runtime=Venv(host, "/opt/venv"))
    runner.run(spec, home, lines.append, threading.Event())
    assert ".tif" in (home / "listing").read_text()
    assert any("started in environment '/opt/venv'" in line for line in lines)
