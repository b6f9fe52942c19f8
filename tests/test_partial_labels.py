"""Masks that are annotated in parts only, and masks whose numbers leave gaps, from check to eval."""

import json
from pathlib import Path

import numpy as np
import pytest

from biom3d import check, pred, preprocess, train
from biom3d.config import load_plan
from biom3d.eval import main as evaluate
from biom3d.io import read_labels, write_labels, write_volume
from tests.test_preprocess import header

SHAPE = (16, 32, 32)
CODING = ("--num_classes", "2", "--ignore_label", "255", "--label_values", "1", "4")


def truth(shift: int = 0) -> np.ndarray:
    """Two boxes along z: a dark one of value 1, a bright one of value 4."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 4 + shift : 14 + shift, 6:26] = 1
    labels[:, 18 + shift : 28 + shift, 6:26] = 4
    return labels


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> Path:
    """A set of which three planes a volume are annotated, as `masks`; `full` has all of them."""
    folder = tmp_path_factory.mktemp("sparse")
    rng = np.random.default_rng(0)
    for part in ("images", "masks", "full"):
        (folder / part).mkdir()
    for number, name in enumerate("abcd"):
        labels = truth(number)
        image = (rng.normal(100, 5, (1, *SHAPE)) + np.array([0, -50, 0, 0, 50])[labels]).astype(np.uint16)
        annotated = np.full(SHAPE, 255, np.uint8)
        annotated[[3, 8, 12]] = labels[[3, 8, 12]]
        write_volume(folder / "images" / f"{name}.tif", image, header(SHAPE))
        write_labels(folder / "masks" / f"{name}.tif", annotated, header(SHAPE))
        write_labels(folder / "full" / f"{name}.tif", labels, header(SHAPE))
    return folder


def paths(folder: Path) -> list[str]:
    return ["--img_path", str(folder / "images"), "--msk_path", str(folder / "masks")]


@pytest.fixture(scope="module")
def model(sparse) -> Path:
    """The set preprocessed, a model trained on it, and its predictions."""
    out = ["--out_dir", str(sparse / "pre"), "--plan_out", str(sparse / "plan.yaml"), "--desc", "m", "--folds", "2"]
    size = [
        "--width",
        "4",
        "--patch_size",
        "8",
        "32",
        "32",
        "--num_epochs",
        "6",
        "--num_steps",
        "20",
        "--optimizer",
        "sgd",
    ]
    assert preprocess.main([*paths(sparse), *out, *size, *CODING]) == 0
    options = ["--config", str(sparse / "plan.yaml"), "--data_dir", str(sparse / "pre")]
    assert train.main([*options, "--run_dir", str(sparse / "run")]) == 0
    run = ["--log", str(sparse / "run"), "--path_in", str(sparse / "images"), "--out_dir", str(sparse / "pred")]
    assert pred.main(run) == 0
    return sparse


def dices(folder: Path, masks: str, *options: str) -> dict[int, float]:
    out = folder / "scores.json"
    argv = ["-p", str(folder / "pred"), "-l", str(folder / masks), "-f", "dice", "--out_json", str(out), *options]
    assert evaluate(argv) == 0
    rows = json.loads(out.read_text())["cases"]
    return {label: float(np.mean([row["dice"] for row in rows if row["class"] == label])) for label in (1, 2)}


def test_three_annotated_planes_a_volume_teach_the_whole(model):
    found = dices(model, "full", "--num_classes", "2", "--label_values", "1", "4")
    assert min(found.values()) > 0.8


def test_predictions_have_the_values_of_the_masks(model):
    assert set(np.unique(read_labels(model / "pred" / "a.tif").array)) == {0, 1, 4}
    assert load_plan(model / "run" / "plan.yaml").label_values == (1, 4)


def test_only_what_is_annotated_is_evaluated(model, tmp_path):
    whole = dices(model, "masks", *CODING)
    for name in "abcd":
        (tmp_path / "pred").mkdir(exist_ok=True)
        labels = read_labels(model / "pred" / f"{name}.tif").array[0].copy()
        labels[[0, 1, 2, 5, 15]] = 4
        write_labels(tmp_path / "pred" / f"{name}.tif", labels, header(SHAPE))
    (tmp_path / "masks").symlink_to(model / "masks")
    assert dices(tmp_path, "masks", *CODING) == whole


def test_preprocessed_masks_say_what_is_not_annotated(model):
    mask = np.load(model / "pre" / "masks" / "a.npy")[0]
    assert set(np.unique(mask)) == {-1, 0, 1, 2}
    with np.load(model / "pre" / "foreground" / "a.npz") as voxels:
        assert (mask[tuple(voxels["labelled"].T)] >= 0).all()
        assert (mask[tuple(voxels["2"].T)] == 2).all()
    assert load_plan(model / "plan.yaml").fingerprint.class_voxels[0] == 4 * 3 * 32 * 32 - 4 * 3 * 400


def test_check_counts_what_is_annotated(sparse, tmp_path, capsys):
    assert check.main([*paths(sparse), *CODING, "--out", str(tmp_path / "facts.json")]) == 0
    voxels = json.loads((tmp_path / "facts.json").read_text())["cases"][0]["voxels"]
    assert voxels == {"0": 3 * 624, "1": 3 * 200, "2": 3 * 200}


def test_check_says_which_options_these_masks_want(sparse, capsys):
    assert check.main([*paths(sparse), "--num_classes", "2"]) == 2
    words = capsys.readouterr().err
    assert "found 0, 1, 4, 255, wanted 0..2; pass --num_classes 3 --label_values 1 4 255" in words
    assert check.main([*paths(sparse), "--num_classes", "2", "--label_values", "1", "4"]) == 2
    assert "if 255 marks what nobody has annotated pass --ignore_label 255" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label_values", "1", "4", "--num_classes", "3"], "names 2 class(es), --num_classes is 3"),
        (["--label_values", "1", "1", "--num_classes", "2"], "each once"),
        (["--label_values", "0", "4", "--num_classes", "2"], "numbers above 0"),
        (["--label_values", "1", "4", "--num_classes", "2", "--ignore_label", "4"], "is the background or a class"),
        (["--label_values", "4", "--instances"], "leave it or --label_values out"),
    ],
)
def test_contradictions_are_told(sparse, options, words, capsys):
    assert check.main([*paths(sparse), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_model_is_fine_tuned_to_another_number_of_classes(model, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in "abcd":
        write_labels(
            masks / f"{name}.tif", (read_labels(model / "full" / f"{name}.tif").array[0] > 0) * 1, header(SHAPE)
        )
    base = ["--base_config", str(model / "run" / "plan.yaml"), "--num_classes", "1", "--num_epochs", "1"]
    out = ["--out_dir", str(tmp_path / "pre"), "--plan_out", str(tmp_path / "plan.yaml"), "--folds", "2"]
    assert preprocess.main(["--img_path", str(model / "images"), "--msk_path", str(masks), *base, *out]) == 0
    options = [
        "--config",
        str(tmp_path / "plan.yaml"),
        "--data_dir",
        str(tmp_path / "pre"),
        "--log",
        str(model / "run"),
    ]
    assert train.main([*options, "--run_dir", str(tmp_path / "run")]) == 0
    assert "knows 2 class(es), the plan 1: the last layer starts anew" in capsys.readouterr().err


def test_a_class_that_only_validation_holds_is_named(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number, name in enumerate("abcd"):
        labels = truth() > 0
        labels = labels.astype(np.uint8) * (2 if number == 0 else 1)
        image = np.random.default_rng(number).normal(100, 5, (1, *SHAPE)).astype(np.uint16)
        write_volume(tmp_path / "images" / f"{name}.tif", image, header(SHAPE))
        write_labels(tmp_path / "masks" / f"{name}.tif", labels, header(SHAPE))
    out = ["--out_dir", str(tmp_path / "pre"), "--plan_out", str(tmp_path / "plan.yaml"), "--folds", "4"]
    size = [
        "--width",
        "4",
        "--patch_size",
        "8",
        "16",
        "16",
        "--num_epochs",
        "1",
        "--num_steps",
        "1",
        "--num_classes",
        "2",
    ]
    assert preprocess.main([*paths(tmp_path), *out, *size]) == 0
    rows = (tmp_path / "pre" / "folds.csv").read_text().splitlines()
    fold = next(row for row in rows if row.startswith("a.npy")).rpartition(",")[2]
    options = ["--config", str(tmp_path / "plan.yaml"), "--data_dir", str(tmp_path / "pre"), "--fold", fold]
    assert train.main([*options, "--run_dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert f"fold {fold}: class 2 is only in the volumes that validate it; its model cannot learn that" in said
    assert "it is not learned" not in said  # once is enough
