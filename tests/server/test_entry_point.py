"""Steps by hand through the gate, `ssh HOST python -m biom3d.pred ...`: what they do, and what they cannot reach."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from biom3d.errors import ConfigError
from biom3d.server.gatekeeper import allow_steps
from biom3d.server.survey import Facts
from biom3d.synth import main as synth
from tests.remote.conftest import account, server
from tests.remote.server import wait_for
from tests.server.gated import opened, was_refused

__all__ = ["account", "server"]
pytestmark = pytest.mark.system
CHECK = "-m biom3d.check --img_path data/images --msk_path data/masks"
# A pipe that nobody reads: the step waits.
WAITING = "python -m biom3d.check --img_path data/images --events data/pipe"


@pytest.fixture(scope="module")
def open_door(server, account, docker_client, cpu_image):
    with opened(server, account) as door:
        door.join_engine()
        synth([str(door.workdir / "data"), "--count", "2", "--shape", "12", "16", "16"])
        door.own(door.workdir)
        yield door


@pytest.fixture
def door(open_door, cpu_image):
    open_door.configure(images=[cpu_image], entry_point=cpu_image)
    return open_door


@pytest.fixture
def containers(docker_client, door):
    """The containers of steps by hand in this door's folder."""

    def find() -> list:
        label = f"biom3d.gate.folder={door.root}"
        return list(docker_client.containers.list(all=True, filters={"label": label}, ignore_removed=True))

    yield find
    for one in find():
        one.remove(force=True)


@pytest.mark.parametrize("program", ["python -m biom3d.", "python3 -m biom3d.", "biom3d "])
def test_a_step_by_hand_works_in_the_folder_and_says_what_it_says_here(door, containers, program):
    done = door.ssh(CHECK.replace("-m biom3d.", program))
    here = subprocess.run([sys.executable, *CHECK.split()], cwd=door.workdir, capture_output=True)
    assert (done.returncode, done.stdout) == (here.returncode, here.stdout) != (0, b"")
    assert containers() == []
    assert [note["name"] for note in door.notes() if note["what"] == "job"][-1] == "check by hand"


def test_what_a_step_by_hand_makes_belongs_to_the_person(door):
    done = door.ssh("python -m biom3d.plan --img_path data/images --msk_path data/masks --out 'a plan.yaml'")
    assert done.returncode == 0, done.stderr
    assert (door.workdir / "a plan.yaml").owner() == door.account.name


def test_a_step_by_hand_that_fails_has_its_own_exit_code(door, containers):
    done = door.ssh("python -m biom3d.check --img_path 'no such folder'")
    assert (done.returncode, b"no such folder" in done.stderr) == (2, True)
    assert containers() == []


ATTACKS = [
    "python -c 'import os'",
    "python -m os",
    "python",
    "python -m biom3d.remote jobs x",
    "python -m biom3d.server people",
    "biom3d server people",
    "biom3d images build cpu",
    "python -m biom3d.check.x",
    "python -m biom3d",
    "python -m biom3d.check --img_path data/images; id",
    "python -m biom3d.check --img_path data/images && id",
    "python -m biom3d.check --img_path data/images | tee x",
    "python -m biom3d.check --img_path data/images > x",
    "nohup python -m biom3d.check --img_path data/images &",
    "PYTHONPATH=data python -m biom3d.check --img_path data/images",
    "/usr/bin/env python -m biom3d.check --img_path data/images",
]


@pytest.mark.parametrize("line", ATTACKS)
def test_what_is_no_step_is_refused(door, line):
    assert was_refused(door.ssh(line))


@pytest.mark.parametrize("path", ["$(id)", "`id`", "~", "*"])
def test_no_shell_reads_the_line_of_a_step(door, path):
    done = door.ssh("python -m biom3d.check --img_path " + (path if path == "~" else f"'{path}'"))
    assert done.returncode == 2
    assert b"uid=" not in done.stdout + done.stderr


