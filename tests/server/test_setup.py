"""`server init`: what the server says of itself, what it means, how an environment is planned; the whole on sshd."""

import dataclasses
import json
import re
from pathlib import Path, PurePosixPath

import pytest

from biom3d.errors import ConfigError, HostError
from biom3d.images.table import load_table
from biom3d.server.card import read_card
from biom3d.server.environment import TORCH, Source, find_source, plan_environment
from biom3d.server.gatekeeper import allow_images
from biom3d.server.judge import FAIL, OK, WARN, judge
from biom3d.server.setup import Wish, ask_here, gate_settings, make_card, set_up
from biom3d.server.survey import DRIVERS, Facts, ask_facts, read_facts
from tests.remote.server import free_port, run
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"
SAID = f"""a banner
mark\tbiom3d-server
workdir\t/srv/biom3d
user\tlab
hostname\tgpu1.example.org
free\t1000000 4096000
tool\ttar
tool\tgzip
tool\tfind
tool\txargs
tool\tawk
tool\tflock
tool\topenssl
tool\tzstd
python\t/usr/bin/python3.12 3 12
python\t/usr/bin/python3 3 9
port\t22
shown\t{KEY}
shown\tssh-rsa AAAA
gpu\t0, NVIDIA RTX A5000, 24564, 580.65.06
engine\tdocker
info\t28.1.0|[name=seccomp,profile=builtin name=rootless]|io.containerd.runc.v2 nvidia runc
image\tsha256:aa biom3d-workflow/cuda:0.1.0-abc
image\tsha256:bb biom3d-workflow/cuda:dependencies-abc
image\tsha256:cc biom3d-workflow/base:bookworm-x
image\tsha256:dd other/image:1
socket\tunix:///run/user/1000/docker.sock
end\tend
"""
FACTS = read_facts(SAID)


def test_after_an_update_one_command_lets_people_use_the_new_image(tmp_path):
    config = tmp_path / "gate.json"
    config.write_text(json.dumps({"images": ["sha256:old", "other:tag"], "gpus": True}))
    said = allow_images(config, FACTS, [])
    assert json.loads(config.read_text()) == {"images": ["sha256:old", "other:tag", "sha256:aa"], "gpus": True}
    assert said[-1] == "allowed: biom3d-workflow/cuda:0.1.0-abc  (new)"
    assert allow_images(config, FACTS, [])[-1] == "allowed: biom3d-workflow/cuda:0.1.0-abc"


def states(facts: Facts) -> dict[str, str]:
    return {finding.what: finding.state for finding in judge(facts)}


def test_what_the_script_prints_becomes_facts():
    wanted = Facts(
        user="lab",
        workdir="/srv/biom3d",
        hostname="gpu1.example.org",
        port=22,
        host_keys=("ssh-ed25519 SHA256:qH8baHrA5X0qCBovKCZyM02Q7TFtK4GMqVgOo4TZJAE",),
        is_sshd_answering=True,
        free_bytes=4096 * 10**9,
        tools=("tar", "gzip", "find", "xargs", "awk", "flock", "openssl", "zstd"),
        pythons=(("/usr/bin/python3.12", (3, 12)),),
        gpus=("0: NVIDIA RTX A5000, 24564 MB",),
        driver="580.65.06",
        engine="docker",
        engine_version="28.1.0",
        is_rootless=True,
        engine_socket="/run/user/1000/docker.sock",
        can_give_gpus=True,
        images=("biom3d-workflow/cuda:0.1.0-abc",),
        image_ids=("sha256:aa",),
    )
    assert wanted == FACTS


def test_a_good_server_passes_every_check():
    assert states(FACTS) == dict.fromkeys(("sshd", "tools", "disk", "engine", "gpus"), OK)


@pytest.mark.parametrize(
    ("changes", "what", "state"),
    [
        ({"user": "root"}, "account", WARN),
        ({"is_sshd_answering": False}, "sshd", WARN),
        ({"is_sshd_answering": False, "host_keys": ()}, "sshd", FAIL),
        ({"tools": ("tar",)}, "tools", FAIL),
        ({"tools": (*FACTS.tools[:-1],)}, "tools", WARN),
        ({"free_bytes": 10**8}, "disk", FAIL),
        ({"free_bytes": 10**10}, "disk", WARN),
        ({"engine": ""}, "engine", WARN),
        ({"engine_error": "permission denied"}, "engine", WARN),
        ({"is_rootless": False}, "engine", WARN),
        ({"engine": "podman", "is_rootless": False}, "engine", WARN),
        ({"gpus": ()}, "gpus", WARN),
        ({"driver": "470.1"}, "gpus", WARN),
        ({"can_give_gpus": False}, "gpus", WARN),
    ],
)
def test_each_fault_is_found_and_all_but_hardware_has_a_remedy(changes, what, state):
    found = {finding.what: finding for finding in judge(dataclasses.replace(FACTS, **changes))}
    assert found[what].state == state
    assert found[what].fix or changes == {"gpus": ()}


def test_docker_with_root_is_called_what_it_is():
    text = " ".join(map(str, judge(dataclasses.replace(FACTS, is_rootless=False))))
    assert "whoever may use it is root on this machine" in text


