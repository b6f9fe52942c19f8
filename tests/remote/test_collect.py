"""Outputs on their way home from a real SSH server: whole or not at all, and nothing else."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from biom3d.errors import DataError, OutputError, TransferError
from biom3d.remote import commands
from biom3d.remote.listing import read_listing
from tests.remote.server import names_in, run_client, wait_for
from tests.remote.test_staging import MIB, noise, stage, tree

pytestmark = pytest.mark.system  # a real sshd, accounts, name spaces: as root


class Job:
    """A job's folder on the host, and the place for its outputs here."""

    def __init__(self, host, here: Path, account, job: str = "job") -> None:
        self.host, self.here, self.account = host, here, account
        self.folder = host.root / "jobs" / job
        self.work = Path(self.folder) / "work"
        self.lines: list[str] = []
        self.sh("true")

    def sh(self, line: str) -> None:
        """Do on the host what a job does."""
        done = self.host.run(f"mkdir -p {self.work} && cd {self.work} && {line}")
        assert done.code == 0, done.err

    def make(self, name: str, content: bytes) -> None:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.sh("true")
        subprocess.run(["chown", "-R", self.account.name, self.work], check=True)

    def collect(self, *names: str) -> tuple[str, ...]:
        return self.host.collect(self.folder, [(name, self.here / name) for name in names], self.lines.append)


@pytest.fixture
def job(ssh_host, tmp_path, account):
    return Job(ssh_host, tmp_path / "here", account)


def unfinished(folder: Path) -> list[str]:
    return [name for _, folders, names in os.walk(folder) for name in (*folders, *names) if name.startswith(".")]


def test_files_and_folders_come_home(job):
    job.sh("mkdir -p 'out/a b' out/empty logs; echo one >'out/a b/1'; : >out/2; echo three >logs/3")
    assert job.collect("out", "logs/3", "none") == ("none",)
    assert tree(job.here) == tree(job.work)
    assert (job.here / "out/empty").is_dir()
    assert unfinished(job.here) == []


def test_hostile_names_come_home(job):
    names = ["new\nline", "-rf", "$HOME", "a'b\"c", "[x]*", "\\", "\\n", "é🧫", "x" * 200, os.fsdecode(b"\xff")]
    for name in names:
        job.make(f"out/{name}", os.fsencode(name))
    assert job.collect("out", *[f"out/{name}" for name in ()]) == ()
    assert tree(job.here / "out") == tree(job.work / "out")


@pytest.mark.parametrize("name", ["new\nline", "-rf", "a b", "*"])
def test_an_output_may_have_a_hostile_name(job, name):
    job.make(name, b"x")
    job.make("other", b"y")
    assert job.collect(name) == ()
    assert names_in(job.here) == [name]


def test_a_new_result_replaces_the_old_one_whole(job):
    (job.here / "out").mkdir(parents=True)
    (job.here / "out" / "old").write_text("x")
    job.sh("mkdir out; echo new >out/new")
    job.collect("out")
    assert names_in(job.here / "out") == ["new"]


def test_five_thousand_files_come_home(job):
    job.sh("mkdir out; i=0; while [ $i -lt 5000 ]; do echo $i >out/$i; i=$((i+1)); done")
    job.collect("out")
    assert tree(job.here) == tree(job.work)


def test_a_big_file_comes_home(job):
    job.make("big", noise(70 * MIB + 12_345))
    job.make("big mask", bytes(66 * MIB))
    job.collect("big", "big mask")
    assert tree(job.here) == tree(job.work)
    assert unfinished(job.here) == []


def test_what_is_here_already_does_not_come_again(make_host, tmp_path, account, proxy):
    job = Job(make_host(port=proxy.port), tmp_path / "here", account)
    job.make("out/a", noise(4 * MIB))
    job.make("out/b", noise(1000))
    job.collect("out")
    before = proxy.down
    job.make("out/b", noise(1000, 1))
    job.collect("out")
    assert tree(job.here / "out") == tree(job.work / "out")
    assert proxy.down - before < MIB


def test_an_output_is_not_sent_when_the_next_job_reads_it(make_host, tmp_path, account, proxy):
    host = make_host(port=proxy.port)
    job = Job(host, tmp_path / "here", account)
    job.make("out/a", noise(4 * MIB))
    job.collect("out")
    host.remove(job.folder)
    before = proxy.up
    folder, _ = stage(host, job.here / "out", job="next")
    assert tree(Path(folder) / "work" / "data") == tree(job.here / "out")
    assert proxy.up - before < 20_000


def test_logs_that_were_brought_can_still_be_written_by_the_job(job):
    job.sh("echo one >log")
    job.collect("log")
    job.sh("echo two >>log")
    job.collect("log")
    assert (job.here / "log").read_text() == "one\ntwo\n"


def test_removing_twice_is_fine(job):
    job.host.remove(job.folder)
    job.host.remove(job.folder)
    assert not job.work.exists()


