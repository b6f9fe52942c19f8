"""The life of a job, in a real container and without: how it fails, and that nothing is lost or run twice.

Fixture `bench` is both, one after the other; `contained` only the container engine.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from biom3d.errors import Biom3dError, ContainerError, HostError, JobError
from biom3d.remote import gpus, lifecycle, verbs
from biom3d.remote.container import Place, plan_container
from biom3d.remote.containers import Containers, create_or_adopt
from biom3d.remote.host import Host
from biom3d.remote.job import LABEL, Command, JobSpec, Resources, job_name
from biom3d.remote.lifecycle import Runner
from biom3d.remote.local import LocalHost
from biom3d.remote.runtime import Launch, Seen
from biom3d.remote.venv import Venv
from tests.remote.server import wait_for as until

pytestmark = pytest.mark.system


class Bench:
    """A working folder with a runner; `lines` are what the jobs said."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder, self.image = folder, image
        self.host = LocalHost(folder / ".biom3d")
        self.runner = Runner(self.host, folder / ".ended")
        self.lines: list[str] = []
        self.stop = threading.Event()
        self.clients: list[subprocess.Popen] = []

    def spec(self, shell: str, outputs: str = "out", inputs: str = "", **changes: object) -> JobSpec:
        names = tuple(inputs.split())
        command = Command("rule", shell, makes=tuple(outputs.split()))
        files = tuple((job_name(name), self.folder / name) for name in names)
        spec = JobSpec(self.folder.name, (command,), self.image, files, tuple(outputs.split()))
        return replace(spec, **{"resources": Resources(mem_mb=200), **changes})

    def run(self, shell: str, *args: str, **changes: object) -> str:
        return self.runner.run(self.spec(shell, *args, **changes), self.folder, self.lines.append, self.stop)

    def text(self, name: str = "out") -> str:
        return (self.folder / name).read_text()

    def work_folders(self) -> list[Path]:
        return list(Path(self.host.root / "jobs").glob("*/work"))

    def containers(self) -> list:
        every = self.host.engine().containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        jobs = str(self.host.root / "jobs")  # names may be those of another run of the tests beside this one
        return [one for one in every if any(mount["Source"].startswith(jobs) for mount in one.attrs.get("Mounts", []))]

    def wait_for_container(self, seconds: float = 30) -> object:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            running = [one for one in self.containers() if one.status == "running"]
            if running:
                return running[0]
            time.sleep(0.05)
        raise AssertionError("no container runs")


class Unpacked:
    """A job in an environment; the tests take it for a container."""

    def __init__(self, bench: "VenvBench", job: Seen) -> None:
        self.labels, self.status = {LABEL: job.id}, job.state
        self.folder = Path(bench.host.root / "jobs" / job.id)

    def pid(self) -> int:
        return int((self.folder / "pid").read_text().split()[0])

    def kill(self) -> None:
        """Kill what supervises the job, and only that: its steps go on, as after a clumsy `kill -9`."""
        os.kill(self.pid(), signal.SIGKILL)

    def remove(self, force: bool) -> None:
        for pid in processes_of(self.labels[LABEL]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_of(job_id: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] if f"BIOM3D_JOB={job_id}".encode() in path.read_bytes() else []
    return found


class VenvBench(Bench):
    """The same without containers, in this Python's own environment; `ours` are the jobs that ever ran."""

    def __init__(self, folder: Path, image: str) -> None:
        super().__init__(folder, image)
        self.runtime = Venv(self.host, sys.prefix)
        self.runner = Runner(self.host, folder / ".ended", runtime=self.runtime)
        self.ours: set[str] = set()

    def run(self, shell: str, *args: str, **changes: object) -> str:
        job_id = Bench.run(self, shell, *args, **changes)
        self.ours.add(job_id)
        return job_id

    def containers(self) -> list:
        """What the host shows, and what only the kernel knows: processes that nobody supervises."""
        left = [job_id for job_id in self.ours if processes_of(job_id)]
        jobs = [Unpacked(self, job) for job in self.runtime.list_jobs()]
        return [job for job in jobs if job.folder.exists()] + left  # the list has all of the machine


KINDS = {"container": Bench, "venv": VenvBench}


def opened(kind: str, folder: Path, image: str) -> Iterator[Bench]:
    bench = KINDS[kind](folder, image)
    yield bench
    for client in bench.clients:  # one that still waits for room would start its job after a failed test
        client.kill()
        client.wait()
    for container in bench.containers():
        container.remove(force=True)
    bench.host.close()


@pytest.fixture(params=KINDS)
def bench(request, tmp_path: Path) -> Iterator[Bench]:
    image = request.getfixturevalue("base_image") if request.param == "container" else ""
    yield from opened(request.param, tmp_path, image)


@pytest.fixture
def contained(tmp_path: Path, base_image: str) -> Iterator[Bench]:
    yield from opened("container", tmp_path, base_image)


@pytest.fixture
def unpacked(tmp_path: Path) -> Iterator[VenvBench]:
    yield from opened("venv", tmp_path, "")


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.02)


