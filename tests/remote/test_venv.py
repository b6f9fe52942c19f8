"""Jobs without containers, on this machine: what is particular to them; the rest is in test_lifecycle.py."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from biom3d import __version__
from biom3d.errors import ConfigError, HostError, JobError
from biom3d.remote import gpus, venv_lines
from biom3d.remote.ends import REMOVED, End
from biom3d.remote.host import Entry, Finished, Mount
from biom3d.remote.job import LABEL, Command, Resources, supervisor_script
from biom3d.remote.lifecycle import Runner
from biom3d.remote.local import LocalHost
from biom3d.remote.processes import PREFIX, find_marked, mark, read_marked
from biom3d.remote.runtime import Found
from biom3d.remote.venv import Environment, Venv, plan_links, read_description, read_end, refuse_image
from tests.remote.server import names_in
from tests.remote.server import wait_for as until
from tests.remote.test_gpus import two_gpus
from tests.remote.test_lifecycle import contained, in_thread, processes_of, unpacked, wait_for

__all__ = ["contained", "two_gpus", "unpacked"]
system = pytest.mark.system
TWICE = "if [ -e second ]; then touch out; else touch second; sleep 60; fi"
HERE = Environment(PurePosixPath("/env"), "3.11.7", __version__, "2.13.0", "f00d")


def work_of(bench) -> Path:
    """The folder in which the only job works."""
    jobs = Path(bench.host.root / "jobs")
    end = time.monotonic() + 30
    while not (jobs.is_dir() and list(jobs.glob("*/pid"))):
        assert time.monotonic() < end
        time.sleep(0.02)
    return next(jobs.iterdir()) / "work"


# what a job sees


@system
def test_a_job_runs_in_the_environment_and_says_which(unpacked):
    unpacked.run("python -c 'import sys; print(sys.prefix)' > out")
    assert unpacked.text().strip() == sys.prefix
    assert any(
        f"started in environment '{sys.prefix}' (Python 3." in line and f"biom3d-workflow {__version__}" in line
        for line in unpacked.lines
    )


@system
def test_a_job_sees_no_secret_of_the_connection(unpacked, monkeypatch):
    monkeypatch.setenv("BIOM3D_SSH_PASSWORD", "hidden")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    unpacked.run("env > out; echo $HOME $TMPDIR ${XDG_CACHE_HOME-} > home", "out home")
    assert "hidden" not in unpacked.text()
    assert "SSH_AUTH_SOCK" not in unpacked.text()
    assert all(f"{unpacked.folder}/.biom3d/jobs/" in word for word in unpacked.text("home").split())


@system
def test_temporary_and_home_folders_go_with_the_job(unpacked):
    unpacked.run("touch $HOME/a $TMPDIR/b; echo $HOME > out")
    assert not Path(unpacked.text().strip()).exists()


@system
def test_an_input_is_a_link_and_running_again_does_not_touch_it(unpacked):
    (unpacked.folder / "in").write_text("hello")
    before = (unpacked.folder / "in").stat()
    shell = "if [ -e second ]; then cp in out; else touch second; exit 1; fi"
    with pytest.raises(JobError):
        unpacked.run(shell, "out", "in")
    unpacked.run(shell, "out", "in")
    assert unpacked.text() == "hello"
    assert (unpacked.folder / "in").stat().st_mtime_ns == before.st_mtime_ns


@system
def test_outputs_beside_many_inputs_do_not_land_in_the_folder_of_the_inputs(unpacked):
    (unpacked.folder / "data").mkdir()
    for number in range(70):
        (unpacked.folder / f"data/{number}").write_text("x")
    unpacked.run("cat data/* > data/sum; [ ! -L data/sum ]; touch data/other", "data/sum", "data")
    assert (unpacked.text("data/sum"), (unpacked.folder / "data/other").exists()) == ("x" * 70, False)


def test_mounts_become_links_and_a_folder_of_unknown_files_stays_one():
    entries = [Entry(name, Path(name), "k", 1) for name in ("a", "data/b", "sent")]
    mounts = [
        Mount(PurePosixPath("/here/a"), PurePosixPath("/job/work/a")),
        Mount(PurePosixPath("/there"), PurePosixPath("/job/work/data")),
        Mount(PurePosixPath("/model"), PurePosixPath("/job/work/logs/m")),
    ]
    assert dict(plan_links(entries, mounts)) == {"a": "/here/a", "data/b": "/there/b", "logs/m": "/model"}


def test_an_absolute_name_is_refused_unless_it_is_there_already():
    entry = Entry("/data/x.tif", Path("/data/x.tif"), "k", 1)
    there = PurePosixPath("/data/x.tif")
    assert plan_links([entry], [Mount(there, there)]) == ()
    with pytest.raises(ConfigError, match=r"outside the working folder.*ln -s /data inputs"):
        plan_links([entry], [Mount(PurePosixPath("/store/x"), there)])


# its life


@system
@pytest.mark.parametrize("change", [3, 2, 1], ids=["another boot", "recycled number", "another process"])
def test_a_process_that_is_not_ours_is_never_taken_for_the_job(unpacked, change):
    """`pid` names a process that runs; only number, time of start and boot together make it the job's."""
    folder = unpacked.host.root / "jobs/a"
    stranger = subprocess.Popen(["sleep", "60"])
    start = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(") ")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    truth = [str(stranger.pid), start, boot, os.uname().nodename]
    unpacked.host.write(folder / "pid", " ".join(truth).encode() + b"\n")
    assert unpacked.runtime.find("a") == Found(True, None)
    truth[change - 1] = str(os.getppid()) if change == 1 else "1"
    unpacked.host.write(folder / "pid", " ".join(truth).encode() + b"\n")
    assert unpacked.runtime.find("a") == Found(False, REMOVED)
    unpacked.runtime.source("a").stop()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@system
