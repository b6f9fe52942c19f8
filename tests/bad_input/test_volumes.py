"""Images and masks that cannot be used: every step names the file, what it found, what it wants, what to do."""

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from biom3d.io import read_volume
from biom3d.preprocess import main as preprocess
from tests.bad_input.conftest import SHAPE, STEPS, Refused, labels, put

IMAGE, MASK, PRED = Path("data/images/b.tif"), Path("data/masks/b.tif"), Path("data/pred/b.tif")
COPY_AGAIN = "copy it again from its source"
Spoil = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rubbish(path: Path) -> None:
    path.write_bytes(b"no image at all")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.tif")


def one_voxel(value: float, dtype: str = "float32") -> Spoil:
    def spoil(path: Path) -> None:
        array = read_volume(path).array.astype(dtype)
        array[0, 3, 2, 1] = value
        put(path, array)

    return spoil


def becomes(array: np.ndarray) -> Spoil:
    return lambda path: put(path, array)


DAMAGE = [
    (rubbish, ["not a TIFF file", "found what begins like another kind of file, 15 bytes", COPY_AGAIN]),
    (cut, [COPY_AGAIN]),
    (empty, ["the file is empty (0 bytes)", COPY_AGAIN]),
]


@pytest.mark.parametrize(("spoil", "words"), DAMAGE, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize(
    ("step", "path"),
    [
        ("preprocess", IMAGE),
        ("preprocess", MASK),
        ("pred", IMAGE),
        ("eval", PRED),
        ("eval", MASK),
        ("export", PRED),
        ("export", IMAGE),
        ("report", PRED),
    ],
)
def test_a_damaged_file_is_named_in_every_step(refused: Refused, step: str, path: Path, spoil: Spoil, words: list[str]):
    spoil(path)
    if step in ("export", "report"):
        keep_only("b")
    refused(step, f"'{path}'", *words)


def keep_only(name: str) -> None:
    """Leave one case, so that a step that stops at the first bad case has nothing done before it."""
    for path in Path("data").glob("*/*.tif"):
        if path.stem != name:
            path.unlink()


ODD_VOXELS = [
    (one_voxel(np.nan), ["voxel value nan at c=0, z=3, y=2, x=1", "wanted finite numbers", "replace such voxels"]),
    (one_voxel(-np.inf), ["voxel value -inf at c=0, z=3, y=2, x=1", "wanted finite numbers", "replace such voxels"]),
    (one_voxel(1e300, "float64"), ["voxel value 1e+300 at c=0", "wanted finite numbers of ordinary size"]),
]


@pytest.mark.parametrize(("spoil", "words"), ODD_VOXELS, ids=["nan", "inf", "huge"])
@pytest.mark.parametrize("step", ["preprocess", "pred"])
def test_an_image_with_voxels_that_are_no_numbers_is_refused(refused, step, spoil, words):
    spoil(IMAGE)
    refused(step, f"'{IMAGE}'", *words)


@pytest.mark.parametrize(
    ("spoil", "path", "words"),
    [
        (Path.unlink, IMAGE, [f"'{MASK}': mask without image", "wanted an image called 'b'", "add the image"]),
        (folder_instead, IMAGE, [f"'{MASK}': mask without image", "add the image"]),
        (broken_link, IMAGE, [f"'{IMAGE}': no such file", "check the path"]),
        (
            becomes(np.zeros((1, 16, 24, 20), np.uint8)),
            MASK,
            [f"'{MASK}': mask of 16 x 24 x 20 voxels, its image '{IMAGE}' has 16 x 24 x 24", "wanted the same"],
        ),
        (
            becomes(np.zeros((2, *SHAPE), np.uint8)),
            MASK,
            [f"'{MASK}': mask with 2 channels; wanted one channel of labels 0, 1, ..., N"],
        ),
        (becomes(np.ones((1, 1, 24, 24), np.uint16)), IMAGE, [f"'{IMAGE}' is 2D, most are 3D", "either 2D or 3D"]),
        (
            becomes(np.ones((2, *SHAPE), np.uint16)),
            IMAGE,
            [f"'{IMAGE}' has 2 channel(s), most have 1; give all images the same channels"],
        ),
        (
            becomes(labels(1, 3)),
            MASK,
            [f"'{MASK}'", "found 0, 1, 3, wanted 0..1", "pass --instances", "--num_classes 2 --label_values 1 3"],
        ),
        (
            becomes(labels(-1, dtype="int16")),
            MASK,
            [f"'{MASK}'", "found the negative value -1, wanted 0..1; give the background 0"],
        ),
        (
            becomes(labels(0.5, dtype="float32")),
            MASK,
            [f"'{MASK}': labels must be whole numbers, found 0.5 at z=4, y=0, x=6", "save the labels as integers"],
        ),
        (one_voxel(np.nan), MASK, [f"'{MASK}': labels must be whole numbers, found nan at z=3, y=2, x=1"]),
    ],
)
def test_preprocess_says_what_is_wrong_with_a_data_set(refused, spoil, path, words):
    spoil(path)
    refused("preprocess", *words)


def test_every_bad_file_is_named_at_once(refused):
    rubbish(IMAGE)
    Path("data/images/c.tif").unlink()
    assert "data/masks/c.tif" in refused("preprocess", "mask without image")
    Path("data/masks/c.tif").unlink()
    one_voxel(0.5)(Path("data/masks/a.tif"))
    refused("preprocess", f"'{IMAGE}'", "not a TIFF file")


@pytest.mark.parametrize(
    ("spoil", "path", "words"),
    [
        (
            Path.unlink,
            PRED,
            ["true volume(s) in 'data/masks' without a prediction in 'data/pred': 'b'", "predict them"],
        ),
        (
            becomes(np.zeros((1, 16, 24, 20), np.uint8)),
            PRED,
            [f"'{PRED}', '{MASK}'", "prediction has shape (16, 24, 20) (z, y, x), the truth (16, 24, 24)", "same grid"],
        ),
        (
            becomes(np.zeros((1, 1, 24, 24), np.uint8)),
            MASK,
            [f"'{PRED}', '{MASK}'", "the truth (1, 24, 24)", "same grid"],
        ),
        (becomes(np.zeros((2, *SHAPE), np.uint8)), MASK, [f"'{MASK}': a label volume has one channel, this has 2"]),
        (becomes(labels(1, 3)), MASK, [f"'{MASK}'", "found 0, 1, 3, wanted 0..1", "pass --instances"]),
        (becomes(labels(0.5, dtype="float32")), PRED, [f"'{PRED}': labels must be whole numbers, found 0.5"]),
        (one_voxel(np.inf), MASK, [f"'{MASK}': labels must be whole numbers, found inf"]),
    ],
)
def test_eval_says_what_is_wrong_with_a_pair(refused, spoil, path, words):
    spoil(path)
    refused("eval", *words)


@pytest.mark.parametrize(
    ("spoil", "path", "words"),
    [
        (
            becomes(np.ones((1, 1, 24, 24), np.uint16)),
            IMAGE,
            [f"'{IMAGE}': it is a 2D image", "trained on volumes", "give"],
        ),
        (
            becomes(np.ones((2, *SHAPE), np.uint16)),
            IMAGE,
            [f"'{IMAGE}': it has 2 channel(s), the model wants 1", "give"],
        ),
        (broken_link, IMAGE, [f"'{IMAGE}': no such file", "check the path"]),
    ],
)
def test_pred_says_why_the_model_cannot_take_an_image(refused, spoil, path, words):
    spoil(path)
    refused("pred", *words)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            becomes(np.zeros((1, 16, 24, 20), np.uint8)),
            [f"'{PRED}' have shape (1, 16, 24, 20)", "wanted the same grid"],
        ),
        (becomes(labels(0.5, dtype="float32")), [f"'{PRED}': labels must be whole numbers, found 0.5"]),
        (becomes(np.zeros((2, *SHAPE), np.uint8)), [f"'{PRED}': a label volume has one channel, this has 2"]),
    ],
)
def test_export_says_why_a_prediction_is_none(refused, spoil, words):
    spoil(PRED)
    keep_only("b")
    refused("export", *words)


