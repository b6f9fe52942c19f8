"""Jobs without containers on a host over SSH, as an account that may use no engine: faults and the verbs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase
from snakemake_executor_plugin_host import ExecutorSettings

from biom3d.errors import ConfigError, HostError, JobError
from biom3d.remote import verbs
from biom3d.remote.__main__ import main
from biom3d.remote.claims import CLAIMS
from biom3d.remote.doctor import FAIL, OK, examine, judge_logout
from biom3d.remote.lifecycle import Runner
from biom3d.remote.profile import Settings, write_profile
from biom3d.remote.ssh import SSHHost
from biom3d.remote.venv import Venv
from tests.remote.conftest import Client
from tests.remote.interrupted import interrupt_each_member
from tests.remote.server import Server, names_in, wait_for
from tests.remote.test_faults import COUNTED, MB, TWICE, WAITING, Far, clients, end_sessions, hash_of, write_random
from tests.remote.test_lifecycle import VenvBench, processes_of
from tests.remote.test_verbs import old

__all__ = ["clients"]
pytestmark = pytest.mark.system


class FarVenv(Far):
    """A working folder here, and an environment on a host."""

    def __init__(self, folder: Path, environment: Path, host: SSHHost) -> None:
        super().__init__(folder, "", host)
        self.environment = environment
        self.runtime = Venv(host, str(environment))
        self.runner = Runner(host, folder / ".ended", runtime=self.runtime)
        self.ours: set[str] = set()

    run = VenvBench.run
    containers = VenvBench.containers


@pytest.fixture(scope="session")
def environment(account) -> Path:
    """A Python environment of the account's own."""
    path = account.home / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", path], check=True)
    return path


@pytest.fixture
def make_far(tmp_path, environment, make_host) -> Iterator:
    made: list[FarVenv] = []

    def make(name: str = "", **settings: object) -> FarVenv:
        made.append(FarVenv(tmp_path / (name or f"far-{tmp_path.name}"), environment, make_host(**settings)))
        return made[-1]

    yield make
    for far in made:
        far.close()


@pytest.fixture
def far(make_far) -> FarVenv:
    return make_far()


# faults


def test_a_job_runs_as_the_account_and_its_results_arrive(far):
    digest = write_random(far.folder / "in", MB)
    far.run(COUNTED + "cp in out; id -u > uid", "out runs uid", "in")
    assert (hash_of(far.folder / "out"), int(far.text("uid"))) == (digest, far.host.user()[0])
    far.assert_clean()


def test_a_group_interrupted_in_every_member_goes_on_and_runs_none_twice(far):
    interrupt_each_member(far)
    far.assert_clean()


def test_a_line_cut_while_the_job_runs_does_not_touch_it(make_far, proxy):
    far = make_far(port=proxy.port)
    thread = far.begin(WAITING, "out runs")
    far.appears("runs")
    lines = proxy.lines
    proxy.cut()
    wait_for(lambda: proxy.lines > lines, "a new connection")  # a cut between two questions costs not even a word
    (far.work() / "go").touch()
    far.end(thread)
    assert (far.text(), far.text("runs")) == ("done\n", "run\n")
    far.assert_clean()


def test_an_sshd_that_is_restarted_is_found_again(tmp_path, environment, account, key):
    server = Server(tmp_path / "sshd")
    (tmp_path / "client").mkdir()
    shutil.copy(key, tmp_path / "client/key")
    host = SSHHost(Client(tmp_path / "client", server, account).settings(), None)
    far = FarVenv(tmp_path / "sshd-restarts", environment, host)
    thread = far.begin(WAITING, "out runs")
    work = far.appears("runs").parent
    logins = server.logins()
    end_sessions(server)
    server.stop()
    server.start()
    wait_for(lambda: server.logins() > logins, "a new connection")
    (work / "go").touch()
    far.end(thread)
    assert far.text("runs") == "run\n"
    far.assert_clean()
    host.close()
    server.stop()


KILLS = 8
LIFE_S = 1.6


def run_as_client(settings, folder: Path, environment: Path, shell: str, outputs: str) -> None:
    """What a client does; it gets killed."""
    far = FarVenv(folder, environment, SSHHost(settings, None, cache=folder / "hashes.sqlite"))
    far.run(shell, outputs, "in")


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_client_killed_at_any_moment_costs_nothing(far, clients, kill):
    digest = write_random(far.folder / "in", MB, kill)
    shell, outputs = COUNTED + "sleep 0.2; cp in out", "out runs"
    arguments = (far.host.settings, far.folder, far.environment, shell, outputs)
    client = clients.Process(target=run_as_client, args=arguments)
    client.start()
    client.join((kill + 0.5) * LIFE_S / KILLS)  # the moment, not a wait for something
    client.kill()
    client.join()
    far.run(shell, outputs, "in", was_cut_short=True)
    assert (hash_of(far.folder / "out"), far.text("runs")) == (digest, "run\n")
    far.assert_clean()


