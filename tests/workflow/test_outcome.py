import csv
import json
import os
import re
from pathlib import Path

import pytest
from biom3d_workflow.outcome import Run, find_unfinished, plan_steps
from biom3d_workflow.outcome_table import MEANINGS, Line, align, as_text

from tests.workflow.conftest import ROOT


@pytest.fixture
def run(request_of):
    """A run of two data sets and two folds, before its first job."""
    return Run(request_of("models: {m: {folds: 2}}"))


def finish(run: Run, *failed: str, says: str = "{0}: at work\n{0}: error: it broke\n") -> None:
    """Do what Snakemake would: make outputs in order, write the log of what fails, stop below it."""
    stopped: set[str] = set()
    for step in plan_steps(run.project):
        if stopped & set(step.needs):
            stopped.add(step.name)
            continue
        Path(step.log).parent.mkdir(parents=True, exist_ok=True)
        if step.name in failed:
            stopped.add(step.name)
            Path(step.log).write_text(says.format(step.name.partition(" ")[0]))
            Path(step.output).unlink(missing_ok=True)
        else:
            Path(step.log).write_text("fine\n")
            Path(step.output).parent.mkdir(parents=True, exist_ok=True)
            Path(step.output).touch()


def rows(run: Run, **named: bool) -> dict[str, tuple[str, str]]:
    """Data set -> what became of it, and why."""
    return {line.dataset: (line.state, line.why) for line in run.lines(**named)}


def yesterday(run: Run) -> None:
    """A finished run of another day."""
    finish(run)
    for step in plan_steps(run.project):
        os.utime(step.log, (1e9, 1e9))
        os.utime(step.output, (1e9, 1e9))


def test_a_good_run_passes_everywhere(run):
    run.start()
    finish(run)
    assert rows(run) == {"(training)": ("passed", ""), "B": ("passed", "")}