def test_a_job_of_another_machine_with_the_same_folder_is_left_to_it(unpacked):
    unpacked.host.write(unpacked.host.root / "jobs/a/pid", b"1 1 boot node-b\n")
    with pytest.raises(HostError, match="started on 'node-b'"):
        unpacked.runtime.find("a")


@system
def test_a_zombie_has_ended(unpacked):
    """Its parent does not look after it; in a container there may be nobody else who does."""
    child = subprocess.Popen(["true"])
    end = time.monotonic() + 20
    while " Z " not in (stat := Path(f"/proc/{child.pid}/stat").read_text()):
        assert time.monotonic() < end
    start, boot = stat.rpartition(") ")[2].split()[19], Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    words = f"{child.pid} {start} {boot} {os.uname().nodename}\n"
    unpacked.host.write(unpacked.host.root / "jobs/a/pid", words.encode())
    assert unpacked.runtime.find("a") == Found(False, REMOVED)
    child.wait()


@system
def test_steps_whose_supervisor_was_killed_end_before_the_job_starts_again(unpacked):
    shell = "echo $$ >> runs; if [ -e second ]; then touch out; else touch second; sleep 61; fi"
    thread, errors = in_thread(unpacked, shell)
    wait_for(work_of(unpacked) / "second")
    job_id = work_of(unpacked).parent.name
    unpacked.containers()[0].kill()
    thread.join(60)
    assert errors == []
    assert "killed from outside; starts again" in unpacked.lines
    assert processes_of(job_id) == []


@system
def test_a_step_that_leaves_its_session_ends_with_the_job(unpacked):
    job_id = unpacked.run("setsid sleep 62 >/dev/null 2>&1 & touch out")
    assert processes_of(job_id) == []


@system
def test_a_job_outlives_the_group_of_processes_that_started_it(unpacked):
    """sshd ends its session's group; a terminal that is closed does the same."""
    shell = "while [ ! -e go ]; do sleep 0.05; done; touch out"
    thread, errors = in_thread(unpacked, shell)
    work = work_of(unpacked)
    pid = int((work.parent / "pid").read_text().split()[0])
    assert os.getsid(pid) == pid != os.getsid(0)
    (work / "go").touch()
    thread.join(60)
    assert errors == []


@system
def test_a_time_limit_is_told(unpacked, monkeypatch):
    limit = "timeout -k 30 60 "
    script = supervisor_script(Resources(runtime_min=1))
    assert limit in script
    monkeypatch.setattr(
        "biom3d.remote.lifecycle.supervisor_script", lambda _: script.replace(limit, "timeout -k 30 0.3 ")
    )
    with pytest.raises(JobError, match="stopped after 1 min, its time limit"):
        unpacked.run("sleep 60", resources=Resources(runtime_min=1))
    assert unpacked.containers() == []