def test_two_clients_that_start_the_same_job_at_once_run_it_once(make_far):
    one, two = (make_far(name, workdir="shared-venv") for name in ("one", "two"))
    threads = [far.begin(COUNTED + "sleep 0.5; echo done > out", "out runs") for far in (one, two)]
    for far, thread in zip((one, two), threads, strict=True):
        far.end(thread)
    assert [far.text("runs") for far in (one, two)] == ["run\n", "run\n"]
    one.assert_clean()


def test_a_job_killed_by_hand_starts_again(far):
    thread = far.begin(TWICE)
    far.appears("second")
    far.containers()[0].kill()
    far.end(thread)
    assert far.said("killed from outside; starts again")
    far.assert_clean()


def test_a_host_that_was_started_anew_lost_the_job_which_starts_again(far):
    """After that no process is there any more, and numbers may be given to others."""
    thread = far.begin(TWICE)
    path = far.appears("second").parent.parent / "pid"
    pid, start, boot, node = path.read_text().split()
    path.write_text(f"{pid} {start} {boot[::-1]} {node}\n")
    far.end(thread)
    assert far.said("killed from outside; starts again")
    far.assert_clean()


def test_a_missing_output_is_an_error_though_the_job_ended_well(far):
    with pytest.raises(JobError, match="ended well but did not make 'out'"):
        far.run("true")
    far.assert_clean()


def test_an_input_with_an_absolute_name_is_refused(far):
    (far.folder / "in").write_text("x")
    spec = replace(far.spec("true"), inputs=(("/data/in", far.folder / "in"),))
    with pytest.raises(ConfigError, match="outside the working folder"):
        far.runner.run(spec, far.folder, far.lines.append, far.stop)


# stopping


def test_a_stop_over_a_lost_line_is_tried_again_until_the_job_has_ended(make_far, proxy):
    far = make_far(port=proxy.port)
    thread = far.begin(WAITING, "out runs")
    job_id = far.appears("runs").parent.parent.name
    proxy.cut()
    far.stop.set()
    thread.join(60)
    assert "stopped; the same command goes on" in str(far.errors.pop())
    assert processes_of(job_id) == []