def test_a_cut_line_is_made_again_and_all_comes_home(make_host, tmp_path, account, proxy):
    job = Job(make_host(port=proxy.port), tmp_path / "here", account)
    for number in range(40):
        job.make(f"out/{number}", noise(MIB // 2, number))
    proxy.cut_down_at = proxy.down + 10 * MIB
    before = proxy.down
    job.collect("out")
    assert tree(job.here) == tree(job.work)
    assert proxy.cuts == 1
    assert proxy.down - before < 1.3 * 20 * MIB


def test_a_big_file_goes_on_after_a_cut_where_it_was(make_host, tmp_path, account, proxy):
    job = Job(make_host(port=proxy.port, parallel=2), tmp_path / "here", account)
    job.make("big", noise(128 * MIB))
    proxy.cut_down_at = proxy.down + 64 * MIB
    before = proxy.down
    job.collect("big")
    assert tree(job.here) == tree(job.work)
    assert proxy.down - before < 1.2 * 128 * MIB


def test_a_killed_client_goes_on_where_it_was(make_host, client, tmp_path, account, proxy):
    host = make_host(port=proxy.port)
    job = Job(host, tmp_path / "here", account)
    job.make("big", noise(200 * MIB))
    outputs = [("big", job.here / "big")]
    process = run_client(client, "collect", job.folder, outputs, port=proxy.port, workdir=host.settings.workdir)
    wait_for(lambda: proxy.down > 100 * MIB, "half of it")
    process.kill()
    process.wait()
    assert not (job.here / "big").exists()
    job.collect("big")
    assert tree(job.here) == tree(job.work)
    assert proxy.down < 240 * MIB
    assert unfinished(job.here) == []


def test_links_are_refused_and_nothing_is_written(job):
    job.sh("mkdir out; ln -s /etc/passwd out/a")
    with pytest.raises(TransferError, match=r"output 'out/a' is a symbolic link"):
        job.collect("out")
    assert not job.here.exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "out/../../x", ""])
def test_an_output_outside_of_the_working_folder_is_refused(job, name):
    with pytest.raises(DataError, match="outside of the working folder"):
        job.host.collect(job.folder, [(name, job.here / "x")], print)


@pytest.mark.parametrize(
    "record",
    [
        b"f 1 ./../x",
        b"f 1 /etc/x",
        b"f 1 ./out/../../x",
        b"f 1 ./other",
        b"f 1 ./out//x",
        b"f 1 ./outside",
        b"f 1 ./out/./x",
    ],
)
def test_a_host_that_names_other_files_is_refused(record):
    with pytest.raises(TransferError, match="outside of the outputs"):
        read_listing(b"d 0 ./out\0" + record + b"\0", ["out"])


@pytest.mark.parametrize("record", [b"l 1 ./out/x", b"p 1 ./out/x", b"f -1 ./out/x", b"f 1e9 ./out/x", b"c 0 ./out/x"])
def test_a_host_that_names_what_is_no_file_is_refused(record):
    with pytest.raises(TransferError, match="plain file"):
        read_listing(record + b"\0", ["out"])


@pytest.mark.parametrize("lie", ["; head -c 99 /dev/zero", "| head -c 5", "| tr a b", "; printf lie"])
def test_a_host_that_sends_more_or_other_than_it_announced_is_refused(job, monkeypatch, lie):
    real = commands.send_files
    monkeypatch.setattr(commands, "send_files", lambda work, *_: real(work, False) + lie)
    job.sh("mkdir out; echo aaaaaaaaaa >out/a")
    with pytest.raises(TransferError):
        job.collect("out")
    assert list(job.here.iterdir()) == []


def test_a_stream_that_unpacks_to_more_than_announced_is_refused(job, monkeypatch):
    bomb = "head -c 3000000000 /dev/zero | zstd -1cq"
    monkeypatch.setattr(commands, "send_files", lambda work, *_: bomb)
    job.make("out", bytes(2 * MIB))
    with pytest.raises(TransferError, match="more than it announced"):
        job.collect("out")


def test_a_place_that_cannot_be_written_is_told(job):
    job.sh("echo x >out")
    job.here.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"not a folder|is a file"):
        job.collect("out")


def test_a_file_of_another_account_that_cannot_be_read_is_told(job):
    job.make("out", b"x")
    os.chown(job.work / "out", 0, 0)
    (job.work / "out").chmod(0o600)
    with pytest.raises(Exception, match="output 'out' cannot be read there"):
        job.collect("out")


def test_two_collections_at_once_do_not_disturb_each_other(make_host, tmp_path, account):
    host = make_host()
    jobs = [Job(host, tmp_path / f"here{number}", account, f"job{number}") for number in range(3)]
    for number, job in enumerate(jobs):
        job.make("out/a", noise(5 * MIB, number))
    threads = [threading.Thread(target=job.collect, args=("out",)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tree(job.here) for job in jobs] == [tree(job.work) for job in jobs]