@system
def test_a_stopped_step_may_save_its_work_first(unpacked):
    shell = "trap 'echo saved > saved; exit 9' TERM; touch ready; while :; do sleep 0.05; done"
    thread, errors = in_thread(unpacked, f'bash -c "{shell}"')
    work = work_of(unpacked)
    wait_for(work / "ready")
    unpacked.stop.set()
    thread.join(60)
    assert "stopped; the same command goes on" in str(errors[0])
    assert (work / "saved").exists()
    assert processes_of(work.parent.name) == []


@system
def test_a_file_that_is_mapped_is_not_the_jobs_own_memory(unpacked):
    (unpacked.folder / "in").write_bytes(bytes(300 << 20))
    code = "import mmap, time; m = mmap.mmap(0, 0, prot=mmap.PROT_READ); sum(m[::4096]); time.sleep(1.5)"
    unpacked.run(f'python3 -c "{code}" < in; touch out', "out", "in")
    assert (unpacked.folder / "out").exists()


@system
def test_the_benchmark_has_the_memory_of_the_jobs_processes(unpacked):
    command = Command(
        "rule", "python3 -c 'import time; x = bytearray(100 << 20); time.sleep(2.5)'; touch out", benchmark="b.tsv"
    )
    unpacked.run("", "out b.tsv", commands=(command,))
    values = dict(zip(*(line.split("\t") for line in unpacked.text("b.tsv").splitlines()), strict=True))
    assert 100 < float(values["max_rss"]) < 400


@system
def test_a_long_log_goes_on_with_the_next_byte(unpacked):
    unpacked.run("seq 200000; printf 'no end of line'; touch out")
    lines = [line for line in unpacked.lines if line.isdigit() or line.startswith("no")]
    assert lines == [*map(str, range(1, 200001)), "no end of line"]


@system
def test_a_log_that_nobody_could_read_in_time_is_shown_from_near_its_end(unpacked, monkeypatch):
    monkeypatch.setattr("biom3d.remote.venv.BEHIND_BYTES", 2**20)
    unpacked.run("seq 1000000; touch out")
    assert "1000000" in unpacked.lines
    assert any(line.endswith("MB of the log are not shown]") for line in unpacked.lines)


# several jobs


@system
def test_jobs_of_both_kinds_are_counted_by_both(unpacked, contained):
    """What a container does is seen in the list of processes; the engine knows nothing of what runs beside it."""
    shell = "while [ ! -e go ]; do sleep 0.05; done; touch out"
    for bench, other in ((unpacked, contained), (contained, unpacked)):
        bench.folder = bench.folder / type(bench).__name__
        bench.folder.mkdir()
        thread, errors = in_thread(bench, shell)
        job = bench.wait_for_container()
        names = [labels[f"{LABEL}.name"] for labels in other.runner.runtime.running()]
        (Path(bench.host.root) / "jobs" / job.labels[LABEL] / "work/go").touch()
        thread.join(60)
        assert (errors, bench.folder.name in names) == ([], True)


def test_what_a_process_says_of_itself_is_read_once_and_nonsense_is_passed_over():
    words = {LABEL: "a" * 24, f"{LABEL}.name": "ü\n'x'", f"{LABEL}.threads": "2", f"{LABEL}.mem_mb": "5"}
    good = f"7 12 {mark(words)}"
    text = "\n".join([good, good, f"7 0 {PREFIX}{{", f"7 x {mark(words)}", f"7 0 {PREFIX}[1]", f"7 0 {PREFIX}{{}}"])
    assert [(found.uid, found.since, found.labels) for found in read_marked(text)] == [("7", 12, words)]


@system
def test_looking_for_jobs_does_not_find_the_look_itself(tmp_path):
    before = {found.labels[LABEL] for found in find_marked(LocalHost(tmp_path))}
    assert all(len(job_id) == 24 for job_id in before)


@system
def test_a_leased_gpu_is_the_one_that_the_job_sees(unpacked, two_gpus):
    unpacked.run("echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER > out", resources=Resources(gpus=2))
    assert unpacked.text() == "0,1 PCI_BUS_ID\n"


@system
def test_a_job_without_a_gpu_sees_none(unpacked):
    unpacked.run('echo "[${CUDA_VISIBLE_DEVICES-unset}]" > out')
    assert unpacked.text() == "[]\n"


@system
def test_a_lease_is_held_as_long_as_the_job_runs(unpacked, two_gpus):
    spec = replace(unpacked.spec("while [ ! -e go ]; do sleep 0.05; done; touch out"), resources=Resources(gpus=1))
    arguments = (spec, unpacked.folder, unpacked.lines.append, unpacked.stop)
    thread = threading.Thread(target=unpacked.runner.run, args=arguments)
    thread.start()
    work = work_of(unpacked)
    until(lambda: gpus.find_free(unpacked.host, ("0", "1")) == ("1",), "the lease")
    (work / "go").touch()
    thread.join(60)
    assert gpus.find_free(unpacked.host, ("0", "1")) == ("0", "1")


