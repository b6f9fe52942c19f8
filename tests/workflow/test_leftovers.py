"""Rows and models that were removed or renamed: what they leave, and what goes along."""

import re
import shutil
from pathlib import Path

import pytest

from biom3d import results
from tests.workflow.conftest import ROWS_OF_TWO, TWO_MODELS, run_snakemake, write_request

# conftest puts the workflow's library on the path
from biom3d_workflow import lock  # isort: skip

pytestmark = pytest.mark.system
ONE_MODEL = "defaults: {folds: 2}\nmodels:\n  m:\n"
A, B, C = ROWS_OF_TWO


def listed(capsys, *words: str) -> tuple[list[str], str]:
    """Return the paths that the command lists, and what it says."""
    assert results.main(["--orphans", "--paths", *words]) == 0
    told = capsys.readouterr()
    notes = "results: replaced models and notes in '.biom3d': "
    told_err = "".join(line for line in told.err.splitlines(keepends=True) if not line.startswith(notes))
    return [line.split(maxsplit=2)[2] for line in told.out.splitlines()], told_err


def test_of_a_whole_project_nothing_is_left_over(project, capsys):
    assert listed(capsys) == ([], "results: nothing is left over\n")


def test_a_row_that_was_removed_leaves_its_results_and_nothing_of_others(project, capsys):
    Path("results/m/notes").mkdir()  # of the user
    write_request(TWO_MODELS, [A, B])
    found, told = listed(capsys)
    logs = [
        f"logs/steps/{rule}/m/C.{kind}"
        for rule in ("export_labels", "overlay", "predict", "quality")
        for kind in ("jsonl", "log", "tsv")
    ]
    logs += [f"logs/steps/check/C.{kind}" for kind in ("jsonl", "log", "tsv")]
    assert sorted(found) == sorted(["data/pred/m/C", "results/check/C.json", "results/m/C", *logs])
    assert re.search(r"18 left over, .*B; to move it to a trash folder: biom3d results --orphans --yes", told)
    assert Path("results/m/C").exists()


def test_each_owner_has_one_line_and_what_is_switched_off_in_the_table_stays(project, capsys):
    for name in ("20260101-000000", "20260102-000000"):
        Path(f"logs/m/fold_1.partial-{name}").mkdir()
    write_request(ONE_MODEL, [A.replace("m,n", "m"), "#" + B.replace("m,n", "m")])
    assert results.main(["--orphans"]) == 0
    told = capsys.readouterr()
    assert [line.split(maxsplit=2)[2] for line in told.out.splitlines()] == [
        "model 'm', trainings by other options, set aside",
        "model 'n'",
        "row 'B'  (switched off with # in the table: stays)",
        "row 'C'",
    ]
    assert re.search(r"replaced models and notes in '.biom3d': [\d.]+ k?B", told.err)
    assert results.main(["--orphans", "--yes"]) == 0
    assert Path("data/pred/m/B").exists()
    assert not Path("data/pred/m/C").exists()