def test_export_and_report_name_a_prediction_without_image(refused):
    IMAGE.unlink()
    for step in ("export", "report"):
        refused(step, "1 prediction(s) in 'data/pred' without image of the same name in 'data/images': 'b'")


@pytest.mark.parametrize("step", ["preprocess", "pred", "eval", "export", "report"])
def test_an_empty_folder_is_named(refused, step):
    folder = Path("data/images" if step in ("preprocess", "pred") else "data/pred")
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes.txt").touch()
    refused(step, f"'{folder}': no image found there, only 'notes.txt'", "wanted files that end in .ome.tiff")


@pytest.mark.parametrize("step", ["preprocess", "pred", "eval", "export", "report"])
def test_a_folder_that_is_not_there_is_named(refused, step):
    folder = Path("data/images" if step in ("preprocess", "pred") else "data/pred")
    shutil.rmtree(folder)
    refused(step, f"'{folder}': no such file or folder; check the path")


@pytest.mark.parametrize("step", ["preprocess", "pred", "eval"])
def test_a_name_that_is_no_text_is_explained(refused, step):
    for path in Path("data").glob("*/b.tif"):
        os.rename(path, os.fsencode(path.parent) + b"/b\xf6.tif")  # noqa: PTH104
    refused(step, "UTF-8", "rename")


