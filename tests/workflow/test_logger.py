"""What a run prints: Snakemake's own tests of a logger plugin, ours of each line, and a real run with a profile."""

import logging
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase
from snakemake_logger_plugin_biom3d import LogHandler, LogHandlerSettings
from snakemake_logger_plugin_biom3d.lines import Teller

from tests.workflow.conftest import ROOT, run_snakemake, write_request

LOCAL = ["--workflow-profile", str(ROOT / "profiles/local"), "--cores", "2"]


class TestHandler(TestLogHandlerBase):
    __test__ = True

    def get_log_handler_cls(self) -> type[LogHandler]:
        return LogHandler

    def get_log_handler_settings(self) -> LogHandlerSettings:
        return LogHandlerSettings()


def event(kind: LogEvent | None, msg: Any = None, level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("snakemake", level, "", 0, msg, (), None)
    record.event = kind
    record.__dict__.update(fields)
    return record


def start(number: int = 1, rule: str = "check", message: str = "check A", **fields: Any) -> logging.LogRecord:
    return event(LogEvent.JOB_INFO, jobid=number, rule_name=rule, rule_msg=message, reason="new", **fields)


def failure(log: Path, message: str | None = None) -> logging.LogRecord:
    return event(LogEvent.JOB_ERROR, jobid=1, rule_name="check", rule_msg=message, log=[str(log)])


def told(*records: logging.LogRecord, **options: Any) -> list[str]:
    teller = Teller(**options)
    return [text for record in records if (text := teller.tell(record)) is not None]


COUNT = event(LogEvent.RUN_INFO, stats={"check": 10, "all": 1, "total": 11})


def test_a_job_has_a_line_when_it_starts_and_one_when_it_ends():
    lines = told(COUNT, start(), event(LogEvent.JOB_FINISHED, job_id=1))
    assert lines == ["10 jobs: 10 check", "[ 0/10] check A", "[ 1/10] check A: done in 0:00"]


def test_the_plan_stands_in_place_of_the_counts_and_once(tmp_path):
    again = event(LogEvent.RUN_INFO, stats={"total": 11})
    assert told(event(LogEvent.RUN_INFO, stats={"total": 11}, plan="To do: much"), again) == ["To do: much"]
    assert told(event(LogEvent.RUN_INFO, stats={"total": 11}, plan=""), again) == []  # a question came with it


def test_the_name_of_a_class_of_ours_is_not_told():
    record = event(LogEvent.ERROR, "ConfigurationError:\nnothing was changed", logging.ERROR, exception="x")
    assert told(record) == ["nothing was changed"]


def test_a_failed_job_has_one_line_with_the_cause_in_the_words_of_the_workflow(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("check: error: 1 problem with the data set:\n  'm.tif': labels 1..9; pass --instances\n")
    wanted = "FAILED check A: 'm.tif': labels 1..9; set `instances: true` in config/config.yaml; log: "
    assert told(start(), failure(log))[1:] == [f"{wanted}{log}"]


def test_what_the_executor_says_of_a_failed_job_goes_before_its_log(tmp_path):
    assert told(start(), failure(tmp_path / "a.log", "host 'h': no room"))[1:] == ["FAILED check A: host 'h': no room"]


def test_a_stopped_job_tells_where_it_goes_on(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("train: epoch 7/8  loss 0.1\ntrain: stopped; run again\n")
    assert told(start(), failure(log))[1:] == [f"check A: stopped; goes on after epoch 7 of 8; log: {log}"]


@pytest.mark.parametrize(
    "record",
    [
        event(None, "Building DAG of jobs..."),
        event(None, "Select jobs to execute..."),
        event(None, None),
        event(LogEvent.WORKFLOW_STARTED, "Workflow has started!"),
        event(LogEvent.RESOURCES_INFO, "Provided cores: 2"),
        event(LogEvent.SHELLCMD, "Shell command: x", shellcmd="x"),
        event(None, "Exiting because a job execution failed. Look above", logging.ERROR),
        event(LogEvent.ERROR, "WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR),
        event(LogEvent.ERROR, "RuleException:\nCalledProcessError in file", logging.ERROR, exception="RuleException"),
    ],
)
def test_what_helps_nobody_is_left_to_the_file(record):
    assert told(record) == []


@pytest.mark.parametrize(
    "record",
    [
        event(None, "Nothing to be done"),
        event(None, "odd", logging.WARNING),
        event(None, "[train m] epoch 3/8"),
        event(LogEvent.ERROR, "WorkflowError:\nno such profile", logging.ERROR, exception="WorkflowError"),
    ],
)
def test_everything_else_is_told(record):
    assert told(record) == [record.msg]


def test_commands_and_reasons_are_told_where_they_are_asked_for():
    command = event(LogEvent.SHELLCMD, "Shell command: x", shellcmd="python -m x")
    assert told(start(), command, with_commands=True) == ["[0/0] check A  (new)", "    python -m x"]


def test_the_end_of_a_run_names_the_full_log():
    assert told(event(None, "Complete log(s): /x/1.log")) == ["full log: /x/1.log"]


@pytest.fixture
def project(folder: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(stand_in))
    return folder


@pytest.mark.system
def test_a_run_with_a_profile_prints_few_lines_one_for_what_failed_and_keeps_the_full_log(project):
    Path("data/c/images").mkdir(parents=True)
    Path("data/c/images/BROKEN.tif").touch()
    rows = ["A\tdata/a/images\tdata/a/masks\tm", "B\tdata/b/images\tdata/b/masks\t\tm", "C\tdata/c/images\t\t\tm"]
    write_request("models: {m: {folds: 1}}", rows)
    done = run_snakemake(*LOCAL)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    failed = [line for line in lines if line.startswith("FAILED")]
    assert failed == ["FAILED check C: image 'BROKEN.tif' is broken; log: logs/steps/check/C.log"]
    assert [line for line in lines if "RuleException" in line or "shell:" in line or "message: None" in line] == []
    (log,) = [line.removeprefix("full log: ") for line in lines if line.startswith("full log: ")]
    assert "CalledProcessError" in Path(log).read_text()
    jobs = 13  # a line at the start and at the end of each; the plan, the table, and a few words around them
    assert len(lines) < 2 * jobs + 30, done.stderr


@pytest.mark.system
def test_a_dry_run_of_three_hundred_rows_is_one_screen_and_the_full_list_is_there_on_request(project):
    rows = [f"D{number}\tdata/b/images\tdata/b/masks\t\tm" for number in range(300)]
    write_request("models: {m: {folds: 1}}", ["A\tdata/a/images\tdata/a/masks\tm", *rows])
    done = run_snakemake(*LOCAL, "-n")
    assert done.returncode == 0
    assert "To do: 1807 jobs" in done.stdout
    assert "  predict  300 data sets with m" in done.stdout
    assert len((done.stdout + done.stderr).splitlines()) < 24
    listed = run_snakemake(*LOCAL, "-n", "-p").stdout
    assert listed.count(" check D") == 300
    assert listed.count("python -m biom3d.check") == 301


@pytest.mark.system
def test_a_data_set_that_the_table_lacks_is_named_also_where_there_are_very_many(project):
    rows = [f"D{number}\tdata/b/images\t\t\tm" for number in range(300)]
    write_request("models: {m: {folds: 1}}", ["A\tdata/a/images\tdata/a/masks\tm", *rows])
    done = run_snakemake(*LOCAL, "-n", "results/check/nobody.json")
    assert (done.returncode, "the table has no data set 'nobody'" in done.stdout) == (1, True)