def test_a_replaced_model_is_listed_and_brought_back_beside_the_one_that_replaced_it(rerun, project, stand_in, capsys):
    rerun(TWO_MODELS.replace("n:\n", "n: {num_steps: 7}\n"))
    assert results.main(["--replaced"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    name = line.split()[0]
    assert re.fullmatch(r"n-[0-9a-f]{6}  replaced 20\d\d-\d\d-\d\d \d\d:\d\d  no learning curve", line)
    assert results.main(["--bring_back", "m"]) == 2
    assert f"there is no replaced model 'm' (there are: {name})" in capsys.readouterr().err
    assert results.main(["--bring_back", name]) == 0
    assert f"{{path: models/{name}}}" in capsys.readouterr().err
    assert sorted(path.name for path in Path("models", name).iterdir()) == ["fold_0", "fold_1"]
    assert results.main(["--bring_back", name]) == 0  # it is there already
    capsys.readouterr()
    write_request(TWO_MODELS, ROWS_OF_TWO)  # its options are put back
    assert results.main(["--bring_back", name]) == 0
    assert "the next `biom3d run` brings it back" in capsys.readouterr().err
    Path("calls.txt").unlink()
    assert [line for line in rerun() if line.startswith("train")] == []


def test_a_model_and_folds_that_were_removed(project, capsys):
    write_request(ONE_MODEL.replace("folds: 2", "folds: 1"), [line.replace("m,n", "m") for line in ROWS_OF_TWO])
    found, _ = listed(capsys)
    assert {"logs/n", "results/n", "data/pred/n", "logs/m/fold_1"} <= set(found)
    assert [path for path in found if not path.startswith("logs/steps") and "n" not in path.split("/")] == [
        "logs/m/fold_1"
    ]


def test_what_is_left_over_is_moved_and_can_be_moved_back(project, rerun, capsys):
    write_request(TWO_MODELS, [A, B])
    found, told = listed(capsys, "--yes")
    trash = Path(re.search(r"moved to '(.*)'", told)[1])
    assert [path for path in found if Path(path).exists() or not (trash / path).exists()] == []
    assert listed(capsys)[0] == []
    shutil.copytree(trash, ".", dirs_exist_ok=True)
    assert rerun() == []


def test_while_a_run_works_nothing_is_moved(project, capsys):
    write_request(TWO_MODELS, [A, B])
    held = lock.hold(project)
    try:
        assert results.main(["--orphans", "--yes"]) == 2
    finally:
        lock.let_go(held)
    assert "another run works in" in capsys.readouterr().err
    assert Path("results/m/C").exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [(None, "'config/config.yaml' not found"), ("models:\n  m: {folds: x}\n", "config/config.yaml:2: models.m.folds")],
)
def test_without_a_request_nothing_is_known_to_be_left_over(project, capsys, config, words):
    Path("config/config.yaml").unlink()
    if config:
        write_request(config, ROWS_OF_TWO)
    assert results.main(["--orphans"]) == 2
    assert words in capsys.readouterr().err


def test_a_row_with_another_name_keeps_its_results(project, stand_in, capsys):
    before = {str(path): path.stat().st_mtime_ns for path in Path("data/pred/m/B").rglob("*")}
    write_request(TWO_MODELS, [A, B.replace("B", "plate-7"), C])
    result = run_snakemake("--cores", "2", PYTHONPATH=str(stand_in))
    assert "data set 'plate-7' has the files of 'B', which is no row any more: its results are taken" in result.stderr
    calls = sorted(line.split()[:2] for line in Path("calls.txt").read_text().splitlines())
    assert calls == [["quality", "--tables"], ["report", "summary"]]
    after = {str(path): path.stat().st_mtime_ns for path in Path("data/pred/m/plate-7").rglob("*")}
    assert {path.replace("/B", "/plate-7"): age for path, age in before.items()} == after
    assert listed(capsys)[0] == []
    assert "Nothing to be done" in run_snakemake("--cores", "2", PYTHONPATH=str(stand_in)).stderr


def test_a_row_with_another_name_and_other_files_does_not(project, stand_in):
    shutil.copytree("data/c", "data/d")
    Path("data/d/images/4.tif").touch()
    write_request(TWO_MODELS, [A, B, "D\tdata/d/images\t\t\tm"])
    run_snakemake("--cores", "2", PYTHONPATH=str(stand_in))
    assert next(line.split()[0] for line in Path("calls.txt").read_text().splitlines()) == "check"
    assert Path("data/pred/m/C").exists()


def test_what_a_renamed_row_takes_along_is_not_left_over(project, capsys):
    write_request(TWO_MODELS, [A, B, C.replace("C", "Z", 1)])
    found, told = listed(capsys, "--yes")
    assert found == []
    assert "what there is of 'C' belongs to row 'Z'" in told
    assert Path("data/pred/m/C").exists()