def with_log(shell: str) -> dict[str, object]:
    """Return what gives a job a log that people read."""
    log = "logs/rule.log"
    return {"commands": (Command("rule", shell, makes=("out",), log=log),), "logs": (log,)}


def in_thread(bench: Bench, shell: str, **changes: object) -> tuple[threading.Thread, list[Biom3dError]]:
    errors: list[Biom3dError] = []

    def work() -> None:
        try:
            bench.run(shell, **changes)
        except Biom3dError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, errors


def test_a_job_reads_its_inputs_and_leaves_its_outputs_and_nothing_else(bench):
    (bench.folder / "in").mkdir()
    (bench.folder / "in/a.txt").write_text("hello")
    bench.run("cat in/a.txt > out; touch other", "out", "in")
    assert bench.text() == "hello"
    assert not (bench.folder / "other").exists()
    assert bench.containers() == []
    assert list((bench.folder / ".biom3d/jobs").iterdir()) == []


def test_log_lines_are_shown_whatever_bytes_they_have(bench):
    bench.run(r"printf 'one\n\377\xfe bad\nbar 1%%\rbar 2%%\n' | tee out")
    assert [line for line in bench.lines if "started" not in line] == ["one", "\ufffd\ufffd bad", "bar 2%"]


@pytest.mark.parametrize("shell", ["echo x >> in.txt", "touch /etc/x", "touch /usr/x"])
def test_a_job_can_write_only_below_its_folder(contained, shell):
    (contained.folder / "in.txt").write_text("mine")
    with pytest.raises(JobError, match="exit 1"):
        contained.run(shell, "out", "in.txt")
    assert contained.text("in.txt") == "mine"


def test_a_job_has_no_network_and_no_privilege(contained):
    contained.run("ls /sys/class/net > out; grep -E 'CapEff|NoNewPrivs' /proc/self/status >> out")
    assert contained.text().split() == ["lo", "CapEff:", "0" * 16, "NoNewPrivs:", "1"]


def test_cores_and_memory_are_limited(contained):
    limits = "memory/memory.limit_in_bytes", "memory.max"
    contained.run("cat " + " ".join(f"/sys/fs/cgroup/{name}" for name in limits) + " 2>/dev/null > out || true")
    assert int(contained.text()) == 200 * 2**20


def test_files_with_hostile_names_come_and_go(bench):
    names = ["a b", "it's", 'say "x"', "$HOME", "[1]*?", "-rf", "ü ﷽", "new\nline", ".hidden", "a:b"]
    for name in names:
        (bench.folder / name).write_text(name)
    inputs = tuple((name, bench.folder / name) for name in names)
    command = Command("copy", 'mkdir -p made; for f in * .hidden; do [ -f "./$f" ] && cp -- "$f" "made/$f"; done; true')
    spec = JobSpec("names", (command,), bench.image, inputs, tuple(f"made/{name}" for name in names))
    bench.runner.run(spec, bench.folder, bench.lines.append, bench.stop)
    assert {path.name: path.read_text() for path in (bench.folder / "made").iterdir()} == {name: name for name in names}


