"""How far a job is, read from the events of its steps: as they are written, whatever is in them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.remote.local import LocalHost
from biom3d.remote.runtime import Seen
from biom3d.remote.watch import describe, find_progress, print_events

ID, OTHER = "a" * 24, "b" * 24
JOB = Seen(ID, "train m", "running", "2026-01-02T03:04:05Z", "2", "0", (), "you", True, True)


@pytest.fixture
def host(tmp_path):
    return LocalHost(tmp_path / ".biom3d")


def events_of(host, job: str = ID, name: str = "train/m/fold_0.jsonl") -> Path:
    path = Path(host.root) / "jobs" / job / "work/logs/steps" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_epoch(path: Path, epoch: int) -> None:
    report = Reporter("train", path)
    report.event("epoch", epoch=epoch, of=14, loss=0.5, eta_s=65.4)
    report.event("warning", message="slow")
    report.close()


def test_the_last_epoch_is_told_with_the_time_left(host):
    for epoch in (4, 5):
        write_epoch(events_of(host), epoch)
    assert find_progress(host, [JOB]) == {ID: "train: epoch 5 of 14, 1:05 left"}


def test_the_step_at_work_is_the_one_that_wrote_last(host):
    write_epoch(events_of(host), 14)
    later = events_of(host, name="predict/m/d.jsonl")
    later.write_text('{"step": "pred", "event": "image", "index": 2, "of": 7}\n')
    os.utime(events_of(host), (1, 1))
    assert find_progress(host, [JOB]) == {ID: "pred: image 2 of 7"}


def test_events_that_came_with_the_inputs_say_nothing_of_the_job(host, tmp_path):
    write_epoch(events_of(host), 5)
    (tmp_path / "store").hardlink_to(events_of(host))
    assert find_progress(host, [JOB]) == {}


def test_only_our_jobs_that_run_are_asked_for(host):
    write_epoch(events_of(host), 5)
    write_epoch(events_of(host, OTHER), 5)
    jobs = [replace(JOB, state="exit 1"), replace(JOB, id=OTHER, is_ours=False, is_mine=False)]
    assert find_progress(host, jobs) == find_progress(host, []) == {}


@pytest.mark.parametrize("text", ["", "no JSON\n", "[1]\n", '{"step": 1', "\x00\xff\n", '"epoch"\n'])
def test_what_is_no_event_is_passed_over(host, text):
    events_of(host).write_text(text)
    assert find_progress(host, [JOB]) == {}


def test_what_a_job_writes_cannot_command_the_terminal():
    event = {"step": "\x1b[2J", "event": "epoch", "epoch": 1, "of": 2, "eta_s": 10**400}
    assert describe([event]) == "?[2J: epoch 1 of 2"


def test_events_are_printed_as_they_are(host):
    write_epoch(events_of(host), 5)
    lines: list[str] = []
    print_events(host, JOB, False, lines.append, lambda: True)
    assert lines == events_of(host).read_text().splitlines()


def test_a_job_without_events_is_told(host):
    with pytest.raises(DataError, match="no step of job 'train m' writes events there"):
        print_events(host, JOB, False, print, lambda: True)


def test_followed_each_event_comes_once_and_whole_also_of_the_next_step(host, monkeypatch):
    monkeypatch.setattr("biom3d.remote.watch.POLL_S", 0.0)
    path, later = events_of(host), events_of(host, name="train/m/fold_1.jsonl")

    def grow():
        yield from (path.write_text('{"a": 1}\n{"b'), path.open("a").write('": 2}\n'))
        later.write_text('{"c": 3}\n')
        os.utime(path, (1, 1))
        yield True
        with later.open("a") as file:
            file.write('{"d": 4}\n')
        yield False

    lines: list[str] = []
    looks = grow()
    print_events(host, JOB, True, lines.append, lambda: bool(next(looks)))
    assert lines == ['{"a": 1}', '{"b": 2}', '{"c": 3}', '{"d": 4}']
