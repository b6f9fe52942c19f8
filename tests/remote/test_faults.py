"""What goes wrong between a client and its host, on a real sshd and a real engine: nothing lost, nothing run twice.

Every job writes a line into `runs` in its folder when it begins; `runs` comes back with the results.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker.errors
import pytest

from biom3d.errors import Biom3dError, JobError, TransferError
from biom3d.remote.job import Resources
from biom3d.remote.lifecycle import Runner
from biom3d.remote.ssh import SSHHost
from tests.docker_engine import running_dockerd
from tests.leftovers import make_folder
from tests.remote.conftest import Client
from tests.remote.interrupted import interrupt_each_member
from tests.remote.server import Account, Server, end_sessions, names_in, wait_for
from tests.remote.test_gpus import copy_image, socket_of
from tests.remote.test_lifecycle import Bench
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]
pytestmark = pytest.mark.system
MB = 2**20
COUNTED = "echo run >> runs; "
TWICE = "if [ -e second ]; then touch out; else touch second; sleep 60; fi"
WAITING = COUNTED + "while [ ! -e go ]; do sleep 0.02; done; echo done > out"


class Far(Bench):
    """A working folder here, and a host reached by SSH as an unprivileged account."""

    def __init__(self, folder: Path, image: str, host: SSHHost) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.image, self.host = folder, image, host
        self.runner = Runner(host, folder / ".ended")
        self.lines: list[str] = []
        self.stop = threading.Event()
        self.errors: list[Biom3dError] = []

    def begin(self, shell: str, *args: str, **changes: object) -> threading.Thread:
        """Run a job in a thread of its own; what it fails with is kept."""

        def work() -> None:
            try:
                self.run(shell, *args, **changes)
            except Biom3dError as error:
                self.errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def follows(self, shell: str) -> threading.Thread:
        """Begin a job, and wait until its log is followed: questions before that are asked again without a word."""
        thread = self.begin(f"echo begun; {shell}", "out runs")
        wait_for(lambda: self.said("begun"), "its log")
        return thread

    def end(self, thread: threading.Thread) -> None:
        thread.join(60)
        assert not thread.is_alive()
        assert self.errors == []

    def far(self, name: str) -> Path:
        """The path of something in our folder on the host, which is this machine."""
        return Path(self.host.root) / name

    def work(self) -> Path:
        """The folder in which the only job works."""
        wait_for(lambda: names_in(self.far("jobs")) and self.containers(), "a job")
        return self.far("jobs") / names_in(self.far("jobs"))[0] / "work"

    def appears(self, name: str) -> Path:
        path = self.work() / name
        wait_for(path.exists, f"{path}")
        return path

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def assert_clean(self) -> None:
        """Nothing of ours is left on the host but the store, and nothing unfinished here."""
        assert self.containers() == []
        wait_for(lambda: names_in(self.far("tmp")) == [], "an empty folder for transfers")
        assert names_in(self.far("jobs")) == []
        assert [path for path in self.folder.rglob(".tmp-*") if not path.name.endswith(".lock")] == []

    def close(self) -> None:
        self.stop.set()
        for container in self.containers():
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True)


@pytest.fixture
def make_far(tmp_path, base_image, with_engine, make_host) -> Iterator:
    made: list[Far] = []

    def make(name: str = "", **settings: object) -> Far:
        folder = tmp_path / (name or f"far-{tmp_path.name}")
        made.append(Far(folder, base_image, make_host(**settings)))
        return made[-1]

    yield make
    for far in made:
        with contextlib.suppress(Biom3dError, OSError, docker.errors.DockerException):  # its engine may be gone
            far.close()


@pytest.fixture
def far(make_far) -> Far:
    return make_far()


def write_random(path: Path, size: int, seed: int = 1) -> str:
    """Write bytes that do not compress; return their hash."""
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_group_interrupted_in_every_member_goes_on_and_runs_none_twice(far):
    interrupt_each_member(far)
    far.assert_clean()


# the line


def test_a_line_cut_while_inputs_are_sent_costs_only_what_was_under_way(make_far, proxy):
    far = make_far(port=proxy.port)
    digest = write_random(far.folder / "in", 12 * MB)
    proxy.cut_up_at = 6 * MB
    far.run(COUNTED + "cp in out", "out runs", "in")
    assert (proxy.cuts, hash_of(far.folder / "out"), far.text("runs")) == (1, digest, "run\n")
    far.assert_clean()


def test_a_line_cut_while_a_big_input_is_sent_goes_on_where_it_was(make_far, proxy):
    far = make_far(port=proxy.port)
    digest = write_random(far.folder / "in", 72 * MB)
    proxy.cut_up_at = 50 * MB
    far.run(COUNTED + "cp in out", "runs", "in")
    assert (proxy.cuts, far.text("runs")) == (1, "run\n")
    assert proxy.up < 110 * MB
    assert hash_of(far.far(f"store/{digest[:2]}/{digest}")) == digest
    far.assert_clean()


def test_a_line_cut_while_the_job_runs_does_not_touch_it(make_far, proxy):
    far = make_far(port=proxy.port)
    thread = far.follows(WAITING)
    proxy.cut()
    wait_for(lambda: far.said("connection lost"), "a word about it")
    (far.work() / "go").touch()
    far.end(thread)
    assert (far.text(), far.text("runs")) == ("done\n", "run\n")
    assert far.said("runs already; going on with it") or far.said("has ended meanwhile")
    far.assert_clean()


def test_a_line_that_stalls_is_given_up_and_made_again(make_far, proxy):
    far = make_far(port=proxy.port, silence_s=1.0, keepalive_s=0.5)
    thread = far.follows(WAITING)
    proxy.stall()
    wait_for(lambda: far.said("connection lost"), "a word about it")
    proxy.cut()  # what was stalled is gone; new connections pass
    (far.work() / "go").touch()
    far.end(thread)
    assert far.text("runs") == "run\n"
    far.assert_clean()


def test_a_line_cut_while_results_come_back_loses_none(make_far, proxy):
    far = make_far(port=proxy.port)
    proxy.cut_down_at = 6 * MB
    far.run(COUNTED + "head -c 12000000 /dev/urandom > out; sha256sum < out > sum", "out sum runs")
    assert (proxy.cuts, far.text("runs"), far.text("sum")[:64]) == (1, "run\n", hash_of(far.folder / "out"))
    far.assert_clean()


def test_a_stop_over_a_lost_line_is_tried_again_until_the_container_has_ended(make_far, proxy):
    far = make_far(port=proxy.port)
    thread = far.begin(WAITING, "out runs")
    far.appears("runs")
    proxy.cut()
    far.stop.set()
    thread.join(60)
    assert "stopped; the same command goes on" in str(far.errors.pop())
    assert far.containers() == []


def test_an_sshd_that_is_restarted_is_found_again(tmp_path, base_image, account, key, with_engine):
    server = Server(tmp_path / "sshd")
    folder = tmp_path / "client"
    folder.mkdir()
    shutil.copy(key, folder / "key")
    far = Far(tmp_path / "sshd-restarts", base_image, SSHHost(Client(folder, server, account).settings(), None))
    thread = far.follows(WAITING)
    end_sessions(server)
    server.stop()
    server.start()
    wait_for(lambda: far.said("connection lost"), "a word about it")
    (far.work() / "go").touch()
    far.end(thread)
    assert far.text("runs") == "run\n"
    far.assert_clean()
    far.host.close()
    server.stop()


# the client

KILLS = 20
LIFE_S = 1.6  # of the job below, from the first byte to the last


def run_as_client(settings, folder: Path, image: str, shell: str, outputs: str) -> None:
    """What a client does; it gets killed."""
    far = Far(folder, image, SSHHost(settings, None, cache=folder / "hashes.sqlite"))
    far.run(shell, outputs, "in")


@pytest.fixture(scope="session")
def clients():
    """Starts processes that have loaded everything already, so that what is killed is at work, not at loading."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "paramiko", "docker"])
    return context


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_client_killed_at_any_moment_costs_nothing(far, clients, kill):
    """From connecting to collecting: the results are those of one undisturbed run."""
    digest = write_random(far.folder / "in", 8 * MB, kill)
    shell, outputs = COUNTED + "sleep 0.2; cp in out", "out runs"
    client = clients.Process(target=run_as_client, args=(far.host.settings, far.folder, far.image, shell, outputs))
    client.start()
    client.join((kill + random.Random(kill).random()) * LIFE_S / KILLS)  # the moment, not a wait for something
    client.kill()
    client.join()
    far.runner = Runner(far.host, far.folder / ".ended")
    far.run(shell, outputs, "in", was_cut_short=True)
    assert (hash_of(far.folder / "out"), far.text("runs")) == (digest, "run\n")
    far.assert_clean()


