"""`biom3d server clean`: old data sets and rests of jobs go when told; what is used, young or not fetched stays."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biom3d.remote.data import send_dataset
from biom3d.remote.job import Command, JobSpec
from biom3d.remote.lifecycle import Runner
from biom3d.remote.local import LocalHost
from biom3d.remote.ssh import SSHHost
from biom3d.remote.venv import Venv
from biom3d.server.__main__ import main
from biom3d.server.clean import find_unused, measure, open_here, read_people, remove_unused
from tests.remote.server import names_in, wait_for
from tests.server.gated import under_way

pytestmark = pytest.mark.system
OLD, GOOD, YOUNG = "a" * 24, "b" * 24, "c" * 24
DAY_S = 86_400


@pytest.fixture
def lab(make_host):
    """A host over SSH, as a person uses it, whose working folder the administrator cleans on the server."""
    return make_host()


def workdir(lab: SSHHost) -> Path:
    return Path(lab.root.parent)


def here(lab: SSHHost) -> tuple[LocalHost, Venv]:
    host = LocalHost(Path(lab.root))
    return host, Venv(host)


def send(lab: SSHHost, folder: Path, name: str, text: str) -> Path:
    images = folder / name
    images.mkdir()
    (images / "a.tif").write_text(text)
    return Path(send_dataset(lab, name, images, None, lambda line: None))


def make_job(lab: SSHHost, name: str, days: float, code: str = "") -> Path:
    job = Path(lab.root / "jobs" / name)
    (job / "work").mkdir(parents=True)
    if code:
        (job / "exit").write_text(f"{code}\n")
    moment = time.time() - days * DAY_S
    for path in (*job.iterdir(), job):
        os.utime(path, (moment, moment))
    return job


def later(days: float) -> float:
    """Return what a clock will show in so many days: the times of change of files cannot be set back."""
    return time.time() + days * DAY_S


def names(lab: SSHHost, days: float = 90, clock: float = 0) -> list[str]:
    return [one.name for one in find_unused(*here(lab), days, clock or later(91)).datasets]


def test_a_data_set_that_nobody_used_goes_with_its_bytes(lab, tmp_path):
    place = send(lab, tmp_path, "cells", "one")
    unused = find_unused(*here(lab), 90, later(91))
    assert [one.name for one in unused.datasets] == ["cells"]
    assert remove_unused(*here(lab), unused, later(91)) == ()
    assert not place.exists()
    assert [path for path in Path(lab.root / "store").rglob("*") if path.is_file()] == []
    assert names_in(lab.root / "tmp") == []


def test_what_another_data_set_holds_too_stays(lab, tmp_path):
    send(lab, tmp_path, "cells", "same")
    kept = send(lab, tmp_path, "more", "same")
    unused = find_unused(*here(lab), 90, later(91))
    os.utime(kept, (later(50), later(50)))
    assert remove_unused(*here(lab), unused, later(91)) == ("more",)
    assert (kept / "images/a.tif").read_text() == "same"
    assert len([path for path in Path(lab.root / "store").rglob("*") if path.is_file()]) >= 1


def test_a_data_set_is_as_old_as_its_last_use(lab, tmp_path):
    place = send(lab, tmp_path, "cells", "one")
    for path in (place, place / "images"):
        os.utime(path, (0, 0))
    before = measure(place / "images", later(91)).age_s
    lab.residents.describe("data/cells/images", lambda name: True, lambda line: None)
    assert (place / "images").stat().st_mtime > time.time() - DAY_S
    assert before >= 91 * DAY_S - 60


def test_a_data_set_that_a_job_has_in_its_folder_stays(lab, tmp_path):
    send(lab, tmp_path, "cells", "one")
    job = make_job(lab, YOUNG, 1)
    (job / "work/data/cells").mkdir(parents=True)
    assert names(lab) == []
    shutil.rmtree(job)
    assert names(lab) == ["cells"]


def test_a_data_set_that_a_job_takes_up_meanwhile_stays(lab, tmp_path):
    place = send(lab, tmp_path, "cells", "one")
    unused = find_unused(*here(lab), 90, later(91))
    (make_job(lab, YOUNG, 0) / "work/data/cells").mkdir(parents=True)
    assert remove_unused(*here(lab), unused, later(91)) == ("cells",)
    assert (place / "images/a.tif").read_text() == "one"


def test_what_the_administrator_put_there_is_named_and_left_alone(lab, tmp_path):
    lab.user()
    (workdir(lab) / "data/own").mkdir(parents=True)
    unused = find_unused(*here(lab), 90, later(91))
    assert (unused.datasets, unused.foreign) == ((), ("own",))


def test_rests_of_failed_jobs_go_and_results_that_nobody_fetched_stay(lab):
    lab.user()
    jobs = [make_job(lab, OLD, 100, "1"), make_job(lab, GOOD, 100, "0"), make_job(lab, YOUNG, 80, "1")]
    unused = find_unused(*here(lab), 90, time.time())
    assert [folder.id for folder in unused.results] == [GOOD]
    remove_unused(*here(lab), unused, time.time())
    assert [job.exists() for job in jobs] == [False, True, True]


def test_a_job_that_runs_keeps_its_folder(lab, tmp_path):
    """A real job, without a container, whose folder looks a hundred days old."""
    host, venv = LocalHost(Path(lab.root)), Venv(LocalHost(Path(lab.root)), sys.prefix)
    spec = JobSpec("long", (Command("rule", "touch began; sleep 600", makes=("out",)),), "any", (), ("out",))
    jobs = Path(lab.root / "jobs")
    with under_way(Runner(host, tmp_path / ".ended", runtime=venv), spec, tmp_path):
        wait_for(lambda: [*jobs.glob("*/work/began")], "the job")
        (job,) = jobs.iterdir()
        for path in (*job.iterdir(), job):
            os.utime(path, (0, 0), follow_symlinks=False)
        unused = find_unused(host, venv, 90, time.time())
        remove_unused(host, venv, unused, time.time())
        assert (job / "work/began").exists()


def test_a_job_in_a_container_that_runs_keeps_its_folder(lab, docker_client, base_image):
    lab.user()
    job = make_job(lab, OLD, 100)
    container = docker_client.containers.run(
        base_image, ["sleep", "600"], name=f"biom3d-{OLD}", labels={"biom3d.job": OLD}, detach=True, init=True
    )
    try:
        host, supervisor = open_here(workdir(lab), "/var/run/docker.sock")
        remove_unused(host, supervisor, find_unused(host, supervisor, 90, time.time()), time.time())
    finally:
        container.remove(force=True)
    assert job.exists()


def run_main(lab: SSHHost, monkeypatch, *words: str) -> int:
    monkeypatch.setattr("biom3d.server.people.account_home", lambda: workdir(lab).parent)
    monkeypatch.setattr("biom3d.server.clean.SOCKETS", ())
    return main(["clean", str(workdir(lab)), *words])


def test_it_shows_and_removes_only_when_told(lab, monkeypatch, tmp_path, capsys):
    lab.user()
    job = make_job(lab, OLD, 100, "1")
    log = tmp_path / "log"
    log.write_text(json.dumps({"who": "anna", "verdict": "ok", "what": "start", "job": OLD}) + "\n")
    for words in ([], ["--yes", "--dry-run"]):
        assert run_main(lab, monkeypatch, "--log", str(log), *words) == 0
        assert job.exists()
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split() == ["job", OLD, "anna", "100", "days", "2", "bytes"]
    assert "nothing was removed; --yes removes it" in printed.err
    assert run_main(lab, monkeypatch, "--yes") == 0
    assert not job.exists()


def test_nothing_younger_than_a_day_can_be_asked_for(lab, monkeypatch, capfd):
    assert run_main(lab, monkeypatch, "--older-than", "12h") == 2
    assert "give --older-than 1d or more" in capfd.readouterr().err


def test_an_engine_that_does_not_answer_removes_nothing(lab, monkeypatch, tmp_path, capfd):
    lab.user()
    job = make_job(lab, OLD, 100, "1")
    home = workdir(lab).parent
    (home / ".biom3d-gate.json").write_text(json.dumps({"engine_socket": str(tmp_path / "none.sock")}))
    assert run_main(lab, monkeypatch, "--yes") == 1
    (home / ".biom3d-gate.json").unlink()
    assert job.exists()
    assert "no container engine answers" in capfd.readouterr().err


def test_use_is_shown_beside_the_quota(lab, monkeypatch, capfd):
    lab.user()
    settings = workdir(lab).parent / ".biom3d-gate.json"
    settings.write_text('{"quota_gb": 500}')
    assert run_main(lab, monkeypatch) == 0
    settings.unlink()
    assert "holds 0.0 GB of 500 GB that the gate allows (quota_gb)" in capfd.readouterr().err


def test_people_are_those_of_the_gates_log():
    place = {"what": "place_dataset", "args": [f"/w/.biom3d/jobs/{GOOD}/work", "/w/data/cells"]}
    log = [{"job": OLD}, place, {"args": ["/w/.biom3d/jobs/../x"]}, {"args": [3]}, {"args": "x"}]
    people = read_people({"who": "anna", "verdict": "ok"} | note for note in log)
    assert people == {OLD: "anna", GOOD: "anna", "cells": "anna"}


def test_it_needs_neither_torch_nor_paramiko(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError")
    (tmp_path / "paramiko.py").write_text("raise ImportError")
    words = [sys.executable, "-m", "biom3d.server", "clean", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