def test_a_job_that_could_not_be_stopped_is_told_plainly(make_far, proxy, monkeypatch):
    monkeypatch.setattr("biom3d.remote.lifecycle.STOP_PAUSES_S", (0.0, 0.1))
    far = make_far(port=proxy.port, silence_s=1.0, keepalive_s=0.5, reconnect_s=1.0, connect_timeout_s=1.0)
    thread = far.begin(WAITING, "out runs")
    job_id = far.appears("runs").parent.parent.name
    proxy.stall()
    far.stop.set()
    thread.join(60)
    assert "may still run, for it could not be stopped" in (said := str(far.errors.pop()))
    assert f"biom3d remote cancel PROFILE {job_id[:12]}" in said
    assert processes_of(job_id) != []
    for pid in processes_of(job_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_cancelled_job_is_not_started_again_and_says_who_did_it(far, make_far):
    thread = far.begin(WAITING, "out runs")
    far.appears("runs")
    job = next(job for job in verbs.list_jobs(far.host, far.runtime) if job.name == far.folder.name)
    verbs.cancel(far.host, job, far.runtime, "ann on laptop")
    thread.join(60)
    assert "cancelled with 'biom3d remote cancel' by ann on laptop" in str(far.errors.pop())
    assert far.containers() == []
    thread = far.begin(WAITING, "out runs")
    (far.appears("runs").parent / "go").touch()
    far.end(thread)
    assert far.text("runs") == "run\nrun\n"


# the verbs


@pytest.fixture
def profile(client, environment, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    files = {"key_file": str(client.folder / "key"), "config": str(client.config)}
    write_profile("lab", Settings("server", workdir="lab-venv", runtime="venv", venv=str(environment), **files))
    return "lab"


def test_the_verbs_show_a_job_follow_its_log_and_stop_it(make_far, profile, capsys):
    far = make_far(workdir="lab-venv")
    thread = far.begin("echo hello; " + WAITING, "out runs")
    far.appears("runs")
    job_id = far.containers()[0].labels["biom3d.job"]
    assert main(["jobs", profile]) == main(["logs", profile, job_id[:8]]) == main(["gpus", profile]) == 0
    printed = capsys.readouterr()
    assert f"{job_id}  running" in printed.out
    assert "hello\n" in printed.out
    said: list[str] = []
    job = verbs.find_job(verbs.list_jobs(far.host, far.runtime), job_id)
    follower = threading.Thread(target=verbs.print_log, args=(far.host, job, True, said.append, far.runtime))
    follower.start()
    wait_for(lambda: said == ["hello"], "the log")
    assert main(["cancel", profile, job_id]) == 0
    thread.join(60)
    follower.join(60)
    assert said[-1].startswith("[ended with exit code ")
    assert "cancelled with" in str(far.errors.pop())


def test_a_job_that_nobody_fetches_is_shown_and_goes_when_it_is_old(far):
    far.run(COUNTED + "cp runs out; sleep 0.1")
    folder = Path(far.host.root) / "jobs" / ("a" * 24)
    (folder / CLAIMS).mkdir(parents=True)
    for name, text in {"pid": "1 1 x y\n", "log": "x\n", "exit": "0\n", f"{CLAIMS}/gone": ""}.items():
        (folder / name).write_text(text.replace("y", os.uname().nodename))
    (folder / "labels").write_text('biom3d.job={"biom3d.job": "' + "a" * 24 + '", "biom3d.job.name": "old one"}\n')
    for path in [*folder.rglob("*"), folder]:
        shutil.chown(path, far.host.user()[0])
        old(path)
    seen = verbs.list_jobs(far.host, far.runtime)
    assert [(job.name, job.state) for job in seen if job.name == "old one"] == [("old one", "exit 0")]
    plan = verbs.plan_cleaning(far.host, 30, far.runtime)
    assert ([one.id for one in plan.folders], plan.ended) == (["a" * 24], ("a" * 24,))
    verbs.clean(far.host, plan, far.runtime)
    assert names_in(folder.parent) == []


def test_a_job_that_runs_is_never_cleaned(far):
    thread = far.begin(WAITING, "out runs")
    folder = far.appears("runs").parent.parent
    for path in [*folder.iterdir(), folder]:
        old(path)
    assert verbs.plan_cleaning(far.host, 30, far.runtime).folders == ()
    (folder / "work/go").touch()
    far.end(thread)


def test_clients_that_never_come_back_are_forgotten(far):
    with pytest.raises(JobError):
        far.run("exit 3")
    folder = far.far("jobs") / names_in(far.far("jobs"))[0]
    (folder / CLAIMS).mkdir()
    shutil.chown(folder / CLAIMS, far.host.user()[0])
    for name, days in (("gone", 40), ("here", 1)):
        (folder / CLAIMS / name).touch()
        old(folder / CLAIMS / name, days)
    verbs.clean(far.host, verbs.plan_cleaning(far.host, 30, far.runtime), far.runtime)
    assert names_in(folder / CLAIMS) == ["here"]


def test_a_container_is_not_stopped_through_a_profile_without_containers(far):
    seen = verbs.Seen("a" * 24, "x", "running", "", "1", "0", (), str(far.host.user()[0]), True, True)
    with pytest.raises(HostError, match="host-runtime: docker or podman"):
        verbs.cancel(far.host, seen, far.runtime)


def test_the_doctor_asks_for_an_environment_and_not_for_an_engine(client, environment):
    settings = Settings(
        "server",
        key_file=str(client.folder / "key"),
        config=str(client.config),
        workdir="lab-venv",
        runtime="venv",
        venv=str(environment),
    )
    found = {finding.what: finding for finding in examine(settings, Path.cwd())}
    assert "engine" not in found
    assert "images" not in found
    assert (found["environment"].state, found["logout"].state) == (FAIL, OK)
    assert "there is no biom3d-workflow in the environment" in found["environment"].text
    assert f"{environment}/bin/pip install" in found["environment"].fix


def test_the_doctor_is_content_with_this_environment(tmp_path):
    found = {finding.what: finding for finding in examine(Settings(runtime="venv"), tmp_path)}
    assert [what for what, finding in found.items() if finding.state == FAIL] == []
    assert f"environment '{sys.prefix}'" in found["environment"].text


@pytest.mark.parametrize(("out", "state"), [(b"b true\n", FAIL), (b"b false\n", OK), (b"", OK)])
def test_a_host_that_kills_what_goes_on_after_logout_is_told(out, state):
    assert judge_logout(out).state == state


class TestOverSSHWithoutContainers(TestWorkflowsLocalStorageBase):
    """Snakemake's tests of an executor: single jobs, and groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def use_host(self, client, environment):
        self.client, self.environment = client, environment

    def get_executor(self):
        return "host"

    def get_executor_settings(self):
        return ExecutorSettings(
            address="server",
            config=str(self.client.config),
            key_file=str(self.client.folder / "key"),
            workdir="snakemake-venv",
            runtime="venv",
            venv=str(self.environment),
        )

    def get_assume_shared_fs(self):
        return False
