import fcntl
import os
import pwd
import shutil
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker.errors
import pytest

from biom3d.errors import ConfigError, HostError
from biom3d.remote import gpus, verbs
from biom3d.remote.__main__ import main
from biom3d.remote.job import LABEL
from biom3d.remote.profile import Settings, write_profile
from tests.remote.server import wait_for
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]
ID, OTHER = "a" * 24, "ab" * 12
SEEN = verbs.Seen(ID, "train m", "running", "2026-01-02T03:04:05.123Z", "2", "0", ("0",), "7", True, True)


def old(path: Path, days: float = 40) -> Path:
    moment = time.time() - days * 86_400
    os.utime(path, (moment, moment))
    return path


@pytest.fixture
def host(make_host, with_engine, docker_client):
    return make_host()


@pytest.fixture
def start(docker_client, base_image, account):
    """Starts containers with the labels of a job, as another client would have done."""
    made = []

    def start(shell: str, job_id: str, owner: str = account.name, **words: str):
        container = docker_client.containers.run(
            base_image,
            ["sh", "-c", shell],
            name=f"biom3d-{job_id}",
            labels={LABEL: job_id} | {f"{LABEL}.{key}": value for key, value in words.items()},
            user=str(pwd.getpwnam(owner).pw_uid),
            init=True,
            detach=True,
        )
        made.append(container)
        return container

    yield start
    for container in made:
        with suppress(docker.errors.NotFound):
            container.remove(force=True)


@pytest.fixture
def job_id():
    return os.urandom(12).hex()


