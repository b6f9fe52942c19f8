"""Finished work is sacred: old results stay until new ones are whole, and come back when a run or a mind changes."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.workflow.conftest import ROWS_OF_TWO, TWO_MODELS, run_snakemake, snakemake, write_request

# conftest puts the workflow's library on the path
from biom3d_workflow import kept, orphans, records, replaces  # isort: skip

pytestmark = pytest.mark.system
OTHER = TWO_MODELS.replace("n:\n", "n: {num_steps: 7}\n")
FOLDS = ("logs/n/fold_0", "logs/n/fold_1")
CURVE = "epoch,train_loss,val_loss,val_iou,val_dice,learning_rate,seconds\n0,1,1,0.5,0.8,0.1,60\n1,1,1,0.5,0.9,0.1,60\n"


@pytest.fixture
def started(project, stand_in):
    """Start a run with other options that stops in a step; returns the process, after which the project is cleared."""
    runs = []

    def start(step: str, config: str = OTHER) -> subprocess.Popen[str]:
        write_request(config, ROWS_OF_TWO)
        environ = {**os.environ, "PYTHONPATH": str(stand_in), "HOLD": step}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        run = subprocess.Popen(snakemake("--cores", "1"), env=environ, **pipes)
        runs.append(run)
        wait_for(lambda: Path("held").exists() or run.poll() is not None)
        assert run.poll() is None, run.stderr.read()
        return run

    yield start
    Path("go").touch()
    for run in runs:
        run.kill()
        run.wait()
    wait_for(lambda: not orphans.find(project))


def wait_for(fact):
    limit = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < limit
        time.sleep(0.05)


def state(*paths: str) -> dict[str, object]:
    """What there is to lose: times and notes of results, and which files they are."""
    files = [file for path in paths for file in [Path(path), *sorted(Path(path).rglob("*"))]]
    facts = {str(file): (file.stat().st_mtime_ns, 0 if file.is_dir() else file.stat().st_ino) for file in files}
    return facts | {f"note of {path}": records.read(path) for path in paths}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_retraining_that_is_stopped_and_taken_back_was_never_there(started, rerun, sign):
    before = state(*FOLDS, "data/pred/n/B", "results/n/n.zip")
    run = started("train")
    assert not Path(FOLDS[0]).exists() or not Path(FOLDS[1]).exists()
    run.send_signal(sign)
    Path("go" if sign == signal.SIGINT else "held").touch()
    run.wait()
    Path("calls.txt").unlink(missing_ok=True)
    assert rerun() == []
    assert state(*FOLDS, "data/pred/n/B", "results/n/n.zip") == before
    assert not Path(".biom3d/kept").exists()


def test_a_retraining_that_is_still_wanted_is_made_and_the_old_model_comes_back_with_its_options(rerun, project):
    before = state(*FOLDS, "logs/n/plan.yaml")
    made = rerun(OTHER)
    everything = {"preprocess", "train", "pred", "eval", "export", "quality", "report"}
    assert {line.split()[0] for line in made} == everything
    assert state(*FOLDS) != before
    assert sorted(str(entry.folder.parent) for entry in kept.entries(kept.REPLACED)) == [
        ".biom3d/replaced/preprocess/n",
        ".biom3d/replaced/train/n/0",
        ".biom3d/replaced/train/n/1",
    ]
    Path("calls.txt").unlink()
    assert {line.split()[0] for line in rerun()} == {"pred", "eval", "export", "quality", "report"}
    assert state(*FOLDS, "logs/n/plan.yaml") == before
    Path("calls.txt").unlink()
    assert {line.split()[0] for line in rerun(OTHER)} == {"pred", "eval", "export", "quality", "report"}  # and forth


def test_a_replaced_model_comes_back_whole_though_other_retrainings_were_begun_since(rerun, started):
    first = state(*FOLDS, "logs/n/plan.yaml")
    rerun(OTHER)
    second = state(*FOLDS, "logs/n/plan.yaml")
    for steps in ("8", "9"):  # whose plans are whole, and whose trainings are not
        run = started("train", OTHER.replace("7", steps))
        run.send_signal(signal.SIGINT)
        Path("go").touch()
        run.wait()
        for name in ("go", "held"):
            Path(name).unlink(missing_ok=True)
    for config, model in ((TWO_MODELS, first), (OTHER, second)):
        Path("calls.txt").unlink(missing_ok=True)
        assert [line for line in rerun(config) if line.startswith(("preprocess", "train"))] == []
        assert state(*FOLDS, "logs/n/plan.yaml") == model


def test_a_dry_run_leaves_replaced_models_and_renamed_rows_where_they_are(rerun):
    rerun(OTHER)
    before = state(*FOLDS, "logs/n/plan.yaml", "data/pred/n/B")
    write_request(TWO_MODELS, [row.replace("C", "Z", 1) for row in ROWS_OF_TWO])
    said = run_snakemake("--cores", "2", "-n").stderr
    assert "asked for again, and brought back" in said
    assert "its results are taken along" in said
    assert "-n has left everything as it was" in said
    assert Path("data/pred/m/C").exists()
    assert state(*FOLDS, "logs/n/plan.yaml", "data/pred/n/B") == before


def test_predictions_that_fail_leave_those_of_before(rerun, project, stand_in):
    before = state("data/pred/m/C", "results/m/C/labels")
    Path("data/c/images/BROKEN.tif").touch()
    result = run_snakemake("--cores", "2", "--keep-going", PYTHONPATH=str(stand_in))
    assert result.returncode == 1
    assert state("data/pred/m/C", "results/m/C/labels") == before
    Path("data/c/images/BROKEN.tif").unlink()
    Path("calls.txt").unlink(missing_ok=True)
    # the summary of flags was made of what passed
    assert [line.split()[:2] for line in rerun()] == [["quality", "--tables"]]


def test_a_training_that_ends_after_snakemake_was_killed_is_taken(started, rerun):
    run = started("train")
    run.kill()
    run.wait()
    Path("go").touch()
    wait_for(lambda: not orphans.find(Path.cwd()))
    done = [fold for fold in FOLDS if records.is_incomplete(fold) and Path(fold).exists()]
    assert len(done) == 1
    before = {name: facts for name, facts in state(*done).items() if not name.startswith("note")}
    Path("calls.txt").unlink()
    trained = [line for line in rerun(OTHER) if line.startswith("train")]
    assert [line for line in trained if f"--run_dir {done[0]} " in line] == []
    assert len(trained) == 1
    assert {name: facts for name, facts in state(*done).items() if name in before} == before


def test_what_a_run_replaces_is_told_before_it_starts(project, stand_in):
    for fold in FOLDS:
        Path(fold, "log").mkdir()
        Path(fold, "log/log.csv").write_text(CURVE)
    write_request(OTHER, ROWS_OF_TWO)
    line = "replaces trained model 'n' (2 folds of 2 epochs, Dice 0.90, 4 min)"
    assert line in run_snakemake("-n", PYTHONPATH=str(stand_in)).stderr
    told = run_snakemake("--cores", "2", PYTHONPATH=str(stand_in)).stderr
    assert told.index(line) < told.index("preprocess for n")
    assert "replaces 1 prediction, 1 table of metrics, " in told
    assert ", 1 folder of labels, " in told


def test_more_epochs_go_on_with_the_trained_model(rerun, project, stand_in):
    short, long = (TWO_MODELS.replace("n:\n", f"n: {{num_epochs: {number}}}\n") for number in (3, 5))
    rerun(short)
    write_request(long, ROWS_OF_TWO)
    assert "goes on with trained model 'n' (no learning curve): from 3 to 5 epochs" in run_snakemake("-n").stderr
    Path("calls.txt").unlink()
    trained = [line for line in rerun(long) if line.startswith("train")]
    earlier = [line.split("--continue_from ")[1].split()[0] for line in trained]
    assert sorted(earlier) == [f".biom3d/earlier/{fold}" for fold in FOLDS]
    assert not Path(".biom3d/earlier").exists()
    Path("calls.txt").unlink()
    assert rerun(long) == []


def test_a_fold_that_is_missing_trains_no_other_again(rerun, project, stand_in):
    """Its arrays are made anew, so Snakemake trains all; the step takes what is there if its arrays are the same."""
    rerun(TWO_MODELS)
    for words, offered in (((), [True, False]), (("--forcerun", "logs/n/plan.yaml"), [False, False])):
        Path("calls.txt").unlink(missing_ok=True)
        shutil.rmtree(FOLDS[1])
        trained = sorted(line for line in rerun(TWO_MODELS, ROWS_OF_TWO, *FOLDS, *words) if line.startswith("train"))
        assert [f"--continue_from .biom3d/earlier/{FOLDS[0]}" in line for line in trained] == offered


def test_folds_of_two_kinds_are_never_one_model(rerun, project, stand_in):
    """A retraining of which one fold fails: the model that is there stays the old one, and the new fold is not lost."""
    short, long = (TWO_MODELS.replace("n:\n", f"n: {{num_epochs: {number}}}\n") for number in (3, 5))
    rerun(short)
    Path(FOLDS[1], "BROKEN").touch()  # the longer training goes on with what is here
    before = state(FOLDS[0])
    Path("calls.txt").unlink()
    write_request(long, ROWS_OF_TWO)
    result = run_snakemake("--cores", "2", "--keep-going", PYTHONPATH=str(stand_in))
    assert result.returncode == 1
    assert "train n 0: trained anew; waits until all folds are" in result.stderr
    assert "pred" not in [line.split()[0] for line in Path("calls.txt").read_text().splitlines()]
    assert state(FOLDS[0]) == before
    Path(FOLDS[1], "BROKEN").unlink()
    Path("calls.txt").unlink()
    trained = [line for line in rerun(long) if line.startswith("train")]
    assert [f"--run_dir {FOLDS[1]} " in line for line in trained] == [True]
    assert state(FOLDS[0]) != before
    Path("calls.txt").unlink()
    assert rerun(long) == []


def test_a_dry_run_removes_nothing(rerun, project, stand_in):
    before = state(*FOLDS, "data/pred/n/B")
    write_request(OTHER, ROWS_OF_TWO)
    run_snakemake("-n", PYTHONPATH=str(stand_in))
    assert state(*FOLDS, "data/pred/n/B") == before
    assert rerun() == []


def test_a_second_person_is_told_who_works_and_can_neither_run_nor_unlock(started):
    run = started("train")
    before = state("data/pred/n/B")
    for words in (["--cores", "1"], ["--unlock"], ["--workflow-profile", "x", "--cores", "1"][2:]):
        told = run_snakemake(*words)
        assert told.returncode == 1
        assert f"(process {run.pid}) since 20" in told.stderr
        assert "wait until it has ended, or ask " in told.stderr
    looked = run_snakemake("-n")
    assert looked.returncode == 0
    assert f"(process {run.pid}) since 20" in looked.stderr
    assert "It may do meanwhile what is told here" in looked.stderr
    assert "cannot be locked" not in looked.stderr
    assert state("data/pred/n/B") == before


def test_the_next_run_needs_no_unlock_after_a_kill_and_ends_jobs_that_went_on(started, project, stand_in):
    run = started("train")
    run.kill()
    run.wait()
    left = orphans.find(project)
    assert left
    looked = run_snakemake("-n").stderr
    assert "jobs of a run that was killed still work" in looked
    assert "the next run ends them" in looked
    assert "lock" not in looked
    result = run_snakemake("--cores", "2", PYTHONPATH=str(stand_in))
    assert result.returncode == 0, result.stderr
    assert f"jobs of a run that was killed still work (processes {', '.join(map(str, left))})" in result.stderr
    assert orphans.find(project) == []


def test_a_model_in_words():
    assert replaces.duration(50) == "50 s"
    assert replaces.duration(125) == "2 min"
    assert replaces.duration(11400) == "3 h 10 min"
    assert replaces.describe_model([Path("nowhere")]) == "no learning curve"


def test_the_notes_are_those_of_snakemake(finished, monkeypatch):
    from snakemake.persistence.file import FilePersistence

    monkeypatch.chdir(finished)
    theirs = FilePersistence(path=finished / ".snakemake")
    for name in ["results/summary.csv", "a/" * 200 + "ü"]:
        assert Path(theirs._record_path(str(records.FOLDER), name)) == records.place(records.FOLDER, name)
    assert "logs/m/fold_0" in list(records.names())
    assert records.read("logs/m/fold_0")["record_format_version"] == records.FORMAT


def test_where_there_are_no_hard_links_results_are_copied(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("x")
    os.utime(tmp_path / "a/b/c", (1, 1))
    kept.link(tmp_path / "a", tmp_path / "d")
    assert ((tmp_path / "d/b/c").read_text(), (tmp_path / "d/b/c").stat().st_mtime) == ("x", 1)
    shutil.rmtree(tmp_path / "a")
