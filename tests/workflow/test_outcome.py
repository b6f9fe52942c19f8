import re
from pathlib import Path

import pytest
from biom3d_workflow.outcome import ADVICE, Run, align, error_line, find_unfinished, plan_steps

from tests.workflow.conftest import ROOT


@pytest.fixture
def run(request_of):
    """A run of two data sets and two folds, before its first job."""
    return Run(request_of("models: {m: {folds: 2}}"))


def finish(run: Run, *failed: str) -> None:
    """Do what Snakemake would: make outputs in order, write the log of what fails, stop below it."""
    stopped: set[str] = set()
    for step in plan_steps(run.project):
        if stopped & set(step.needs):
            stopped.add(step.name)
            continue
        Path(step.log).parent.mkdir(parents=True, exist_ok=True)
        if step.name in failed:
            stopped.add(step.name)
            Path(step.log).write_text(f"{step.name}: at work\n{step.name}: error: it broke\n")
        else:
            Path(step.log).write_text("fine\n")
            Path(step.output).parent.mkdir(parents=True, exist_ok=True)
            Path(step.output).touch()


def table(run: Run) -> list[list[str]]:
    """The table without its header and the counts, split into cells."""
    return [line.split(maxsplit=3) for line in run.text().split("\n\n")[0].splitlines()[1:]]


def test_a_good_run_passes_everywhere(run):
    run.start()
    finish(run)
    assert table(run) == [["(training)", "m", "passed"], ["B", "m", "passed"]]


def test_the_table_is_kept_also_when_no_step_left_a_log(run):
    run.start()
    run.tell()
    assert Path("logs/outcome.txt").read_text() == run.text()


def test_a_failed_data_set_is_told_with_reason_and_log(run):
    run.start()
    finish(run, "check B")
    assert table(run)[1] == ["B", "m", "failed", "check B: it broke; log: logs/steps/check/B.log"]


def test_what_could_not_run_is_skipped_because_of_what_failed(run):
    run.start()
    finish(run, "train m/fold_1")
    assert table(run)[0] == ["B", "m", "skipped", "train m/fold_1 failed"]


def test_counts_and_advice_come_last(run):
    run.start()
    finish(run, "check A")
    assert run.text().splitlines()[-2:] == ["1 skipped, 1 failed", ADVICE.strip()]


def test_a_good_run_needs_no_advice(run):
    run.start()
    finish(run)
    assert run.text().splitlines()[-1] == "2 passed"


def test_a_log_of_an_earlier_run_is_not_reported(run):
    finish(run, "check B")
    run.start()
    assert table(run)[1] == ["B", "m", "not", "run  check B was not reached"]


def test_results_of_an_earlier_run_do_not_hide_a_failure(run):
    finish(run)
    run.start()
    Path("logs/steps/check/B.log").write_text("check: error: now it is broken\n")
    Path("results/check/B.json").unlink()
    assert table(run)[1][2] == "failed"


def test_results_older_than_what_they_need_are_not_passed(run):
    finish(run)
    run.start()
    Path("logs/steps/predict/m/B.log").write_text("predicted again, then the run was stopped\n")
    assert table(run)[1][2:] == ["not", "run  evaluate m/B was not reached"]


def test_an_output_that_a_later_attempt_lost_is_unfinished(run):
    finish(run)
    Path("data/pred/m/B").unlink()
    Path("logs/steps/predict/m/B.log").write_text("predict: error: it broke\n")
    assert find_unfinished(run.project) == ["data/pred/m/B"]


def test_an_output_that_somebody_removed_to_save_space_is_not_wanted_back(run):
    finish(run)
    Path("data/pred/m/B").unlink()
    assert find_unfinished(run.project) == []


def test_the_summary_is_shown_only_when_it_fails(run):
    run.start()
    finish(run, "summary all")
    assert table(run)[-1][:3] == ["(summary)", "all", "failed"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nstep: error: one\nstep: error: two: three\nb\n", "two: three"),
        ("killed\n\n", "killed"),
        ("train: stopped; finished parts are kept\n", "stopped; finished parts are kept"),
        ("", "the log is empty"),
    ],
)
def test_the_error_line_of_a_log(tmp_path, text, line):
    (tmp_path / "x.log").write_text(text)
    assert error_line(str(tmp_path / "x.log")) == line


def test_columns_are_aligned():
    assert align([("a", "bb", "c"), ("aaa", "b", "")]) == "a    bb  c\naaa  b"


def test_every_step_names_log_and_output_as_its_rule_does(request_of):
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = {"model": "m", "dataset": "[AB]", "fold": "."}
    for name, value in named.items():
        rules = rules.replace(f"{{{name}}}", value)
    for step in plan_steps(request_of("models: {m: {folds: 1}}")):
        for path in (step.log, step.output):
            pattern = re.sub(r"fold_\d", "fold_.", re.sub(r"\b[AB]\b", "[AB]", path))
            assert f'"{pattern}"' in rules