@pytest.mark.parametrize(
    ("driver", "build"), [("580.1", "cuda"), ("535.104", "cuda-legacy"), ("470.1", "cpu"), ("", "cpu"), ("x", "cpu")]
)
def test_the_driver_chooses_the_build_of_torch(driver, build):
    assert dataclasses.replace(FACTS, driver=driver).torch_build == build


def test_builds_and_drivers_are_those_of_the_images():
    images = load_table().images
    assert {name: torch.removeprefix("torch==").split("+")[0] for name, (torch, _) in TORCH.items()} == {
        name: images[name].torch.split("+")[0] for name in TORCH
    }
    assert dict(DRIVERS) == {name: int(images[name].driver) for name in ("cuda", "cuda-legacy")}


PIP = "env/bin/python -m pip --disable-pip-version-check --no-input install --quiet"


@pytest.mark.parametrize(
    ("source", "build", "command"),
    [
        (Source(), "cuda", f"{PIP} 'biom3d-workflow[engine]' torch==2.13.0"),
        (
            Source("/w/biom3d_workflow-1-py3-none-any.whl", "d"),
            "cpu",
            f"{PIP} --extra-index-url https://download.pytorch.org/whl/cpu"
            " '/w/biom3d_workflow-1-py3-none-any.whl[engine]' torch==2.13.0+cpu",
        ),
        (
            Source("/my wheels", "d", is_folder_of_wheels=True),
            "cpu",
            f"{PIP} --no-index --find-links '/my wheels' 'biom3d-workflow[engine]' torch==2.13.0+cpu",
        ),
        (
            Source(),
            "cuda-legacy",
            f"{PIP} --extra-index-url https://download.pytorch.org/whl/cu126 biom3d-workflow torch==2.7.1+cu126",
        ),
    ],
)
def test_an_environment_is_two_commands(source, build, command):
    plan = plan_environment(FACTS, source, build)
    assert plan.commands == ("/usr/bin/python3.12 -m venv --clear env", command)


def test_another_wheel_of_the_same_name_is_another_environment():
    first, second = (plan_environment(FACTS, Source("/x.whl", digest)).recipe for digest in "ab")
    assert first != second


def test_without_a_python_that_fits_the_remedy_is_named():
    with pytest.raises(ConfigError, match="apt-get install python3 python3-venv"):
        plan_environment(dataclasses.replace(FACTS, pythons=()), Source())


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no wheel"):
        find_source(tmp_path)


def test_people_may_use_our_images_or_else_the_environment():
    engine = {"engine_socket": "/run/user/1000/docker.sock", "images": ["sha256:aa"], "gpus": True}
    assert gate_settings(FACTS, True) == engine
    assert gate_settings(dataclasses.replace(FACTS, engine_error="x"), True) == {"venv": True, "gpus": True}


@pytest.mark.parametrize("name", ["localhost", "localhost.localdomain", "127.0.0.1", ""])
def test_a_name_by_which_nobody_reaches_the_server_is_refused(name):
    with pytest.raises(HostError, match="give --address"):
        make_card(dataclasses.replace(FACTS, hostname=name), Wish(PurePosixPath("/x")), "")


def test_a_folder_that_cannot_be_made_is_one_clear_line():
    with pytest.raises(HostError, match="cannot set up '/proc/nothing'"):
        ask_facts(ask_here, PurePosixPath("/proc/nothing"))


def test_what_another_made_at_env_is_left_alone(tmp_path, home):
    (tmp_path / "lab" / "env").mkdir(parents=True)
    wish = Wish(PurePosixPath(tmp_path / "lab"), address="a.b", has_environment=True)
    with pytest.raises(ConfigError, match="was not made by biom3d"):
        set_up(ask_here, wish, print, print)


def tree(folder: Path) -> dict[str, tuple[float, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in sorted(folder.rglob("*"))}


@pytest.mark.system
def test_init_twice_changes_nothing(admin, with_engine, account, server):
    line = ("init", account.home / "lab", "--address", "gpu1.example.org", "--port", server.port, "--name", "gpu1")
    first = admin(*line)
    assert first.returncode == 0, first.stderr
    before = tree(account.home)
    assert admin(*line).stdout == first.stdout
    assert tree(account.home) == before


@pytest.mark.system
def test_the_card_holds_the_key_that_sshd_shows(admin, with_engine, account, server):
    assert admin("init", "lab", "--address", "a.example.org", "--port", server.port).returncode == 0
    card = read_card(account.home / "lab" / "card.yaml")
    assert (card.user, card.port, card.workdir) == (account.name, server.port, str(account.home / "lab"))
    shown = run("ssh-keygen", "-lf", f"{server.host_key}.pub").split()[1]
    assert card.fingerprints == (shown,)
    assert {"data", "logs"} <= {path.name for path in (account.home / "lab").iterdir()}


@pytest.mark.system
def test_where_no_sshd_answers_it_says_so(admin):
    done = admin("init", "lab", "--address", "a.example.org", "--port", free_port())
    assert re.search(r"(warn|FAIL) sshd: does not answer at port \d+", done.stdout)
