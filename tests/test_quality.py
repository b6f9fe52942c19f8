"""The quality step: a row per volume, the most suspicious first, also without truth."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from biom3d import preprocess
from biom3d.data.learned import TrainingSet, read_training_set, write_training_set
from biom3d.export.package import MANIFEST
from biom3d.io import read_labels, write_labels
from biom3d.quality import main
from tests.test_preprocess import header, make_set


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Images with predictions (the masks, one of them emptied) and a model folder with its record."""
    data = make_set(tmp_path)
    paths = ["--img_path", str(data / "images"), "--msk_path", str(data / "masks"), "--out_dir", str(data / "pre")]
    assert preprocess.main([*paths, "--plan_out", str(data / "plan.yaml"), "--folds", "2"]) == 0
    (data / "run" / "log").mkdir(parents=True)
    shutil.copy(data / "pre" / "training_set.json", data / "run" / "log")
    shutil.copytree(data / "masks", data / "pred")
    write_labels(data / "pred" / "c.tif", np.zeros((16, 24, 24), np.uint8), header((16, 24, 24)))
    told = {
        f"{name}.tif": {"kind": "held-out", "models": ["fold_0", "fold_1"], "fold_agreement": a}
        for name, a in (("a", 0.99), ("b", 0.5), ("c", None), ("d", 0.97))
    }
    (data / "pred" / ".biom3d-predictions.json").write_text(json.dumps({"volumes": told}))
    return data


def quality(place: Path, *more: str) -> list[dict[str, str]]:
    options = [
        "--path_pred",
        str(place / "pred"),
        "--path_in",
        str(place / "images"),
        "--out_csv",
        str(place / "q.csv"),
    ]
    assert main([*options, *more]) == 0
    with open(place / "q.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_most_suspicious_volume_comes_first_with_its_reason(place):
    rows = quality(place, "--log", str(place / "run"))
    assert [row["case"] for row in rows] == ["c", "b", "d", "a"]
    assert rows[0]["flags"] == "no objects found, every training image has some"
    assert rows[1]["flags"] == "the folds disagree (mean Dice of pairs 0.50)"
    assert [row["flags"] for row in rows[2:]] == ["", ""]
    assert (rows[3]["kind"], rows[3]["objects"], rows[3]["size_unit"], rows[3]["notes"]) == ("held-out", "1", "µm³", "")


def test_a_model_without_record_is_told(place):
    rows = quality(place)
    assert {row["notes"] for row in rows} == {"the model has no record of its training set to compare with"}


def test_one_fold_has_none_to_disagree_with_and_says_so(place):
    told = {"a.tif": {"kind": "cross-validated", "models": ["fold_0"]}}
    (place / "pred" / ".biom3d-predictions.json").write_text(json.dumps({"volumes": told}))
    notes = {row["case"]: row["notes"] for row in quality(place, "--log", str(place / "run"))}
    assert notes["a"] == "predicted by one fold: none to disagree with"
    assert notes["b"].startswith("predicted before agreement was recorded")


def test_the_record_in_a_zip_counts_too(place):
    import zipfile

    with zipfile.ZipFile(place / "m.zip", "w") as archive:
        archive.write(place / "run" / "log" / "training_set.json", "fold_0/log/training_set.json")
        archive.writestr(MANIFEST, "{}")
    assert quality(place, "--log", str(place / "m.zip"))[0]["flags"].startswith("no objects found")


def test_tables_become_one_with_model_and_data_set(place, tmp_path):
    for dataset in ("x", "y"):
        folder = tmp_path / "results" / "m" / dataset
        folder.mkdir(parents=True)
        quality(place, "--log", str(place / "run"))
        shutil.copy(place / "q.csv", folder / "quality.csv")
    files = [str(tmp_path / "results" / "m" / dataset / "quality.csv") for dataset in ("x", "y")]
    assert main(["--tables", *files, "--out_csv", str(tmp_path / "all.csv")]) == 0
    with open(tmp_path / "all.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["dataset"], row["case"]) for row in rows[:3]] == [
        ("m", "x", "c"),
        ("m", "y", "c"),
        ("m", "x", "b"),
    ]


@pytest.mark.parametrize("text", ["", "case,suspicion\na,x\n", "case\na\n"])
def test_a_table_of_something_else_is_refused(tmp_path, text, capsys):
    (tmp_path / "t.csv").write_text(text or "a\n1\n")
    assert main(["--tables", str(tmp_path / "t.csv"), "--out_csv", str(tmp_path / "o.csv")]) == 2
    assert "is no table of quality" in capsys.readouterr().err


def test_volumes_of_another_image_are_refused(place, capsys):
    write_labels(place / "pred" / "a.tif", read_labels(place / "pred" / "a.tif").array[0][:8], header((8, 24, 24)))
    options = [
        "--path_pred",
        str(place / "pred"),
        "--path_in",
        str(place / "images"),
        "--out_csv",
        str(place / "q.csv"),
    ]
    assert main(options) == 2
    assert "give the images that were predicted" in capsys.readouterr().err


def test_the_scheme_is_recorded(place, tmp_path):
    assert read_training_set(place / "pre" / "training_set.json").scheme == "zscore"
    write_training_set(tmp_path / "r.json", TrainingSet(scheme="ct"))
    assert read_training_set(tmp_path / "r.json").scheme == "ct"