# the environment


@system
def test_an_environment_that_is_not_there_is_told_with_how_to_make_it(tmp_path):
    with pytest.raises(HostError, match=r"no environment '/none/env'; make it there: python3 -m venv /none/env"):
        Venv(LocalHost(tmp_path), "/none/env").environment()


def test_a_python_that_does_not_run_is_told():
    with pytest.raises(HostError, match=r"does not run \(bad interpreter\)"):
        read_description(Finished(126, b"2\n1024\n/e\n", b"bad interpreter"), "h", "e")


@system
def test_the_identity_of_a_job_changes_with_the_code_in_the_environment(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    package = next((tmp_path / "env/lib").glob("python3*")) / "site-packages/biom3d"
    package.mkdir()
    ids = set()
    for text in ("x = 1", "x = 2", "x = 2"):
        (package / "__init__.py").write_text(text)
        ids.add(Venv(LocalHost(tmp_path), str(tmp_path / "env")).find_software("").id)
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("image", "environment", "words"),
    [
        ("biom3d-workflow/upstream-0.1.2:a", HERE, "only where there are containers"),
        (
            "biom3d-workflow/cpu:a",
            replace(HERE, ours="0.0.1"),
            f"0.0.1 in .*, and {__version__} here",
        ),
        ("biom3d-workflow/cpu:a", replace(HERE, ours=""), "there is no biom3d-workflow"),
    ],
)
def test_an_image_that_the_environment_cannot_stand_in_for_is_refused(image, environment, words):
    with pytest.raises((ConfigError, HostError), match=words):
        refuse_image(image, environment, "h")


@pytest.mark.parametrize("image", ["biom3d-workflow/cpu:a", "somebody/else:1", "environment"])
def test_other_images_need_nothing(image):
    refuse_image(image, HERE, "h")


@pytest.mark.parametrize(("text", "end"), [("0 -", End(0)), ("137 9", End(137, True)), ("- -", REMOVED), ("", REMOVED)])
def test_an_end_that_was_not_written_down_came_from_outside(text, end):
    assert read_end(text) == end


# keeping and cancelling


@system
@pytest.mark.parametrize(("keep", "left"), [("none", []), ("failed", [""]), ("all", [""])])
def test_the_folder_of_a_failed_job_stays_as_the_profile_says(unpacked, keep, left):
    unpacked.runner = Runner(unpacked.host, unpacked.folder / ".ended", runtime=unpacked.runtime, keep=keep)
    with pytest.raises(JobError):
        unpacked.run("exit 3")
    assert [name[24:] for name in names_in(Path(unpacked.host.root / "jobs"))] == left


@system
def test_a_kept_folder_of_a_good_job_is_only_there_to_be_looked_at(unpacked):
    unpacked.runner = Runner(unpacked.host, unpacked.folder / ".ended", runtime=unpacked.runtime, keep="all")
    for _ in range(2):
        job_id = unpacked.run("echo run >> runs; cp runs out; echo hello")
    assert unpacked.text() == "run\n"
    assert names_in(Path(unpacked.host.root / "jobs")) == [f"{job_id}.kept"]
    assert (Path(unpacked.host.root / "jobs") / f"{job_id}.kept/log").read_text() == "hello\n"
    assert unpacked.runtime.list_jobs() == []


def test_every_line_that_runs_on_a_host_is_valid_shell(tmp_path):
    folder = PurePosixPath("/it's")
    lines = [
        venv_lines.start_job(folder, "a" * 24, folder, mark({LABEL: "it's"}), [("A", "it's")]),
        venv_lines.find_job(folder),
        venv_lines.read_log(folder, "it's", 1, 1),
        venv_lines.stop_job(folder, "a", 1),
        venv_lines.drop_job(folder, "a"),
        venv_lines.print_log(folder, 1),
        venv_lines.list_ended(folder),
        venv_lines.describe("~/it's"),
        venv_lines.link_inputs(folder),
    ]
    for line in lines:
        done = subprocess.run(["sh", "-n", "-c", line], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run(["bash", "-n", "-c", venv_lines.launch_script()]).returncode == 0