def test_a_failure_tells_code_last_lines_and_log_and_brings_the_log(bench):
    with pytest.raises(JobError, match=r"(?s)exit 3; last lines:\n  no such voxel\n; log: job\.log|log: job\.log"):
        bench.run("echo no such voxel | tee job.log >&2; exit 3", logs=("job.log",))
    assert bench.text("job.log") == "no such voxel\n"
    assert bench.containers() == []


def test_a_failed_job_goes_on_in_its_folder(bench):
    shell = "if [ -e half ]; then mv half out; else echo half > half; exit 1; fi"
    with pytest.raises(JobError):
        bench.run(shell)
    bench.run(shell)
    assert bench.text() == "half\n"


def test_an_output_is_replaced_only_by_a_whole_one(bench):
    (bench.folder / "out").write_text("old")
    with pytest.raises(JobError):
        bench.run("echo new > out; exit 1")
    assert bench.text() == "old"


def test_a_missing_output_is_an_error_though_the_job_ended_well(bench):
    with pytest.raises(JobError, match="ended well but did not make 'out'"):
        bench.run("true")


GREEDY = "python3 -c 'import time; x = bytearray(400 << 20); time.sleep(60)'"


def test_running_out_of_memory_is_told_as_such(bench):
    with pytest.raises(JobError, match=r"out of memory: it may use 200 MB.*--set-resources rule:mem_mb=400"):
        bench.run(GREEDY)


def test_the_log_of_a_killed_step_says_why_it_ended(bench):
    command = Command(
        "rule",
        f"echo begun > job.log; {GREEDY}",
        log="job.log",
    )
    with pytest.raises(JobError):
        bench.run("", commands=(command,), logs=("job.log",))
    assert bench.text("job.log").startswith("begun\njob: error: out of memory: it may use 200 MB")


def test_an_image_that_is_not_there_is_never_pulled(contained):
    with pytest.raises(ContainerError, match=r"image 'nobody/nothing:1' is not there; build it: biom3d images build"):
        contained.run("true", image="nobody/nothing:1")


def test_an_engine_that_does_not_answer_is_told(tmp_path):
    with pytest.raises(ContainerError, match="no container engine answers"):
        LocalHost(tmp_path, str(tmp_path / "no.sock")).engine()


def test_too_little_disk_is_told_before_anything_starts(bench):
    with pytest.raises(HostError, match="MB free"):
        bench.run("true", resources=Resources(disk_mb=10**9), **with_log("true"))
    (line,) = bench.text("logs/rule.log").splitlines()  # where the table at the end of a run reads it
    assert line.startswith("job: error: ")
    assert "MB free" in line


def test_a_container_killed_by_hand_is_started_again(bench):
    thread, errors = in_thread(bench, "if [ -e second ]; then touch out; else touch second; sleep 60; fi")
    container = bench.wait_for_container()
    wait_for(bench.folder / ".biom3d/jobs" / container.labels[LABEL] / "work/second")
    container.kill()
    thread.join(60)
    assert errors == []
    assert (bench.folder / "out").exists()


def test_a_container_that_docker_finds_dead_after_a_power_cut_is_started_again(contained, monkeypatch):
    """Docker says 255, and nothing is beside the results; a command that itself ends with 255 has failed."""
    write, cut = contained.host.write, [b"exit 255\n"]

    def write_cut(path, content):
        write(path, cut.pop() if path.name == "run.sh" and cut else content)

    monkeypatch.setattr(contained.host, "write", write_cut)
    contained.run("touch out")
    assert "killed from outside; starts again" in contained.lines
    with pytest.raises(JobError, match="exit 255"):
        contained.run("exit 255")


