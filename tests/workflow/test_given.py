"""A model that is there already is used in every profile, and never trained."""

import os
import shutil
import time
from pathlib import Path

import pytest
from biom3d_workflow import given, leftovers

from biom3d.export.package import pack_model
from tests.workflow.conftest import ROOT, make_cells, run_snakemake, write_request

A, B = "A\tdata/a/images\tdata/a/masks", "B\tdata/b/images\tdata/b/masks"
CONFIG, TABLE = "config/config.yaml", "config/datasets.tsv"


def make_model(folder: Path, classes: int = 2, folds: int = 2) -> Path:
    """Make folders as far as the workflow looks at them."""
    for fold in range(folds):
        run = folder / f"fold_{fold}"
        (run / "model").mkdir(parents=True)
        (run / "plan.yaml").write_text(f"desc: m\nnum_classes: {classes}\n")
        (run / "model/m_best.pth").write_bytes(b"weights %d" % fold)
    return folder


@pytest.fixture
def packed(folder: Path) -> Path:
    """A zip of such a model."""
    make_model(folder / "made")
    pack_model([folder / "made/fold_0", folder / "made/fold_1"], folder / "m.zip")
    shutil.rmtree(folder / "made")
    return folder / "m.zip"


def test_a_zip_only_predicts_and_tells_its_classes(request_of, packed):
    project = request_of("models: {p: {path: m.zip}}", [f"{B}\t\tp"])
    assert project.problems == ()
    assert (project.trained(), project.models["p"].runs, project.models["p"].options["num_classes"]) == (
        [],
        ["m.zip"],
        2,
    )
    assert project.evaluated_pairs() == [("p", "B")]


def test_a_folder_of_folds_gives_its_folds_and_single_folders_themselves(request_of, folder):
    make_model(folder / "lib/m", folds=11)
    runs = request_of("models: {p: {path: lib/m}}", [f"{B}\t\tp"]).models["p"].runs
    assert runs[-2:] == ["lib/m/fold_9", "lib/m/fold_10"]
    some = request_of("models: {p: {path: [lib/m/fold_3, lib/m/fold_0]}}", [f"{B}\t\tp"]).models["p"].runs
    assert some == ["lib/m/fold_3", "lib/m/fold_0"]


def test_a_folder_of_biom3d_is_taken(request_of, folder):
    (folder / "theirs/log").mkdir(parents=True)
    (folder / "theirs/log/config.yaml").write_text("A: !!python/tuple [1]\nNUM_CLASSES: 3\n")
    project = request_of("models: {p: {path: theirs}}", [f"{B}\t\tp"])
    assert (project.problems, project.models["p"].options["num_classes"]) == ((), 3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("path: nowhere.zip", "models.p.path: 'nowhere.zip' not found; give a zip made by `biom3d export model`"),
        ("path: data/a", "models.p.path: 'data/a' holds neither plan.yaml nor log/config.yaml; give a zip"),
        ("path: bad.zip", "models.p.path: 'bad.zip' cannot be read (BadZipFile); give a zip"),
        ("path: m.zip, num_classes: 1", "models.p.path: num_classes is 1, the model in 'm.zip' has 2; set 2"),
        ("path: m.zip, location: server", "models.p.path: a path is one of this machine, location: server"),
    ],
)
def test_what_is_wrong_with_a_path_is_told(problems_of, packed, folder, options, problem):
    (folder / "bad.zip").write_bytes(b"no zip")
    found = problems_of(f"models: {{p: {{{options}}}}}", [f"{B}\t\tp"])
    assert any(problem in line for line in found), found


def test_it_is_refused_as_one_to_train(problems_of, packed):
    found = problems_of("models: {p: {path: m.zip}}", [f"{A}\tp"])
    assert f"{TABLE}:2: train: 'p' is given by its path and only predicts; take it out of this column" in found


def test_its_content_counts_and_not_its_place_or_age(packed, folder):
    before = given.content([str(packed)])
    shutil.copy(packed, folder / "other.zip")
    make_model(folder / "changed")
    (folder / "changed/fold_0/model/m_best.pth").write_bytes(b"others")
    pack_model([folder / "changed/fold_0", folder / "changed/fold_1"], folder / "changed.zip")
    assert given.content([str(folder / "other.zip")]) == before
    assert given.content([str(folder / "changed.zip")]) != before


def test_a_model_that_is_used_is_no_leftover(request_of, folder):
    make_model(folder / "logs/old")
    (folder / "results/old").mkdir(parents=True)
    pack_model([folder / "logs/old/fold_0"], folder / "results/old/old.zip")
    project = request_of("models: {m: }", [f"{A}\tm"])
    assert Path("logs/old") in leftovers.find(project)
    project = request_of("models: {m: , p: {path: logs/old}, q: {path: results/old/old.zip}}", [f"{A}\tm", f"{B}\t\tp"])
    assert leftovers.find(project) == []


@pytest.mark.system
def test_a_zip_predicts_again_only_when_its_content_changes(tmp_path, monkeypatch, stand_in):
    monkeypatch.chdir(tmp_path)
    make_cells({"new": 1})
    make_model(tmp_path / "made", classes=1)
    pack_model([tmp_path / "made/fold_0"], tmp_path / "m.zip")
    write_request("models: {p: {path: m.zip}}", ["new\tdata/new/images\tdata/new/masks\t\tp"])
    profile = ("--workflow-profile", str(ROOT / "profiles/local"))
    assert run_snakemake(*profile, PYTHONPATH=str(stand_in)).returncode == 0
    calls = Path("calls.txt").read_text()
    assert "pred --log m.zip " in calls
    assert "eval " in calls
    assert "train" not in {line.split()[0] for line in calls.splitlines()}
    later = time.time() + 100
    os.utime("m.zip", (later, later))
    assert "Nothing to be done" in run_snakemake("--cores", "1", PYTHONPATH=str(stand_in)).stderr
    pack_model([tmp_path / "made/fold_1"], tmp_path / "m.zip")
    assert run_snakemake(*profile, PYTHONPATH=str(stand_in)).returncode == 0
    assert Path("calls.txt").read_text().count("pred --log m.zip ") == 2