def test_a_step_by_hand_sees_nothing_outside_of_the_folder_and_no_store(door):
    (door.folder / "secret").mkdir(exist_ok=True)
    (door.workdir / "link").unlink(missing_ok=True)
    (door.workdir / "link").symlink_to(door.folder / "secret")
    door.make_file(".biom3d/store/x.tif")
    for path in (door.folder / "secret", "link", "../..", ".biom3d/store", "/etc/ssh"):
        done = door.ssh(f"python -m biom3d.check --img_path {path}")
        assert done.returncode == 2, (path, done.stdout)
        assert b"x.tif" not in done.stdout + done.stderr


def test_a_folder_called_biom3d_does_not_stand_in_for_the_steps(door):
    door.make_file("biom3d/check.py", "print('mine')")
    door.make_file("biom3d/__init__.py", "")
    assert b"mine" not in door.ssh(f"python {CHECK}").stdout


def test_a_container_of_a_step_has_no_network_and_no_privilege_and_ends_with_the_connection(door, containers):
    pipe = door.workdir / "data/pipe"
    os.mkfifo(pipe)
    door.own(pipe)
    try:
        ssh = subprocess.Popen([*door.client("ssh"), door.target, WAITING], stdin=subprocess.DEVNULL)
        wait_for(lambda: any(one.status == "running" for one in containers()), "the container")
        facts = containers()[0].attrs
        host = facts["HostConfig"]
        assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
        assert [mount["Source"] for mount in facts["Mounts"] if mount["Type"] == "bind"] == [str(door.workdir)]
        assert facts["Config"]["User"] == door.uid_gid
        ssh.kill()
        ssh.wait()
        wait_for(lambda: containers() == [], "its end")
    finally:
        pipe.unlink()


def test_without_the_administrators_leave_the_line_says_what_to_do(door, cpu_image):
    door.configure(images=[cpu_image])
    done = door.ssh(f"python {CHECK}")
    assert was_refused(done)
    assert b"server init --entry-point" in done.stderr


def test_the_quota_holds_for_steps_by_hand(door, cpu_image):
    door.configure(images=[cpu_image], entry_point=cpu_image, quota_gb=1e-9)
    assert b"Disk quota exceeded" in door.ssh(f"python {CHECK}").stderr


def test_in_an_environment_the_kernel_holds_steps_to_the_folder(open_door):
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", open_door.workdir / "env"], check=True)
    site = next((open_door.workdir / "env/lib").glob("python*/site-packages")) / "biom3d"
    site.mkdir()
    (site / "__init__.py").touch()
    (site / "check.py").write_text(STAND_IN)
    open_door.own(open_door.workdir)
    (open_door.folder / "secret.txt").write_text("secret")
    open_door.configure(engine_socket="", venv=True, entry_point=str(open_door.workdir / "env"))
    done = open_door.ssh(f"python -m biom3d.check made.txt {open_door.folder}/secret.txt")
    assert (done.returncode, done.stdout.decode().split()) == (3, [str(open_door.workdir), "PermissionError"])
    assert (open_door.workdir / "made.txt").read_text() == "made"
    shutil.rmtree(open_door.workdir / "env")


STAND_IN = """
import os, sys
print(os.getcwd())
open(sys.argv[1], "w").write("made")
try:
    print(open(sys.argv[2]).read())
except OSError as error:
    print(type(error).__name__)
sys.exit(3)
"""


def facts(**known: object) -> Facts:
    plain = Facts("lab", "/srv/biom3d", "gpu1", 22, (), True, 10**12, (), ())
    return replace(plain, **known)


def test_init_writes_where_steps_by_hand_run(tmp_path):
    config = tmp_path / "gate.json"
    images = ("biom3d-workflow/cuda:1", "biom3d-workflow/cpu:1")
    there = facts(images=images, image_ids=("sha256:2", "sha256:1"))
    config.write_text(json.dumps({"engine_socket": "/run/docker.sock", "images": ["sha256:1"]}))
    assert allow_steps(config, there, "") == "biom3d-workflow/cpu:1"
    assert json.loads(config.read_text())["entry_point"] == "biom3d-workflow/cpu:1"
    with pytest.raises(ConfigError, match="no image of ours"):
        allow_steps(config, facts(), "")
    config.write_text(json.dumps({"venv": True}))
    assert allow_steps(config, there, "/srv/biom3d/env") == "/srv/biom3d/env"