# What is odd, and still has a right answer


def run(*options: str) -> int:
    return preprocess([*STEPS["preprocess"], *options])


def test_one_mask_without_objects_is_told_and_used(work, capfd):
    put(MASK, labels())
    assert run() == 0
    assert f"warning: '{MASK}': no object in it, all background" in capfd.readouterr().err
    assert np.load("out/pre/masks/b.npy").max() == 0


def test_masks_that_are_all_background_are_refused(refused):
    for path in Path("data/masks").iterdir():
        put(path, labels())
    refused(
        "preprocess", "no mask has an object in it", "'data/masks/a.tif'", "wanted labels 1..1", "is --msk_path right?"
    )


def test_a_class_that_occurs_nowhere_is_told(work, capfd):
    assert run("--num_classes", "3") == 0
    assert "class 2, 3 occurs in no mask; is --num_classes 3 right?" in capfd.readouterr().err


def test_whole_numbers_stored_as_floats_are_labels(work):
    put(MASK, labels(1, dtype="float64"))
    assert run() == 0
    assert np.load("out/pre/masks/b.npy").dtype == np.uint8


def test_a_mask_of_0_and_255_is_taken_as_one_class_and_told(work, capfd):
    put(MASK, labels(255))
    assert run() == 0
    assert f"'{MASK}': value 255 is taken as class 1" in capfd.readouterr().err
    assert np.load("out/pre/masks/b.npy").max() == 1


def test_one_single_image_is_cut_in_two_and_told(work, capfd):
    keep_only("b")
    assert run() == 0
    assert "1 volume(s) for 2 fold(s): each is cut into 2 blocks" in capfd.readouterr().err


@pytest.mark.parametrize("patch", [("8", "16", "16"), ("32", "32", "32")])
@pytest.mark.parametrize("cases", [1, 3])
def test_one_image_and_images_below_the_patch_go_through_all_steps(work, patch, cases):
    if cases == 1:
        keep_only("b")
    assert run("--patch_size", *patch) == 0
    options = ["--config", "out/plan.yaml", "--run_dir", "out/run", "--threads", "1"]
    assert import_module("biom3d.train").main(options) == 0
    assert import_module("biom3d.pred").main([*STEPS["pred"], "--log", "out/run"]) == 0
    assert read_volume("out/pred/b.tif").array.shape == (1, *SHAPE)


def test_one_single_image_too_small_to_cut_is_named(refused):
    keep_only("b")
    refused("preprocess", f"'{IMAGE}'", "too small to be cut into 5 blocks", "--folds", options=["--folds", "5"])


def test_volumes_too_small_for_any_network_are_explained(refused):
    for path in Path("data").glob("*/*.tif"):
        put(path, np.ones((1, 3, 3, 3), np.uint8))
    message = refused("preprocess", "patch_size [3, 3, 3]", "larger volumes", options=["--patch_size", "3", "3", "3"])
    assert "such as 8 or 16 voxels" in message