def test_stopping_ends_the_container_and_the_next_run_goes_on(bench):
    shell = "if [ -e begun ]; then touch out; else touch begun; sleep 60; fi"
    thread, errors = in_thread(bench, shell)
    container = bench.wait_for_container()
    wait_for(bench.folder / ".biom3d/jobs" / container.labels[LABEL] / "work/begun")
    bench.stop.set()
    thread.join(60)
    assert "stopped; the same command goes on" in str(errors[0])
    assert bench.containers() == []
    bench.stop.clear()
    bench.run(shell)
    assert (bench.folder / "out").exists()


def test_a_group_interrupted_in_every_member_goes_on_and_runs_none_twice(bench):
    from tests.remote.interrupted import interrupt_each_member  # which needs what is defined here

    interrupt_each_member(bench)


def test_a_job_cancelled_by_somebody_is_not_started_again_and_goes_on_when_asked_for(bench):
    first = "mkdir -p logs; echo at work | tee logs/rule.log; touch begun; sleep 60"
    shell = f"if [ -e begun ]; then touch out; else {first}; fi"
    thread, errors = in_thread(bench, shell, **with_log(shell))
    job_id = bench.wait_for_container().labels[LABEL]
    wait_for(bench.folder / ".biom3d/jobs" / job_id / "work/begun")
    runtime = bench.runner.runtime
    verbs.cancel(bench.host, verbs.find_job(verbs.list_jobs(bench.host, runtime), job_id), runtime, "ann on laptop")
    thread.join(60)
    assert "cancelled with 'biom3d remote cancel' by ann on laptop" in str(errors[0])
    assert bench.text("logs/rule.log") == "at work\njob: stopped with 'biom3d remote cancel' by ann on laptop\n"
    bench.run(shell, **with_log(shell))
    assert bench.containers() == []


CLIENT = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.remote.test_lifecycle import KINDS
KINDS[sys.argv[5]](Path(sys.argv[1]), sys.argv[2]).run(sys.argv[3])
"""


def start_client(bench: Bench, shell: str) -> subprocess.Popen:
    kind = "venv" if isinstance(bench, VenvBench) else "container"
    arguments = [str(bench.folder), bench.image, shell, str(Path(__file__).parents[2]), kind]
    bench.clients.append(subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.DEVNULL))
    return bench.clients[-1]


def test_a_job_survives_its_client_and_is_adopted(bench):
    shell = "echo run >> runs; while [ ! -e go ]; do sleep 0.05; done; cp runs out"
    client = start_client(bench, shell)
    container = bench.wait_for_container()
    client.send_signal(signal.SIGKILL)
    client.wait()
    thread, errors = in_thread(bench, shell)
    work = bench.folder / ".biom3d/jobs" / container.labels[LABEL] / "work"
    (work / "go").touch()
    thread.join(60)
    assert errors == []
    assert bench.text() == "run\n"
    assert bench.containers() == []


@pytest.mark.parametrize("moment_s", [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.2])
def test_a_client_killed_at_any_moment_costs_nothing(bench, moment_s):
    """The result is that of one undisturbed run; the job has not run again after it succeeded."""
    shell = "echo run >> runs; sleep 0.4; cp runs out"
    client = start_client(bench, shell)
    time.sleep(moment_s)  # not a wait for something: the moment of the kill
    client.send_signal(signal.SIGKILL)
    client.wait()
    bench.run(shell)
    assert bench.text() == "run\n"
    assert bench.containers() == []


def test_a_container_removed_by_hand_is_made_again(bench):
    thread, errors = in_thread(bench, "if [ -e second ]; then touch out; else touch second; sleep 60; fi")
    container = bench.wait_for_container()
    wait_for(bench.folder / ".biom3d/jobs" / container.labels[LABEL] / "work/second")
    container.remove(force=True)
    thread.join(60)
    assert errors == []
    assert (bench.folder / "out").exists()


class Dying(Containers):
    """A client that makes the container and dies when it may go on: before it starts that, or (`starts`) after."""

    def __init__(self, host: Host, starts: bool) -> None:
        super().__init__(host)
        self.starts, self.has_made, self.may_go_on = starts, threading.Event(), threading.Event()

    def start(self, launch: Launch) -> bool:
        place = Place(self._known_facts(), self._host.user(), gpus.LEASES)
        made = self._host.engine().containers.create(**plan_container(launch, place))
        self.has_made.set()
        assert self.may_go_on.wait(60)
        if self.starts:
            made.start()
        raise HostError("this client dies here")


@pytest.mark.parametrize("starts", [True, False])
def test_a_container_that_another_client_has_made_is_not_taken_away_before_it_starts(contained, monkeypatch, starts):
    monkeypatch.setattr(lifecycle, "STARTING_S", 60.0 if starts else 1.0)
    dying = Dying(contained.host, starts)
    other = Runner(contained.host, contained.folder / ".other", runtime=dying)
    shell = "while [ ! -e go ]; do sleep 0.05; done; echo once >> out"
    arguments = (HostError, other.run, contained.spec(shell), contained.folder, print, threading.Event())
    first = threading.Thread(target=pytest.raises, args=arguments)
    first.start()
    assert dying.has_made.wait(60)
    second, errors = in_thread(contained, shell)
    until(lambda: any("another client" in line for line in contained.lines), "the second client's word")
    if starts:
        dying.may_go_on.set()
    word = "runs already" if starts else "started in"
    until(lambda: any(word in line for line in contained.lines), "the end of its wait")
    (work,) = contained.work_folders()
    (work / "go").touch()
    second.join(60)
    dying.may_go_on.set()
    first.join(60)
    assert errors == []
    assert contained.text() == "once\n"
    assert contained.containers() == []


def test_a_container_that_somebody_takes_away_before_it_starts_is_left_to_them(contained):
    class Taken:
        """An engine's containers, each of which is gone as soon as it is made."""

        def create(self, **arguments: object) -> object:
            made = contained.host.engine().containers.create(**arguments)
            made.remove()
            return made

    assert not create_or_adopt(
        Taken(), {"image": contained.image, "command": "true", "name": f"b3d-{uuid.uuid4().hex}"}
    )