def test_two_clients_with_the_same_job_in_one_folder_of_the_host_run_it_once(make_far):
    one, two = (make_far(name, workdir="shared") for name in ("one", "two"))
    threads = [one.begin(WAITING, "out runs")]
    work = one.appears("runs").parent
    threads.append(two.begin(WAITING, "out runs"))
    wait_for(lambda: two.said("runs already"), "the second client at it")
    (work / "go").touch()
    for far, thread in zip((one, two), threads, strict=True):
        far.end(thread)
    assert [far.text("runs") for far in (one, two)] == ["run\n", "run\n"]
    one.assert_clean()


def test_two_clients_that_start_the_same_job_at_once_run_it_once(make_far):
    one, two = (make_far(name, workdir="shared-too") for name in ("one", "two"))
    write_random(one.folder / "in", MB)
    shutil.copy(one.folder / "in", two.folder / "in")
    shell = COUNTED + "sleep 0.5; cp in out"
    threads = [far.begin(shell, "out runs", "in") for far in (one, two)]
    for far, thread in zip((one, two), threads, strict=True):
        far.end(thread)
    assert [far.text("runs") for far in (one, two)] == ["run\n", "run\n"]
    one.assert_clean()


def test_the_same_job_of_two_accounts_runs_for_each(far, tmp_path, server, key, base_image):
    with another_account(key) as other:
        folder = tmp_path / "other-client"
        folder.mkdir()
        shutil.copy(key, folder / "key")
        theirs = Far(tmp_path / "theirs", base_image, SSHHost(Client(folder, server, other).settings(), None))
        threads = [(one, one.begin(WAITING, "out runs")) for one in (far, theirs)]
        for one, _ in threads:
            (one.appears("runs").parent / "go").touch()
        for one, thread in threads:
            one.end(thread)
            assert one.text("runs") == "run\n"
            one.assert_clean()
        theirs.host.close()


