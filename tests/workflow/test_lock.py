"""The lock of a project: who has it, who may take it, and what a second person reads."""

import json
import os
import socket
import subprocess
import sys

import pytest
from biom3d_workflow import lock


@pytest.fixture
def held_by(tmp_path):
    """Write a holder into the lock's file, as if it had been left."""

    def write(**facts):
        holder = {"user": "ann", "host": socket.gethostname(), "pid": 1, "started": "0", "since": "2026-11-30 09:00:00"}
        (tmp_path / ".biom3d").mkdir()
        (tmp_path / lock.FILE).write_text(json.dumps(holder | facts))

    return write


def hold_elsewhere(folder):
    """Hold the lock in another process until its input ends."""
    code = f"import sys; sys.path[:] = {sys.path}\nfrom pathlib import Path\nfrom biom3d_workflow import lock\n"
    code += f"file = lock.hold(Path({str(folder)!r}))\nprint(flush=True)\nsys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    return other


def test_a_second_one_reads_who_has_it_and_takes_it_when_that_one_was_killed(tmp_path):
    other = hold_elsewhere(tmp_path)
    with pytest.raises(lock.HeldError, match=rf"on {socket.gethostname()} \(process {other.pid}\) since 20.*kill -INT"):
        lock.hold(tmp_path)
    assert f"process {other.pid}" in lock.holder_text(tmp_path)
    other.kill()
    other.communicate()
    assert lock.holder_text(tmp_path) == ""
    lock.let_go(lock.hold(tmp_path))
    assert (tmp_path / lock.FILE).read_text() == ""


def test_a_holder_of_the_same_machine_that_left_its_name_is_dead(tmp_path, held_by):
    held_by(pid=os.getpid())
    assert lock.holder_text(tmp_path) == ""
    lock.let_go(lock.hold(tmp_path))


@pytest.mark.parametrize(("kind", "is_free"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False)])
def test_a_holder_of_another_machine_may_live_where_that_sees_the_file_too(
    tmp_path, held_by, monkeypatch, kind, is_free
):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 8:1 / / rw - overlay x rw\n2 1 8:2 / {tmp_path} rw shared:1 - {kind} server:/x rw\n")
    monkeypatch.setattr(lock, "MOUNTS", mounts)
    held_by(host="gpu7")
    assert (lock.holder_text(tmp_path) == "") == is_free
    if is_free:
        lock.let_go(lock.hold(tmp_path))
    else:
        with pytest.raises(lock.HeldError, match=r"if gpu7 has crashed .* remove .*lock and run"):
            lock.hold(tmp_path)
        assert "ann" in (tmp_path / lock.FILE).read_text()


@pytest.mark.parametrize(("started", "is_free"), [("0", True), (lock._started(os.getpid()), False)])
def test_where_the_file_system_has_no_locks_the_process_counts(tmp_path, held_by, monkeypatch, started, is_free):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    held_by(pid=os.getpid(), started=started)
    assert (lock.holder_text(tmp_path) == "") == is_free
    if not is_free:
        with pytest.raises(lock.HeldError):
            lock.hold(tmp_path)


def test_a_file_that_nobody_wrote_so_is_no_holder(tmp_path):
    (tmp_path / ".biom3d").mkdir()
    (tmp_path / lock.FILE).write_text('{"user": 1}')
    lock.let_go(lock.hold(tmp_path))
