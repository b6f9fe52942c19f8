"""An engine that is not there, may not be used, or has no space: each told in one line, nothing changed."""

import os
import socket
import subprocess
import sys

import pytest

from biom3d import engine
from biom3d.errors import ContainerError, LostConnection
from biom3d.events import Reporter
from biom3d.images.archive import load_image, save_image
from biom3d.images.build import build_image
from biom3d.images.keys import image_of
from biom3d.images.lock import base_id
from biom3d.images.table import CHECKOUT, load_table
from tests.docker_engine import running_dockerd
from tests.images.test_images import share_cache

REPORT = Reporter("images")


@pytest.mark.parametrize("command", [["verify", "cpu"], ["build", "cpu"], ["lock"], ["save", "cpu", "x"], ["list"]])
def test_no_engine_is_one_clear_line(command, tmp_path):
    where = f"unix://{tmp_path}/nothing.sock"
    lock = CHECKOUT / "containers/images.lock.yaml"
    before = lock.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "biom3d", "images", *command],
        env={**os.environ, "DOCKER_HOST": where},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"images: error: this machine: no container engine answers (connecting to {where}); install Docker and start "
        "it (sudo systemctl start docker), or set DOCKER_HOST to where Docker or Podman listens\n"
    )
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nonsense", "DOCKER_HOST is no address"),
        ("tcp://127.0.0.1:1", "no container engine answers"),
        ("ssh://nobody@127.0.0.1:1", "no container engine answers"),
    ],
)
def test_an_address_where_no_engine_is_says_so(monkeypatch, where, message):
    monkeypatch.setenv("DOCKER_HOST", where)
    with pytest.raises((ContainerError, LostConnection), match=f"{message} .connecting to {where}"):
        engine.connect()


def test_a_socket_without_permission_says_how_to_get_it(tmp_path, monkeypatch):
    path = f"/tmp/biom3d-test-{os.getpid()}.sock"  # a name that nobody but root can reach would hide the reason
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    user = os.geteuid()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(path)
            server.listen()
            os.chmod(path, 0)  # noqa: PTH101 - a socket
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(ContainerError, match=r"no permission to use the container engine .*usermod -aG docker"):
                engine.connect()
        finally:
            os.seteuid(user)
            os.unlink(path)  # noqa: PTH108


@pytest.mark.system
def test_a_full_disk_of_the_engine_is_told_and_nothing_is_named(docker_client, cpu_image, checkout, tmp_path):
    """Another engine with 420 MB: the base fits (twice 170 MB while it is loaded), the wheels (340 MB) do not."""
    table = load_table(checkout)
    share_cache(checkout)
    save_image(docker_client, f"{table.name}/base:{base_id(table, 'bookworm')}", tmp_path / "base.zst", (), REPORT)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420m", "tmpfs", disk], check=True)
    try:
        with running_dockerd(tmp_path / "engine", beside=True, data=disk / "data") as client:
            load_image(client, tmp_path / "base.zst", REPORT)
            with pytest.raises(ContainerError, match="the engine's disk is full; free some space"):
                build_image(client, table, "cpu", REPORT)
            assert engine.find_image(client, image_of(table, "cpu").reference) is None
            assert not any("unverified" in tag for image in client.images.list() for tag in image.tags)
    finally:
        subprocess.run(["umount", "--recursive", disk], check=True)