@contextlib.contextmanager
def another_account(key: Path) -> Iterator[Account]:
    account = Account()
    account.trust(key)
    subprocess.run(["usermod", "-aG", Path("/var/run/docker.sock").group(), account.name], check=True)
    yield account
    account.remove()


# the container and its engine


def test_a_container_killed_by_hand_starts_again(far):
    thread = far.begin(TWICE)
    far.appears("second")
    far.wait_for_container().kill()
    far.end(thread)
    assert far.said("killed from outside; starts again")
    far.assert_clean()


def test_a_container_out_of_memory_is_told_and_goes_on_with_more(far):
    shell = COUNTED + "python3 -c 'x = bytearray(300 << 20)'; echo done > out"
    with pytest.raises(JobError, match=r"out of memory: it may use 200 MB.*mem_mb=400"):
        far.run(shell, "out runs")
    assert far.containers() == []
    far.run(shell, "out runs", resources=Resources(mem_mb=600))
    assert far.text("runs") == "run\nrun\n"  # the first had not succeeded
    far.assert_clean()


@pytest.fixture
def socket(account) -> Iterator[Path]:
    """Where an engine of our own is found; not below pytest's folder, which each pytest that starts closes again."""
    folder = make_folder("socket")
    folder.chmod(0o755)
    yield folder / "socket"
    shutil.rmtree(folder)


def test_an_engine_that_is_restarted_is_found_again(make_far, tmp_path, docker_client, base_image, account, socket):
    data = tmp_path / "images"
    far = make_far(engine_socket=str(socket))
    with engine_at(socket, tmp_path / "one", data, account) as client:
        copy_image(base_image, docker_client, client)
        thread = far.begin(COUNTED + TWICE, "out runs")
        path = far.far("jobs")
        wait_for(lambda: any(path.glob("*/work/second")), "the job at work")
    with engine_at(socket, tmp_path / "two", data, account):
        far.end(thread)
        assert far.text("runs") == "run\nrun\n"  # the first had not succeeded
        far.assert_clean()