def test_jobs_wait_until_the_host_has_cores_for_them(bench):
    cores = bench.runner.runtime.capacity().cores
    shell = "date +%s.%N > {0}; sleep 0.3; date +%s.%N >> {0}"
    threads = []
    for name in ("a", "b"):
        spec = replace(bench.spec(shell.format(name), name), resources=Resources(threads=cores), name=bench.folder.name)
        arguments = (spec, bench.folder, bench.lines.append, bench.stop)
        threads.append(threading.Thread(target=bench.runner.run, args=arguments))
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    (_, end), (begin, _) = sorted([float(x) for x in bench.text(name).split()] for name in ("a", "b"))
    assert end <= begin
    assert any(line.startswith("waiting: ") and "cores wanted" in line for line in bench.lines)


def test_a_very_long_log_is_no_burden(bench):
    bench.run("seq 300000; touch out")
    assert sum(line.isdigit() for line in bench.lines) == 300000


def as_somebody_else(bench: Bench, group: int) -> None:
    os.setgroups([group])
    os.setgid(12345)  # for good: a shell would go back from what is only in effect
    os.setuid(12345)
    bench.run("mkdir out; id -u > out/uid")


def test_files_belong_to_the_caller(contained):
    """Made by a process of another account, that may use the engine; no file of root appears."""
    contained.folder.chmod(0o777)
    for parent in contained.folder.parents[:2]:
        parent.chmod(0o755)
    contained.host.engine().ping()  # all modules are loaded; the other account may not read ours
    contained.host.close()
    client = multiprocessing.get_context("fork").Process(
        target=as_somebody_else, args=(contained, Path("/var/run/docker.sock").stat().st_gid)
    )
    client.start()
    client.join(60)
    assert client.exitcode == 0
    assert contained.text("out/uid").strip() == "12345"
    made = [*(contained.folder / "out").rglob("*"), *(contained.folder / ".biom3d").rglob("*")]
    assert {path.lstat().st_uid for path in made} == {12345}