def test_the_table_is_kept_as_text_json_and_csv_also_when_no_step_left_a_log(run, capsys):
    run.start()
    run.tell()
    assert Path("logs/outcome.txt").read_text().strip() == capsys.readouterr().err.strip()
    found = json.loads(Path("logs/outcome.json").read_text())
    assert [(row["dataset"], row["state"]) for row in found["rows"]] == [("(training)", "not run"), ("B", "not run")]
    with Path("logs/outcome.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["not run", "not run"]


def test_a_failed_data_set_is_told_with_reason_and_log(run):
    run.start()
    finish(run, "check B")
    assert rows(run)["B"] == ("failed", "check B: it broke")
    assert run.lines()[1].details() == "check B: it broke; log: logs/steps/check/B.log"


def test_the_first_problem_of_several_is_told_not_their_heading(run):
    run.start()
    finish(run, "check B", says="{0}: error: 2 problems with the data set:\n  'x.tif': cut short; copy it\n  other\n")
    assert rows(run)["B"][1] == "check B: 'x.tif': cut short; copy it (and 1 more: see the log)"


def test_a_remedy_names_the_key_of_the_configuration(run):
    run.start()
    finish(run, "check B", says="check: error: 'm.tif': labels 1..9; pass --instances, or give --spacing Z Y X\n")
    wanted = "set `instances: true` of model 'm' in config/config.yaml, or fill in column spacing_um of "
    assert rows(run)["B"][1] == f"check B: 'm.tif': labels 1..9; {wanted}config/datasets.tsv"


def test_what_could_not_run_is_skipped_because_of_what_failed(run):
    run.start()
    finish(run, "train m/fold_1")
    assert rows(run)["B"] == ("skipped", "train m/fold_1 failed")


STOPPED = "train: epoch 7/8  loss 0.1\ntrain: epoch 8/8 5/12, 0:16 left\ntrain: stopped; finished parts are kept\n"


def test_a_stopped_training_has_not_failed_and_tells_where_it_goes_on(run):
    run.start()
    finish(run, "train m/fold_1", says=STOPPED)
    assert rows(run)["(training)"] == ("stopped", "train m/fold_1: goes on after epoch 7 of 8")
    assert rows(run)["B"] == ("skipped", "train m/fold_1 was stopped")
    run.tell()
    assert Path("logs/outcome.txt").read_text().endswith(f"1 stopped, 1 skipped\n{MEANINGS['stopped']}\n")


def test_a_training_that_somebody_cancelled_says_who(run):
    run.start()
    finish(run, "train m/fold_1", says=f"{STOPPED}job: stopped with 'biom3d remote cancel' by ann on vm\n")
    why = "train m/fold_1: stopped with 'biom3d remote cancel' by ann on vm; goes on after epoch 7 of 8"
    assert rows(run)["(training)"] == ("stopped", why)


def test_what_ended_without_a_word_was_stopped_only_where_the_run_was(run):
    run.start()
    finish(run, "train m/fold_1", says="train: at work\n")
    assert rows(run, was_stopped=True)["(training)"] == ("stopped", "train m/fold_1: goes on from what is done")
    state, why = rows(run)["(training)"]
    assert (state, "killed from outside, or no memory was left" in why) == ("failed", True)


def test_results_of_another_day_are_kept_not_skipped(run):
    yesterday(run)
    run.start()
    finish(run, "check A")
    assert rows(run)["B"] == ("kept", "check A failed")
    assert "since 2001-09-09" in run.lines()[1].details()


def test_a_failed_row_tells_that_its_old_results_are_there(run):
    yesterday(run)
    run.start()
    finish(run, "check B")
    assert run.lines()[1].state == "failed"
    assert re.search(r"; results of 2001-09-09 \d\d:\d\d are kept: results/m/B/$", run.lines()[1].details())


def test_a_run_with_nothing_to_do_keeps_everything(run):
    yesterday(run)
    run.start()
    assert rows(run) == {"(training)": ("kept", ""), "B": ("kept", "")}


def test_a_passed_row_tells_its_dice_its_kind_and_where_it_is(run):
    run.start()
    finish(run)
    cases = [{"case": "a", "class": 1, "dice": 0.8, "kind": "held-out"}, {"case": "b", "dice": 0.6, "kind": "held-out"}]
    Path("results/m/B/metrics.json").write_text(json.dumps({"cases": cases}))
    for fold, best in enumerate((0.5, 0.75)):
        Path(f"logs/m/fold_{fold}").unlink()
        Path(f"logs/m/fold_{fold}/log").mkdir(parents=True)
        Path(f"logs/m/fold_{fold}/log/log.csv").write_text(f"epoch,val_dice\n0,0.1\n1,{best}\n")
    told = [line.details() for line in run.lines()]
    assert told == ["Dice 0.500, 0.750 (validation); results/m/", "Dice 0.700 (held-out); results/m/B/"]


def test_means_never_mix_kinds_of_scores(run):
    run.start()
    finish(run)
    cases = [{"dice": 0.8, "kind": "held-out"}, {"dice": 0.6, "kind": "training"}, {"dice": None, "kind": "held-out"}]
    Path("results/m/B/metrics.json").write_text(json.dumps({"cases": cases}))
    assert run.lines()[1].scores == [(0.8, "held-out"), (0.6, "training")]


def test_what_asks_for_something_comes_first_and_the_counts_last(run):
    run.start()
    finish(run, "check A")
    run.tell()
    told = Path("logs/outcome.txt").read_text().splitlines()
    assert [line.split()[2] for line in told[1:3]] == ["failed", "skipped"]
    assert told[-2:] == ["1 failed, 1 skipped", MEANINGS["failed"]]


def test_a_screen_shows_all_that_is_not_well_and_some_of_the_rest():
    lines = [
        *(Line(f"bad{i}", "m", "failed", "x") for i in range(50)),
        *(Line(f"d{i}", "m", "passed") for i in range(300)),
    ]
    told = as_text(lines, 40)
    assert (told.count("  failed  "), told.count("  passed")) == (50, 40)
    assert "... and 260 more that are well: logs/outcome.txt" in told


def test_a_log_of_an_earlier_run_is_not_reported(run):
    finish(run, "check B")
    run.start()
    assert rows(run)["B"] == ("not run", "check B was not reached")


def test_results_of_an_earlier_run_do_not_hide_a_failure(run):
    finish(run)
    run.start()
    Path("logs/steps/check/B.log").write_text("check: error: now it is broken\n")
    Path("results/check/B.json").unlink()
    assert rows(run)["B"][0] == "failed"


def test_results_older_than_what_they_need_are_not_passed(run):
    finish(run)
    run.start()
    Path("logs/steps/predict/m/B.log").write_text("predicted again, then the run was stopped\n")
    assert rows(run)["B"] == ("not run", "evaluate m/B was not reached")


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
    assert rows(run)["(summary)"][0] == "failed"


A, B = "A\tdata/a/images\tdata/a/masks\tm", "B\tdata/b/images\tdata/b/masks\t\tm"


def test_a_data_set_that_cannot_be_read_fails_before_any_job(request_of):
    run = Run(request_of(rows=[A, B, "C\tnowhere\t\t\tm"]))
    run.start()
    finish(run)
    assert rows(run)["B"][0] == "passed"
    assert rows(run)["C"] == ("failed", "images: folder 'nowhere' not found; give a folder or file")


def test_a_model_whose_data_cannot_be_read_is_not_trained_and_the_table_says_so(request_of):
    run = Run(request_of("models: {m: {folds: 1}}", [A, B, "C\tnowhere\tnowhere\tm"]))
    run.start()
    finish(run)
    why = "not trained: data set 'C' cannot be read"
    assert rows(run)["(training)"] == ("skipped", why)
    assert rows(run)["B"] == ("skipped", why)
    assert rows(run)["C"][0] == "failed"


def test_a_model_that_was_trained_before_still_predicts(request_of):
    Path("logs/m/fold_0").mkdir(parents=True)
    run = Run(request_of("models: {m: {folds: 1}}", [A, B, "C\tnowhere\tnowhere\tm"]))
    run.start()
    finish(run)
    state, why = rows(run)["(training)"]
    assert (state, why) == ("kept", "not trained anew, the model that is there is used: data set 'C' cannot be read")
    assert rows(run)["B"][0] == "passed"


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
