"""The client behind the gate: it never asks for anything that the gate does not know, and all works as without it."""

import ast
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import biom3d.remote
from biom3d.errors import ContainerError, HostError, JobError, TransferError
from biom3d.remote import data, questions, verbs, watch
from biom3d.remote.doctor import examine
from biom3d.remote.job import Command, JobSpec, Resources
from biom3d.remote.lifecycle import Runner
from biom3d.remote.pieces import BIG
from biom3d.remote.profile import Settings
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
from biom3d.remote.table import TEMPLATES
from biom3d.remote.venv import Venv
from biom3d.server.gatefile import render_gate
from biom3d.server.report import report_month
from tests.remote.conftest import Client, account, server
from tests.remote.server import names_in, wait_for
from tests.server.gated import BY_NAME, SOCKET, Door, opened, under_way

__all__ = ["account", "server"]
pytestmark = pytest.mark.system


@pytest.fixture
def door(server, account, base_image):
    with opened(server, account) as door:
        shutil.rmtree(door.root)
        door.join_engine()
        door.configure(images=[base_image])
        yield door


@pytest.fixture
def settings(door, tmp_path, server, account):
    (tmp_path / "client").mkdir()
    client = Client(tmp_path / "client", server, account)
    given = {"silence_s": 5.0, "reconnect_s": 10.0, "connect_timeout_s": 5.0, "keepalive_s": 1.0}
    return SSHSettings("server", key_file=door.key, config=client.config, workdir=str(door.workdir), **given)


@pytest.fixture
def host(settings, tmp_path):
    host = SSHHost(settings, cache=tmp_path / "hashes.sqlite")
    yield host
    host.close()


def refusals(door: Door) -> list:
    return [(note["what"][-200:], note["why"]) for note in door.notes() if note["verdict"] != "ok"]


def run_job(host: SSHHost, folder: Path, image: str, shell: str, inputs: tuple = (), **changes: object) -> list[str]:
    lines: list[str] = []
    command = Command("rule", shell, makes=("out/a b",), log="log")
    spec = JobSpec("gated", (command,), image, inputs, ("out",), ("log",), Resources(mem_mb=100), **changes)
    Runner(host, folder / ".ended").run(spec, folder, lines.append, threading.Event())
    return lines