@pytest.fixture
def profile(client, tmp_path, monkeypatch):
    """A profile for the test server, in a folder of its own there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    workdir = f"lab-{tmp_path.name}"
    write_profile(
        "gpu", Settings("server", key_file=str(client.folder / "key"), config=str(client.config), workdir=workdir)
    )
    return "gpu"


def of(host, job_id: str) -> verbs.Seen:
    return next(seen for seen in verbs.list_jobs(host) if seen.id == job_id)


@pytest.mark.system
def test_a_running_job_is_listed_with_what_it_takes(host, start, job_id):
    start("sleep 60", job_id, name="train m", threads="2", mem_mb="300", gpus="0 1")
    seen = of(host, job_id)
    assert (seen.name, seen.state, seen.threads, seen.mem_mb, seen.devices) == (
        "train m",
        "running",
        "2",
        "300",
        ("0", "1"),
    )
    assert seen.is_ours


@pytest.mark.system
def test_a_job_that_has_ended_is_listed_with_its_exit_code(host, start, job_id):
    start("exit 3", job_id, name="x").wait()
    assert of(host, job_id).state == "exit 3"


@pytest.mark.system
def test_a_name_cannot_command_the_terminal(host, start, job_id):
    start("true", job_id, name="\x1b[2Jx")
    assert of(host, job_id).name == "?[2Jx"


@pytest.mark.system
def test_a_log_is_printed(host, start, job_id):
    start("echo one; echo two >&2", job_id, name="x").wait()
    said = []
    verbs.print_log(host, of(host, job_id), False, said.append)
    assert sorted(said) == ["one", "two"]


@pytest.mark.system
def test_a_log_is_followed_until_the_job_ends(host, start, job_id):
    start("echo one; sleep 1; echo two; exit 4", job_id, name="x")
    said = []
    verbs.print_log(host, of(host, job_id), True, said.append)
    assert said == ["one", "two", "[ended with exit code 4]"]


@pytest.mark.system
def test_a_log_is_followed_over_a_cut_line(host, make_host, proxy, start, job_id):
    start("echo one; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo two", job_id, name="x")
    job, said = of(host, job_id), []
    reader = threading.Thread(target=verbs.print_log, args=(make_host(port=proxy.port), job, True, said.append))
    reader.start()
    wait_for(lambda: "one" in said, "the first line")
    proxy.cut()
    host.engine().containers.get(f"biom3d-{job_id}").exec_run("touch /tmp/go")
    reader.join(20)
    assert [line for line in said if "trying again" not in line] == ["one", "two", "[ended with exit code 0]"]


@pytest.mark.system
def test_a_cancelled_job_gets_the_time_to_save_what_it_has(host, start, job_id):
    container = start("trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.1; done", job_id, name="x")
    wait_for(lambda: b"ready" in container.logs(), "the trap")
    assert verbs.cancel(host, of(host, job_id)) == "exit 7"
    assert b"saved" in container.logs()


@pytest.mark.system
def test_a_job_of_another_account_is_left_alone(host, start, job_id):
    container = start("sleep 60", job_id, owner="nobody", name="x")
    with pytest.raises(HostError, match="its owner can stop it"):
        verbs.cancel(host, of(host, job_id))
    container.reload()
    assert container.status == "running"


def test_a_job_that_does_not_run_cannot_be_stopped():
    class Nowhere:
        name = "h"

    with pytest.raises(HostError, match="does not run"):
        verbs.cancel(Nowhere(), replace(SEEN, state="exit 1"))


@pytest.mark.parametrize("word", [ID, "aaa", "train m"])
def test_a_job_is_found_by_its_id_its_beginning_or_its_name(word):
    assert verbs.find_job([SEEN, replace(SEEN, id=OTHER, name="y")], word) == SEEN


@pytest.mark.parametrize(("word", "problem"), [("a", "more than one"), ("zz", "no job"), ("", "no job")])
def test_a_word_that_means_no_single_job_is_refused(word, problem):
    with pytest.raises(ConfigError, match=problem):
        verbs.find_job([SEEN, replace(SEEN, id=OTHER, name="y")], word)


def test_times_are_shown_in_our_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    try:
        assert verbs.local_time(SEEN.since) == "2026-01-02 05:04:05"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.system
def test_gpus_tell_who_uses_them(host, start, job_id, account, monkeypatch):
    smi = "#!/bin/sh\ncase $* in *name*) printf '0, A, 80, 1\\n1, B, 40, 1\\n';; *) printf '0\\n1\\n';; esac\n"
    leases = account.home / f"leases-{job_id}"
    (account.home / "nvidia-smi").write_text(smi)
    (account.home / "nvidia-smi").chmod(0o755)
    run = host.run
    # The server's PATH is not ours to set; the stand-in is found by the command line alone.
    monkeypatch.setattr(host, "run", lambda line, **more: run(f"PATH={account.home}:$PATH; {line}", **more))
    monkeypatch.setattr(gpus, "LEASES", leases)
    start("sleep 60", job_id, name="train m", gpus="0")
    gpus.find_free(host, ("0", "1"))
    with open(leases / "0") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        rows = verbs.gpu_rows(host)
    assert rows == [("0", "A, 80 MB", f"train m ({job_id[:12]}, you)"), ("1", "B, 40 MB", "free")]


def test_only_old_folders_of_jobs_without_a_container_are_chosen():
    ages = {"a" * 24: 40, "b" * 24: 40, "c" * 24: 2, "important data": 99}
    folders = [verbs.JobFolder(name, days * 86_400.0, 1) for name, days in ages.items()]
    assert [folder.id for folder in verbs.choose_folders(folders, {"b" * 24}, 30)] == ["a" * 24]


@pytest.mark.system
def test_clean_removes_old_folders_and_nothing_else(host, start, job_id, account):
    start("sleep 60", job_id, name="x")
    jobs = Path(host.root / "jobs")
    for name in (ID, job_id, "b" * 24, "not a job"):
        (jobs / name).mkdir()
        (jobs / name / "run.sh").write_text("x")
        shutil.chown(jobs / name, account.name)
        for path in (jobs / name / "run.sh", jobs / name):
            old(path, 2 if name == "b" * 24 else 40)
    plan = verbs.plan_cleaning(host, 30)
    assert [folder.id for folder in plan.folders] == [ID]
    verbs.clean(host, plan)
    assert sorted(path.name for path in jobs.iterdir()) == sorted([job_id, "b" * 24, "not a job"])


@pytest.mark.system
def test_a_container_whose_results_nobody_fetched_goes_when_it_is_old(host, start, job_id, monkeypatch):
    start("true", job_id, name="x").wait()
    assert job_id not in verbs.plan_cleaning(host, 30).ended
    monkeypatch.setattr(verbs, "_ended_before", lambda job, days: job.id == job_id)
    plan = verbs.plan_cleaning(host, 30)
    assert plan.ended == (job_id,)
    verbs.clean(host, plan)
    assert [seen for seen in verbs.list_jobs(host) if seen.id == job_id] == []


@pytest.mark.parametrize(
    ("state", "days", "is_old"), [("exit 0", 40, True), ("exit 0", 20, False), ("running", 40, False)]
)
def test_a_job_that_ended_long_ago_is_told_from_one_that_runs(state, days, is_old):
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    assert verbs._ended_before(replace(SEEN, state=state, since=since), 30) == is_old


@pytest.mark.system
def test_what_is_in_use_when_it_comes_to_removing_stays(host, start, job_id):
    folder = Path(host.root / "jobs" / job_id)
    folder.mkdir()
    old(folder)
    plan = verbs.plan_cleaning(host, 30)
    start("sleep 60", job_id, name="x")
    verbs.clean(host, plan)
    assert folder.is_dir()


@pytest.mark.system
def test_content_that_a_job_links_is_never_removed(host, tmp_path, said):
    for name in ("used", "unused"):
        (tmp_path / name).write_text(name)
    entries = host.identify([(name, tmp_path / name) for name in ("used", "unused")])
    folder = host.root / "jobs" / "job"
    host.stage(folder, entries, said.append)
    Path(folder / "work/unused").unlink()
    keys = {entry.name: entry.key for entry in entries}
    every = {f"{key[:2]}/{key}": 1 for key in keys.values()}
    verbs.clean(host, verbs.Cleaning((), every))
    there = [name for name, key in keys.items() if Path(host.root / "store" / key[:2] / key).exists()]
    assert there == ["used"]


@pytest.mark.system
def test_content_that_was_used_a_moment_ago_is_not_listed(host, tmp_path, said):
    (tmp_path / "a").write_text("a")
    host.stage(host.root / "jobs/job", host.identify([("a", tmp_path / "a")]), said.append)
    host.remove(host.root / "jobs/job")
    assert verbs.plan_cleaning(host, 1).files == {}


def test_less_than_a_day_is_refused():
    with pytest.raises(ConfigError, match="1d or more"):
        verbs.plan_cleaning(None, 0.5)


@pytest.mark.system
def test_clean_shows_and_removes_only_when_told(profile, with_engine, docker_client, account, tmp_path, capsys):
    assert main(["clean", "gpu"]) == 0
    folder = account.home / f"lab-{tmp_path.name}/.biom3d/jobs" / ID
    folder.mkdir()
    old(folder)
    assert main(["clean", "gpu"]) == main(["clean", "gpu", "--yes", "--dry-run"]) == 0
    assert folder.exists()
    assert main(["clean", "gpu", "--older-than", "30d", "--yes"]) == 0
    assert not folder.exists()
    assert f"{ID}  40 days" in capsys.readouterr().out


@pytest.mark.system
def test_the_commands_print_tables(profile, with_engine, start, job_id, capsys):
    start("echo hello", job_id, name="say hello").wait()
    assert main(["jobs", "gpu"]) == main(["logs", "gpu", job_id]) == main(["gpus", "gpu"]) == 0
    printed = capsys.readouterr()
    assert f"{job_id}  exit 0" in printed.out
    assert "hello\n" in printed.out
    assert "no NVIDIA GPU" in printed.err


@pytest.mark.parametrize("words", [["logs", "gpu"], ["clean", "gpu", "--older-than", "soon"], ["jobs"]])
def test_a_wrong_command_line_is_refused(words):
    with pytest.raises(SystemExit):
        main(words)


def test_a_host_without_containers_needs_no_image(monkeypatch, tmp_path, capsys):
    """So `make demo PROFILE=NAME` works there too; nothing is connected."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_profile("lab", Settings("127.0.0.1", port=1, runtime="venv", config=os.devnull))
    assert main(["send-image", "lab", "cpu"]) == 0
    assert "run in a Python environment; no image is needed there" in capsys.readouterr().err


def test_a_host_that_is_away_is_told_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    (tmp_path / "none").touch()
    write_profile("away", Settings("127.0.0.1", port=port, config=str(tmp_path / "none")))
    assert main(["jobs", "away"]) == 1
    assert capsys.readouterr().err.startswith("remote: error: 127.0.0.1: nothing listens")
