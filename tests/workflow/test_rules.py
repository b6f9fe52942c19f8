"""The rules, run by Snakemake with stand-in steps: what runs, what runs again, what fails alone."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import (
    ROOT,
    ROWS_OF_TWO,
    SNAKEFILE,
    TWO_MODELS,
    make_two_models,
    run_snakemake,
    write_request,
)

# conftest puts the workflow's library on the path
from biom3d_workflow import records  # isort: skip

pytestmark = pytest.mark.system
RULES = [
    (path.name, block)
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]
    if "shell:" in block
]


def names(lines: list[str]) -> list[str]:
    return sorted(line.split(" ")[0] for line in lines)


def test_lint_passes_on_a_fresh_clone(tmp_path):
    for part in ("workflow", "config"):
        shutil.copytree(ROOT / part, tmp_path / part)
    command = [Path(sys.executable).parent / "snakemake", "--lint"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, "good condition" in result.stderr) == (0, True)


def test_the_workflow_imports_nothing_but_what_comes_with_snakemake():
    found = set()
    for path in (ROOT / "workflow/lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {module.split(".")[0] for module in modules}
    assert found - set(sys.stdlib_module_names) == {"yaml", "jsonschema", "snakemake", "biom3d_workflow"}


def test_the_rules_are_formatted():
    command = [Path(sys.executable).parent / "snakefmt", "--check", ROOT / "workflow"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("block", [block for _, block in RULES], ids=[block.split(":")[0] for _, block in RULES])
def test_every_rule_says_what_it_needs(block):
    if "localrule: True" in block:  # runs here and calls no step of ours
        assert ("message:" in block, "log:" in block, "python" in block) == (True, True, False)
        return
    wanted = ["message:", "log:", "benchmark:", "container:", "threads:", "mem_mb=", "runtime=", "gpu="]
    wanted += ["identity=identity(", "--events {log.events} 2>&1 | {params.copier} {log.text}"]
    assert [word for word in wanted if word not in block] == []


def test_the_version_is_that_of_the_package():
    from biom3d_workflow import VERSION

    from biom3d import __version__

    assert __version__ == VERSION


def test_everything_is_made(finished):
    wanted = ["results/m/m.zip", "results/n/curves.png", "results/m/B/metrics.csv", "results/m/C/overlays"]
    wanted += ["results/n/B/labels", "data/pred/m/C", "logs/n/fold_1", "results/summary.csv", "logs/steps/check/A.tsv"]
    assert [path for path in wanted if not (finished / path).exists()] == []


def test_preprocessed_arrays_are_gone_after_the_training(finished):
    assert not (finished / "data/preprocessed/m").exists()


def test_a_second_run_does_nothing(rerun):
    assert rerun() == []


def test_a_plan_option_reruns_its_model_from_the_preprocessing(rerun):
    ran = rerun(TWO_MODELS.replace("n:\n", "n: {num_epochs: 7}\n"))
    assert names(ran) == sorted(
        ["preprocess", "train", "train", "pred", "eval", *["export"] * 2, *["quality"] * 2, *["report"] * 3]
    )


def test_a_prediction_option_reruns_the_predictions_of_its_model(rerun):
    ran = rerun(TWO_MODELS.replace("n:\n", "n: {tta: true}\n"))
    assert names(ran) == ["eval", "export", "pred", "quality", "quality", "report", "report"]


def test_an_export_option_reruns_the_export_only(rerun):
    assert names(rerun(TWO_MODELS.replace("n:\n", "n: {formats: [ome-zarr]}\n"))) == ["export"]


def test_another_image_is_no_reason_where_no_container_runs(rerun):
    assert rerun(TWO_MODELS, ROWS_OF_TWO, "--config", "image=other") == []


def test_the_identity_is_the_only_parameter_that_snakemake_compares(finished):
    records = [json.loads(path.read_text()) for path in (finished / ".snakemake/metadata").rglob("*") if path.is_file()]
    assert len(records) > 20
    assert [record["params"] for record in records if len(record["params"]) != 1] == []
    assert {record["params"][0][:10] for record in records} == {"'made of: "}


@pytest.fixture
def former(project):
    """The project as the workflow of 2026-11 left it: notes without identities, here those of that time."""
    notes = json.loads((Path(__file__).parent / "records_2026_11.json").read_text())
    shutil.rmtree(".biom3d")
    for output in list(records.names()):
        records.forget(output)
    for output, note in notes.items():
        records.write(output, {"record_format_version": 6, **note})
    for path in Path().rglob("*"):  # here n did not start from m, and may be older
        os.utime(path, (10**9, 10**9))
    return project


THEN = (
    "defaults: {folds: 2}\nmodels:\n  m: {num_epochs: 7, tta: true}\n"
    "  n: {fine_tune: logs/m/fold_0, formats: [ome-zarr]}\n"
)
THEN_ROWS = [
    "A\tdata/a/images\tdata/a/masks\tm,n\t\t2,0.5,0.5",
    "B\tdata/b/images\tdata/b/masks\t\tm,n",
    "C\tdata/c/images\t\t\tm",
]


def test_a_project_of_2026_11_is_finished_under_the_rules_of_today(former, rerun):
    assert rerun(THEN, THEN_ROWS) == []
    assert {records.identity(records.read(name))[:9] for name in records.names()} == {"made of: "}


def test_what_is_changed_together_with_the_version_runs_again(former, rerun):
    assert names(rerun(THEN.replace("tta: true", "tta: false"), THEN_ROWS)) == sorted(
        ["pred", "pred", "eval", *["export"] * 2, *["quality"] * 3, *["report"] * 3]
    )


def test_an_option_of_a_training_changed_together_with_the_version_trains_again(former, rerun):
    ran = rerun(THEN.replace("ome-zarr]", "ome-zarr], num_epochs: 3"), THEN_ROWS)
    assert names(ran) == sorted(
        ["preprocess", "train", "train", "pred", "eval", *["export"] * 2, *["quality"] * 2, *["report"] * 3]
    )


def test_a_share_that_is_not_mounted_makes_nothing_old(rerun, project, stand_in):
    Path("data/a").rename("data/gone")  # what both models learned from
    result = run_snakemake("--cores", "2", PYTHONPATH=str(stand_in))
    assert result.returncode == 1
    assert not Path("calls.txt").exists()
    Path("data/gone").rename("data/a")
    assert rerun() == []


def test_a_model_of_another_version_is_used_told_and_trained_again_on_request_only(project, rerun):
    from biom3d_workflow import makers, software

    made = Path("logs/n/fold_0", makers.FILE)
    made.parent.mkdir()
    made.write_text(json.dumps({"biom3d": "0.0.9", **software.step_numbers(), "train": 0}))
    told = run_snakemake("--cores", "2", "-n").stderr
    assert "model 'n' was made by version 0.0.9; this is 0.1.0, which computes train in another way. It is used" in told
    assert "model 'm'" not in told
    assert rerun() == []
    command = told.split("snakemake ... ")[1].split("\n")[0].split()
    assert [line.split()[0] for line in rerun(TWO_MODELS, ROWS_OF_TWO, *command)][:3] == [
        "preprocess",
        "train",
        "train",
    ]


def test_other_words_and_inputs_of_a_rule_rerun_nothing(project, stand_in, tmp_path):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "biom3d").mkdir()
    shutil.copy(ROOT / "biom3d/steps.py", tmp_path / "biom3d")
    for path in (tmp_path / "workflow/rules").glob("*.smk"):
        text = (
            path.read_text()
            .replace("python -m", "python  -m")
            .replace("images=images_of,", "images=images_of,\n        new=images_of,")
        )
        path.write_text(text)
    result = run_snakemake(
        "--snakefile", str(tmp_path / "workflow/Snakefile"), "--cores", "2", PYTHONPATH=str(stand_in)
    )
    assert "Nothing to be done" in result.stderr, result.stderr


def test_an_image_without_mask_trains_nothing_again(rerun):
    Path("data/a/images/4.tif").touch()
    assert names(rerun()) == ["check"]


def test_another_mask_of_a_training_trains_again(rerun):
    Path("data/a/masks/2.tif").write_text("another content")
    assert {"preprocess", "train", "pred"} <= set(names(rerun()))


def test_a_changed_image_reruns_what_depends_on_it(rerun):
    Path("data/c/images/2.tif").write_text("another content")
    assert names(rerun()) == ["check", "export", "pred", "quality", "quality", "report"]


def test_an_added_image_reruns_what_depends_on_it(rerun):
    Path("data/c/images/4.tif").touch()
    assert names(rerun()) == ["check", "export", "pred", "quality", "quality", "report"]


def test_a_removed_image_reruns_what_depends_on_it(rerun):
    Path("data/c/images/3.tif").unlink()
    assert names(rerun()) == ["check", "export", "pred", "quality", "quality", "report"]


def test_a_note_in_an_image_folder_reruns_nothing(rerun):
    Path("data/a/images/notes.txt").touch()
    assert rerun() == []


def test_deleting_the_results_does_not_train_again(rerun):
    shutil.rmtree("results")
    assert {"train", "preprocess", "pred"} & set(names(rerun())) == set()


def test_another_data_set_leaves_the_others_alone(rerun):
    ran = rerun(TWO_MODELS, [*ROWS_OF_TWO, "D\tdata/a/images\t\t\tn"])
    assert names(ran) == ["check", "export", "pred", "quality", "quality", "report"]


def test_a_killed_training_finds_its_work(rerun):
    shutil.rmtree("logs/m/fold_1")
    Path("logs/m/fold_1.partial").mkdir()
    Path("logs/m/fold_1.partial/epoch_5").touch()
    rerun()
    assert Path("logs/m/fold_1.partial/epoch_5").exists()


def test_a_bad_data_set_fails_alone_and_the_table_says_so(project, stand_in):
    Path("data/c/images/BROKEN.tif").touch()
    Path("data/b/images/4.tif").touch()
    result = run_snakemake("--cores", "2", "--keep-going", PYTHONPATH=str(stand_in))
    lines = [line.split(maxsplit=3) for line in Path("logs/outcome.txt").read_text().splitlines()]
    assert result.returncode == 1
    assert lines[1][:3] == ["C", "m", "failed"]
    assert lines[1][3].startswith("check C: image 'BROKEN.tif' is broken; log: logs/steps/check/C.log; results of ")
    assert sorted(line[:3] for line in lines[2:6]) == [
        ["(training)", "m", "kept"],
        ["(training)", "n", "kept"],
        ["B", "m", "passed"],
        ["B", "n", "passed"],
    ]


def test_what_failed_when_it_was_run_again_is_not_taken_for_done(project, stand_in):
    write_request(TWO_MODELS.replace("m:", "m: {tta: true}"), ROWS_OF_TWO)
    Path("logs/m/fold_0/BROKEN").touch()
    assert run_snakemake("--cores", "2", "--keep-going", PYTHONPATH=str(stand_in)).returncode == 1
    Path("logs/m/fold_0/BROKEN").unlink()
    assert run_snakemake("--cores", "2", PYTHONPATH=str(stand_in)).returncode == 0
    assert sorted(str(path) for path in Path("data/pred/m").iterdir()) == ["data/pred/m/B", "data/pred/m/C"]
    assert "Nothing to be done" in run_snakemake("--cores", "2", PYTHONPATH=str(stand_in)).stderr


def test_the_summary_is_made_of_what_passed(project, stand_in):
    Path("data/b/images/BROKEN.tif").touch()
    write_request(TWO_MODELS, [*ROWS_OF_TWO, "D\tdata/a/images\tdata/a/masks\t\tm"])
    run_snakemake("--cores", "2", "--keep-going", PYTHONPATH=str(stand_in))
    calls = Path("calls.txt").read_text().splitlines()
    assert "report summary --metrics results/m/D/metrics.json --out results/summary.csv" in calls


def test_a_wrong_configuration_gives_one_message_without_a_traceback(project):
    write_request(TWO_MODELS + "  o: {fold: 1}\n", [*ROWS_OF_TWO, "D\tnowhere"])
    result = run_snakemake("--cores", "1")
    message = result.stderr.split("ConfigurationError:\n")[1]
    assert result.returncode == 1
    assert [line.split(": ")[0] for line in message.splitlines()] == ["config/config.yaml:5", "config/datasets.tsv:5"]


@pytest.fixture(scope="module")
def html(finished, stand_in):
    result = run_snakemake("--directory", str(finished), "--report", "report.html", PYTHONPATH=str(stand_in))
    assert result.returncode == 0, result.stderr
    return (finished / "report.html").read_text()


@pytest.mark.parametrize("model_and_data", ["m/B", "m/C", "n/B"])
def test_the_report_holds_every_overlay(html, model_and_data):
    assert f'"results/{model_and_data}/overlays/picture.png"' in html


def test_the_report_shows_tables_not_only_files(html):
    assert html.count(">a</th>") == 3  # of B by m and by n, and the summary


def test_the_report_opens_offline(html):
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.https?:", html) == []


def test_steps_find_their_python_without_an_activated_environment(project):
    shutil.rmtree("results/check")
    bare = f"{Path('/usr/bin')}:{Path('/bin')}"
    result = run_snakemake("--cores", "1", "results/check/C.json", PATH=bare)
    assert "python: command not found" not in result.stderr
    assert "No module named" not in result.stderr


HOSTILE = ["a b", "[1]", "it's", 'a"b', "ü", "-x", "$HOME", "a;b", "{dataset}", "{x y}", "<results>", "a\nb", "*"]


@pytest.mark.parametrize("where", ["files", "folder"])
def test_odd_names_run_and_are_then_done(tmp_path, monkeypatch, stand_in, where):
    odd = [name for name in HOSTILE if where == "files" or not re.search(r"[{<\n]", name)]
    make_two_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = ["A\tdata/a/images\tdata/a/masks\tm"]
    for index, name in enumerate(odd):
        folder = Path("data", name) if where == "folder" else Path("data/odd")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.tif").touch()
        if where == "folder" or index == 0:
            cell = str(folder).replace('"', '""')
            rows.append(f'D{index}\t"{cell}"\t\t\tm')
    write_request("models: {m: {folds: 1}}", rows)
    first = run_snakemake("--cores", "2", PYTHONPATH=str(stand_in))
    assert first.returncode == 0, first.stderr
    assert "Nothing to be done" in run_snakemake("--cores", "2", PYTHONPATH=str(stand_in)).stderr


def test_the_snakefile_stays_small():
    assert len(SNAKEFILE.read_text().splitlines()) <= 50