def test_after_a_power_cut_of_the_host_the_job_starts_again(
    make_far, tmp_path, docker_client, base_image, account, socket
):
    data = tmp_path / "images"
    far = make_far(engine_socket=str(socket))
    with engine_at(socket, tmp_path / "one", data, account) as client:
        copy_image(base_image, docker_client, client)
        thread = far.begin(COUNTED + TWICE, "out runs")
        wait_for(lambda: any(far.far("jobs").glob("*/work/second")), "the job at work")
        cut_power(Path(socket_of(client)).parent, data)
    with engine_at(socket, tmp_path / "two", data, account):
        far.end(thread)
        assert far.text("runs") == "run\nrun\n"
        far.assert_clean()


def cut_power(engine_folder: Path, data: Path) -> None:
    """Kill an engine and all that it has started, at once; what it had mounted is gone, too."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    doomed: set[int] = set()
    for pid in parents:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            doomed |= {pid} if str(engine_folder).encode() in words else set()
    while more := {pid for pid, parent in parents.items() if parent in doomed} - doomed:
        doomed |= more
    for pid in doomed - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in (place for place in reversed(mounted) if place.startswith((str(data), str(engine_folder)))):
        subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def engine_at(socket: Path, folder: Path, data: Path, account: Account) -> Iterator:
    """An engine of our own at a path that stays the same, open to the account."""
    with running_dockerd(folder, beside=True, data=data) as client:
        real = Path(socket_of(client))
        real.parent.chmod(0o755)
        shutil.chown(real, account.name)
        socket.unlink(missing_ok=True)
        socket.symlink_to(real)
        yield client


def test_a_missing_output_is_an_error_though_the_job_ended_well(far):
    with pytest.raises(JobError, match="ended well but did not make 'out'"):
        far.run("true")
    far.assert_clean()


def test_a_log_in_no_known_encoding_is_shown_and_comes_back_as_it_was(far):
    far.run(r"printf '\377\376 bad\n' | tee out")
    assert (far.folder / "out").read_bytes() == b"\xff\xfe bad\n"
    assert far.said("\ufffd\ufffd bad")
    far.assert_clean()


# the disk and the files


@pytest.fixture
def small_disk(account):
    """A disk of 24 MB on the host, and how to make it larger."""
    folder = account.home / "small"
    folder.mkdir()
    uid = folder.parent.stat().st_uid
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=24m,uid={uid},mode=700", "tmpfs", folder], check=True)
    yield lambda: subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def test_a_disk_that_fills_up_while_inputs_are_sent_is_told_and_then_it_goes_on(make_far, small_disk):
    far = make_far(workdir="small")
    digest = write_random(far.folder / "in", 40 * MB)
    with pytest.raises(TransferError, match=r"the disk there is full .*; free some space"):
        far.run(COUNTED + "sha256sum < in > out", "out runs", "in")
    wait_for(lambda: names_in(far.far("tmp")) == [], "an empty folder for transfers")
    small_disk()
    far.run(COUNTED + "sha256sum < in > out", "out runs", "in")
    assert (far.text()[:64], far.text("runs")) == (digest, "run\n")
    far.assert_clean()


def test_a_disk_that_fills_up_while_the_job_runs_is_told_and_then_it_goes_on(make_far, small_disk):
    far = make_far(workdir="small")
    shell = COUNTED + "head -c 40000000 /dev/zero > out"
    told = r"(?s)the disk that is full is that of server \(.*/\.biom3d\).*No space left on device"
    with pytest.raises(JobError, match=told):
        far.run(shell, "out runs")
    assert far.containers() == []
    small_disk()
    far.run(shell, "out runs")
    assert ((far.folder / "out").stat().st_size, far.text("runs")) == (40000000, "run\nrun\n")
    far.assert_clean()


@pytest.mark.parametrize("is_hidden", [False, True], ids=["its time shows it", "only its content shows it"])
def test_a_file_damaged_on_the_host_is_sent_again(make_far, is_hidden):
    far = make_far(check_store=is_hidden)
    digest = write_random(far.folder / "in", MB)
    far.run("true; sha256sum < in > out", "out", "in")
    damage(far.far(f"store/{digest[:2]}/{digest}"), is_hidden)
    far.run("sha256sum < in > out", "out", "in")
    assert far.text()[:64] == digest
    far.assert_clean()


def test_a_job_that_fails_on_a_damaged_copy_says_so_and_the_same_command_mends_it(far):
    digest = write_random(far.folder / "in", MB)
    shell = f"sha256sum < in | grep -q {digest} && touch out"
    far.run("cp in out", "out", "in")  # brings it there
    (far.folder / "out").unlink()
    damage(far.far(f"store/{digest[:2]}/{digest}"), is_hidden=True)
    with pytest.raises(JobError, match="'in' was damaged on the host after it was sent, and is whole here"):
        far.run(shell, "out", "in")
    far.run(shell, "out", "in")
    assert (far.folder / "out").exists()
    far.assert_clean()


def damage(path: Path, is_hidden: bool) -> None:
    facts, data = path.stat(), bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    if is_hidden:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_a_file_changed_while_it_is_sent_is_told_and_the_next_run_sends_the_new_one(make_far, proxy):
    far = make_far(port=proxy.port, bandwidth_mb_s=4.0)
    write_random(far.folder / "in", 8 * MB)
    thread = far.begin(COUNTED + "sha256sum < in > out", "out runs", "in")
    wait_for(lambda: proxy.up > 2 * MB, "the transfer")
    digest = write_random(far.folder / "in", 8 * MB, seed=2)
    thread.join(60)
    assert "changed" in str(far.errors.pop())
    far.run(COUNTED + "sha256sum < in > out", "out runs", "in")
    assert (far.text()[:64], far.text("runs")) == (digest, "run\n")
    far.assert_clean()


NAMES = ["a b", "it's", 'say "x"', "$HOME", "[1]*?", "-rf", "ü ﷽", "new\nline", ".hidden", "a:b", "back\\slash"]


def test_files_with_hostile_names_come_and_go(far):
    for name in NAMES:
        (far.folder / name).write_text(name)
    shell = 'mkdir -p made; for f in * .hidden; do [ -f "./$f" ] && cp -- "$f" "made/$f"; done; true'
    inputs = tuple((name, far.folder / name) for name in NAMES)
    outputs = tuple(f"made/{name}" for name in NAMES)
    far.runner.run(replace(far.spec(shell), inputs=inputs, outputs=outputs), far.folder, far.lines.append, far.stop)
    assert {path.name: path.read_text() for path in (far.folder / "made").iterdir()} == {name: name for name in NAMES}
    far.assert_clean()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_hours_off_changes_nothing(far, hours):
    (far.folder / "in").write_text("hello")
    os.utime(far.folder / "in", (time.time() + 3600 * hours,) * 2)
    far.run(f"cp in out; touch -d '{hours} hours' out", "out", "in")
    assert far.text() == "hello"
    assert abs((far.folder / "out").stat().st_mtime - time.time()) < 60
    far.assert_clean()


# a log of 2 GB

LINES, WIDTH = 2_000_000, 1000
KEPT = 50_000  # lines at least of a file of 64 MB, of which the engine keeps two; it drops what nobody reads in time


def follow_long_log(settings, folder: Path, image: str, report) -> None:
    """Count lines and memory, as a client of its own."""
    far = Far(folder, image, SSHHost(settings, None))
    lines = deque(maxlen=1)
    count = itertools.count()

    def say(line: str) -> None:
        if line.startswith("xxxx") or line == "the end":
            next(count)
            lines.append(line)

    shell = f"(yes $(printf 'x%.0s' $(seq {WIDTH - 1})) || true) | head -n {LINES}; echo the end | tee out"
    far.runner.run(far.spec(shell), folder, say, far.stop)
    report.send((next(count), lines.pop(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def test_a_log_of_2_gb_is_followed_in_little_memory(far, clients):
    ours, theirs = clients.Pipe()
    client = clients.Process(target=follow_long_log, args=(far.host.settings, far.folder, far.image, theirs))
    client.start()
    theirs.close()
    count, last, peak_kb = ours.recv()
    client.join(60)
    assert (last, count > KEPT) == ("the end", True)
    assert peak_kb < 200 * 1024
    far.assert_clean()
