"""`biom3d run`: the words that Snakemake gets, the time that is measured, the question before a model is replaced."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from biom3d.run import build_parser, command, main
from tests.workflow.conftest import ROOT, SMALL_CONFIG, make_cells, write_request

FRONT = ["--logger", "biom3d", "--logger-biom3d-measure", "--logger-biom3d-ask"]


def words_of(*argv: str) -> list[str]:
    args, words = build_parser().parse_known_args(argv)
    return command(args, words, Path.cwd())[3:]


def test_the_words_for_snakemake(folder):
    start = ["--snakefile", str(ROOT / "workflow/Snakefile")]
    local = ["--workflow-profile", str(ROOT / "profiles/local")]
    assert words_of() == [*start, *local, *FRONT]
    assert words_of("--profile", "gpu1", "--yes", "--no_measure", "-n", "--cores", "2", "results/check/A.json") == [
        *start,
        *("--profile", "gpu1", "--logger", "biom3d"),
        *("-n", "--cores", "2", "results/check/A.json"),
    ]


def test_a_folder_without_a_configuration_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "run: error: no config/config.yaml in " in capsys.readouterr().err


def run(*words: str, stdin: int = subprocess.DEVNULL, **environ: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "biom3d", "run", "--cores", "2", *words]
    return subprocess.run(start, stdin=stdin, capture_output=True, text=True, env=os.environ | environ, check=False)


@pytest.mark.system
def test_a_training_that_nobody_has_measured_is_tried_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_cells({"train": 3})
    write_request(SMALL_CONFIG, ["cells\tdata/train/images\tdata/train/masks\ttiny"])
    first, again = run("-n"), run("-n")
    assert "measuring how long trainings of 'tiny' take here" in first.stderr
    assert "measuring" not in again.stderr
    (seconds,) = json.loads(Path(".biom3d/speed.json").read_text()).values()
    assert 0 < seconds < 600
    assert "  time     about " in first.stdout
    times = [line for done in (first, again) for line in done.stdout.splitlines() if line.startswith("  time ")]
    assert (len(times), times[0]) == (2, times[1])


@pytest.mark.system
def test_a_trained_model_is_replaced_only_after_a_yes(folder, stand_in):
    """The module `biom3d` that runs is the real one; the steps, which are its children, are stand-ins."""
    front = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from biom3d.run import main; sys.exit(main())",
    ]

    def start(*words: str, answer: str | None = None) -> subprocess.CompletedProcess[str]:
        ours, theirs = pty.openpty()
        if answer is not None:
            os.write(ours, answer.encode())
        done = subprocess.run(
            [*front, "--no_measure", "--cores", "2", *words],
            stdin=theirs if answer is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(stand_in)},
            check=False,
        )
        os.close(ours)
        os.close(theirs)
        return done

    def trained() -> int:
        """How often the model was trained."""
        return sum(line.startswith("train ") for line in Path("calls.txt").read_text().splitlines())

    write_request("models: {m: {folds: 1}}", ["A\tdata/a/images\tdata/a/masks\tm"])
    assert start().returncode == 0
    write_request("models: {m: {folds: 1, seed: 7}}", ["A\tdata/a/images\tdata/a/masks\tm"])
    refused = start(answer="n\n")
    assert (refused.returncode, trained()) == (1, 1)
    assert "Replace what is trained of m? [y/N]" in refused.stderr
    assert "nothing was changed; m stays as it is" in refused.stderr
    assert "ConfigurationError" not in refused.stdout + refused.stderr
    agreed = start(answer="y\n")
    assert (agreed.returncode, agreed.stderr.count("To do: ")) == (0, 1)
    assert trained() == 2
    write_request("models: {m: {folds: 1, seed: 8}}", ["A\tdata/a/images\tdata/a/masks\tm"])
    silent = start("--yes", answer="")
    assert (silent.returncode, "[y/N]" in silent.stderr, trained()) == (0, False, 3)
