"""What people are billed for: sums of the gate's notes."""

import json

import pytest

from biom3d.errors import ConfigError, DataError
from biom3d.server.__main__ import main
from biom3d.server.report import report_month, report_text, sum_up


def note(what: str = "job", who: str = "anna", **more: object) -> dict:
    return {"t": "2026-11-03T10:00:00Z", "who": who, "verdict": "ok", "what": what, "job": "1"} | more


def job(**more: object) -> dict:
    return note(**{"seconds": 3600, "threads": "4", "gpus": ["0", "1"], "exit": 0} | more)


def test_hours_are_summed_for_each_person():
    table = report_text(sum_up([job(), job(who="bob", seconds=1800, exit=1, gpus=[]), job()]))
    assert table.splitlines()[1:] == ["anna\t2\t0\t0\t2.00\t8.00\t4.00\t0", "bob\t1\t1\t0\t0.50\t2.00\t0.00\t0"]


def test_a_job_that_was_started_and_not_removed_is_open():
    (anna,) = sum_up([note("start"), note("start", job="2"), job()])
    assert (anna.jobs, anna.open) == (1, 1)


def test_refusals_are_counted_and_cost_nothing():
    (anna,) = sum_up([note("create", verdict="refused"), job(verdict="refused")])
    assert (anna.refused, anna.jobs, anna.seconds) == (2, 0, 0.0)


@pytest.mark.parametrize("value", ["x", "-1", None, "nan", "inf", [], "1e300"])
def test_numbers_that_are_none_cost_nothing(value):
    (anna,) = sum_up([job(seconds=value)])
    assert anna.seconds == 0.0


def test_only_the_month_counts_and_broken_lines_are_passed_over(tmp_path):
    lines = [job(), job(t="2026-12-01T00:00:00Z"), job(t="2026-10-31T23:59:59Z")]
    (tmp_path / "log").write_text('{"t": "2026-11\n[]\n' + "".join(json.dumps(line) + "\n" for line in lines))
    assert [usage.jobs for usage in report_month([tmp_path / "log"], "2026-11")] == [1]


@pytest.mark.parametrize("month", ["2026", "2026-13", "11-2026", "2026-1", ""])
def test_a_month_that_is_none_is_told(month):
    with pytest.raises(ConfigError, match="2026-11"):
        report_month([], month)


def test_a_log_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot read the log"):
        report_month([tmp_path / "none"], "2026-11")


def test_the_command_reads_the_log_of_the_gate_that_the_account_has(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("biom3d.server.people.account_home", lambda: tmp_path)
    (tmp_path / ".biom3d-gate.json").write_text('{"log": "~/gate.log"}')
    (tmp_path / "gate.log").write_text(json.dumps(job()) + "\n")
    assert main(["report", "--month", "2026-11"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "anna\t1\t0\t0\t1.00\t4.00\t2.00\t0"


def test_the_command_says_that_there_is_no_log(tmp_path, capfd):
    assert main(["report", "--log", str(tmp_path / "none")]) == 2
    assert "cannot read the log" in capfd.readouterr().err