def test_a_whole_job_runs_through_the_gate(door, host, tmp_path, base_image):
    (tmp_path / "it's").mkdir()
    (tmp_path / "it's" / "a\nb").write_text("hello")
    (tmp_path / "big").write_bytes(os.urandom(1000) * (BIG // 1000 + 1))
    inputs = (("in/it's", tmp_path / "it's"), ("/abs/big", tmp_path / "big"))
    shell = "cat in/*/* >'out/a b'; wc -c </abs/big >>'out/a b'; head -c 70000000 /dev/zero >out/zero; echo said >log"
    run_job(host, tmp_path, base_image, shell, inputs)
    assert (tmp_path / "out" / "a b").read_text() == f"hello{(tmp_path / 'big').stat().st_size}\n"
    assert (tmp_path / "out" / "zero").stat().st_size == 70_000_000
    assert names_in(door.root / "jobs") == names_in(door.root / "tmp") == []
    assert refusals(door) == []


def test_a_small_job_takes_few_commands(door, host, tmp_path, base_image):
    for number in range(2):
        before = len(door.notes())
        run_job(host, tmp_path, base_image, f"echo {number} | tee log >'out/a b'")
    done = [note["what"] for note in door.notes()[before:] if note["what"] in BY_NAME]
    # Each costs a process of the gate and a round trip.
    first, last = ["join", "write_scripts", "list_marked", "list_outputs"], ["keep_outputs", "leave"]
    assert done in ([*first, "send_files", *last], [*first, *last])


def test_a_step_that_runs_is_watched_through_the_gate(door, host, tmp_path, base_image):
    event = json.dumps({"step": "train", "event": "epoch", "epoch": 3, "of": 9, "eta_s": 65.0})
    shell = f"mkdir -p logs/steps; echo {shlex.quote(event)} >logs/steps/a.jsonl; while :; do sleep 0.1; done"
    spec = JobSpec("gated", (Command("rule", shell),), base_image, (), ("out",), resources=Resources(mem_mb=100))
    with under_way(Runner(host, tmp_path / ".ended"), spec, tmp_path):
        wait_for(lambda: watch.find_progress(host, verbs.list_jobs(host)), "an event")
        (job,) = (one for one in verbs.list_jobs(host) if one.is_ours)
        assert watch.find_progress(host, [job]) == {job.id: "train: epoch 3 of 9, 1:05 left"}
        lines: list[str] = []
        watch.print_events(host, verbs.find_job([job], job.id[:6]), False, lines.append, lambda: True)
    assert lines == [event]
    assert refusals(door) == []


def test_the_bill_names_person_job_and_exit_code(door, host, tmp_path, base_image):
    with pytest.raises(JobError, match="exit 3"):
        run_job(host, tmp_path, base_image, "exit 3")
    (job,) = [note for note in door.notes() if note["what"] == "job"]
    assert (job["who"], job["name"], job["exit"]) == ("anna", "gated", 3)


def test_the_bill_names_a_hash_of_the_data_alone(door, host, tmp_path, base_image):
    (tmp_path / "a").write_text("content")
    for shell in ("touch 'out/a b' log", "touch log 'out/a b'"):
        run_job(host, tmp_path, base_image, shell, (("a", tmp_path / "a"),))
    first, second = [note for note in door.notes() if note["what"] == "job"]
    digest = hashlib.sha256(b"content").hexdigest()
    assert first["data"] == second["data"] == hashlib.sha256(json.dumps([["a", digest]]).encode()).hexdigest()
    assert first["job"] != second["job"]
    assert next(note for note in door.notes() if note["what"] == "create")["data"] == first["data"]


def test_an_image_that_is_not_allowed_is_told_to_the_person(door, host, tmp_path, base_image):
    door.configure(images=[])
    with pytest.raises(ContainerError, match="is not one of those allowed with this key"):
        run_job(host, tmp_path, base_image, "true")


def test_data_sets_are_sent_listed_brought_and_cleaned(door, host, tmp_path, said):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.tif").write_bytes(os.urandom(100))
    data.send_dataset(host, "cells", tmp_path / "images", None, said.append)
    data.send_dataset(host, "cells", tmp_path / "images", None, said.append)
    assert data.dataset_rows(host)[0][:3] == ("cells", "3", "0")
    assert data.model_rows(host) == []
    data.get(host, "data/cells", tmp_path / "back", said.append)
    assert (tmp_path / "back/images/1.tif").read_bytes() == (tmp_path / "images/1.tif").read_bytes()
    plan = verbs.plan_cleaning(host, 1)
    verbs.clean(host, plan)
    assert verbs.gpu_rows(host) == []
    assert not any(job.is_ours for job in verbs.list_jobs(host))
    assert refusals(door) == []


@pytest.fixture
def said():
    return []


def test_the_doctor_finds_nothing_that_the_gate_stands_in_the_way_of(door, settings, tmp_path):
    given = Settings(
        address="server", key_file=str(settings.key_file), config=str(settings.config), workdir=str(door.workdir)
    )
    found = list(examine(given, tmp_path))
    assert {finding.what for finding in found} >= {"tools", "workdir", "disk", "clock", "engine", "line"}
    assert refusals(door) == []


def test_another_working_folder_is_told(door, settings):
    other = SSHHost(dataclasses.replace(settings, workdir=str(door.account.home / "elsewhere")))
    with pytest.raises(HostError, match=f"working folder '{door.workdir}'"):
        other.free_bytes()
    other.close()


@pytest.fixture
def environment(door, host):
    """An environment that the administrator has made in the working folder, and no engine."""
    assert host.free_bytes()
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", door.workdir / "env"], check=True)
    door.configure(venv=True, engine_socket="")
    return Venv(host)


def run_in(environment: Venv, host: SSHHost, folder: Path, shell: str) -> None:
    spec = JobSpec("gated", (Command("rule", shell, makes=("out",)),), "any", (), ("out",))
    Runner(host, folder / ".ended", runtime=environment).run(spec, folder, print, threading.Event())


def test_a_job_in_an_environment_runs_through_the_gate(door, host, environment, tmp_path):
    run_in(environment, host, tmp_path, "python -c 'import sys; print(sys.prefix)' >out")
    assert (tmp_path / "out").read_text() == f"{door.workdir}/env\n"
    assert refusals(door) == []


@pytest.mark.parametrize("code", [0, 3])
def test_the_bill_of_a_job_in_an_environment_is_the_same(door, host, environment, tmp_path, code):
    with suppress(JobError):
        run_in(environment, host, tmp_path, f"sleep 1; touch out; exit {code}")
    (job,) = [note for note in door.notes() if note["what"] == "job"]
    assert (job["who"], job["name"], job["exit"], job["gpus"], job["threads"]) == ("anna", "gated", code, [], "1")
    assert 1 <= job["seconds"] < 60
    assert job["image"].startswith("python 3.")
    assert len(job["data"]) == 64
    (usage,) = report_month([door.log], job["t"][:7])
    assert (usage.jobs, usage.failed, usage.open) == (1, code // 3, 0)


def test_a_job_in_an_environment_that_runs_is_open_and_not_billed(door, host, environment, tmp_path):
    spec = JobSpec("gated", (Command("rule", "sleep 600", makes=("out",)),), "any", (), ("out",))
    with under_way(Runner(host, tmp_path / ".ended", runtime=environment), spec, tmp_path):
        wait_for(lambda: [*(door.root / "jobs").glob("*/pid")], "the job")
        (job,) = names_in(door.root / "jobs")
        environment.remove(job)
        assert [usage.open for usage in report_month([door.log], door.notes()[0]["t"][:7])] == [1]
        assert "job" not in [note["what"] for note in door.notes()]


def test_a_job_in_an_environment_is_held_to_the_working_folder_by_the_kernel(door, host, environment, tmp_path):
    keys = door.account.home / ".ssh" / "authorized_keys"
    shell = f"(cat {keys}; echo x >>{keys}; touch {door.account.home}/x; ls /home) >out 2>/dev/null || true"
    run_in(environment, host, tmp_path, shell)
    assert (tmp_path / "out").read_text() == ""
    assert not (door.account.home / "x").exists()


def test_without_the_administrators_word_a_job_needs_a_container(door, host, environment, tmp_path):
    door.configure()
    with pytest.raises(HostError, match="jobs need a container with this key"):
        run_in(environment, host, tmp_path, "true")


def test_each_script_is_one_command():
    assert len({template.script for template in TEMPLATES}) == len(TEMPLATES)
    assert len({template.name for template in TEMPLATES}) == len(TEMPLATES)


def test_no_line_is_made_without_a_template():
    """What runs on a host goes through `Template.line`: nothing in the client writes shell for it by hand."""
    folder = Path(biom3d.remote.__file__).parent
    allowed = {"template.py", "local.py", "job.py", "setup.py", "commands.py"}
    for path in sorted(folder.glob("*.py")):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert path.name in allowed or not names & {"START"}, path
    assert questions.TEMPLATES


def test_the_engine_named_by_its_socket_works(door, settings, tmp_path):
    named = SSHHost(dataclasses.replace(settings, engine_socket=SOCKET))
    assert named.engine().version()["ApiVersion"]
    named.close()


def test_a_quota_that_is_used_up_is_told_as_such(door, host):
    door.make_file("big", "x" * 300_000)
    door.configure(quota_gb=0.0001)
    with pytest.raises(TransferError, match=r"your quota there is used up .*whoever runs the server can raise it"):
        host.write(host.root / "jobs" / "x", b"content")


def test_a_command_loads_only_what_it_needs(tmp_path):
    """Each command of a client starts the gate: 45 ms of a processor with all modules and compiling, 20 without."""
    (tmp_path / "gate.py").write_text(render_gate(TEMPLATES, "1.2.3"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import gate; print(*sys.modules)"
    done = subprocess.run(["/usr/bin/python3", "-IS", "-c", code], capture_output=True, text=True, check=True)
    dear = {"argparse", "typing", "hashlib", "tarfile", "urllib.parse", "ctypes", "calendar", "http.client"}
    assert dear & {*done.stdout.split()} == set()
