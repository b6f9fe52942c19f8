"""What `python -m biom3d.check` says about good, odd and bad data sets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from biom3d.check import main
from biom3d.data.identity import identify_file
from biom3d.io import Header, write_labels, write_volume

SPACING = (0.3, 0.2, 0.1)
SHAPE = (16, 24, 24)


def image(seed: int, shape: tuple[int, ...] = SHAPE, dtype: str = "uint8") -> np.ndarray:
    return (np.random.default_rng(seed).random((1, *shape)) * 200).astype(dtype)


def labels(*values: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A mask with one plane of each value, the rest background."""
    mask = np.zeros(shape, np.uint8)
    for plane, value in enumerate(values):
        mask[plane] = value
    return mask


def put(path: Path, array: np.ndarray, axes: str = "ZYX", spacing: tuple[float, ...] | None = SPACING) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 4:
        write_volume(path, array, Header(array.shape, array.dtype, axes, spacing))
    else:
        write_labels(path, array, Header((1, *array.shape), array.dtype, axes, spacing))


@pytest.fixture
def data(tmp_path):
    """Two good cases in data/images and data/masks."""
    for seed, name in enumerate(("a", "b")):
        put(tmp_path / "data" / "images" / f"{name}.tif", image(seed))
        put(tmp_path / "data" / "masks" / f"{name}.tif", labels(1, 1))
    return tmp_path / "data"


@pytest.fixture
def check(data, capsys):
    """Run the check on the data; return exit code, what was printed, and the result."""

    def run(*options: str, classes: int = 1):
        out = data.parent / "out.json"
        args = ["--img_path", str(data / "images"), "--msk_path", str(data / "masks"), "--out", str(out)]
        code = main([*args, "--num_classes", str(classes), *options])
        said = capsys.readouterr()
        return code, said.err + said.out, json.loads(out.read_text()) if out.exists() else None

    return run


def assert_refused(result, *texts: str) -> None:
    code, printed, facts = result
    assert (code, facts) == (2, None)
    assert [text for text in texts if text not in printed] == []
    assert "Traceback" not in printed


def test_good_data_pass_with_the_facts_of_each_case(check, data):
    code, _, facts = check()
    assert (code, facts["warnings"], facts["notes"]) == (0, [], [])
    assert facts["cases"][0] == {
        "name": "a",
        "image": str(data / "images" / "a.tif"),
        "mask": str(data / "masks" / "a.tif"),
        "shape": [1, 16, 24, 24],
        "dtype": "uint8",
        "axes": "ZYX",
        "spacing_um": [pytest.approx(size, rel=1e-6) for size in SPACING],
        "channel_names": [],
        "unit": "µm",
        "min": 0.0,
        "max": 199.0,
        "digest": identify_file(data / "images" / "a.tif"),
        "voxels": {"0": 14 * 24 * 24, "1": 2 * 24 * 24},
    }


def test_the_table_says_cases_shape_spacing_and_classes(check):
    printed = check()[1]
    assert "cases    2, 3D, 1 channel(s), uint8, values 0 to 199" in printed
    assert "shape    16 x 24 x 24 (z, y, x)" in printed
    assert "spacing  0.3 x 0.2 x 0.1 µm (z, y, x)" in printed
    assert "class 1: 12.5 % of the voxels, in 2 of 2 masks" in printed


def test_images_alone_are_checked(data, capsys):
    assert main(["--img_path", str(data / "images")]) == 0
    assert "cases    2" in capsys.readouterr().out


def test_labels_are_counted_without_the_number_of_classes(data, capsys):
    put(data / "masks" / "a.tif", labels(5, 9))
    assert main(["--img_path", str(data / "images"), "--msk_path", str(data / "masks")]) == 0
    assert "class 9" in capsys.readouterr().out


def test_all_problems_are_named_at_once(check, data):
    put(data / "images" / "alone.tif", image(3))
    put(data / "masks" / "b.tif", labels(1, shape=(8, 24, 24)))
    (data / "images" / "a.tif").write_bytes(b"II*\0")
    put(data / "masks" / "odd.tif", labels(1))
    assert_refused(check(), "3 problems", "a.tif", "odd.tif': mask without image", "b.tif': mask of 8 x 24 x 24")


def test_images_given_as_their_own_masks_are_refused(data, capsys):
    options = ["--img_path", str(data / "images"), "--msk_path", str(data / "images"), "--instances"]
    assert main(options) == 2
    printed = capsys.readouterr().err
    assert printed.count("the mask is its image, voxel by voxel") == 2


def test_a_copy_of_the_images_as_masks_is_refused_too(check, data):
    for name in ("a", "b"):
        shutil.copy(data / "images" / f"{name}.tif", data / "masks" / f"{name}.tif")
    assert_refused(check("--instances"), "the mask is its image")


def test_masks_without_background_are_refused(check, data):
    for name in ("a", "b"):
        put(data / "masks" / f"{name}.tif", np.ones((16, 24, 24), np.uint8))
    assert_refused(check(), "objects fill more than 99% of every mask")


def test_one_full_mask_among_others_is_fine(check, data):
    put(data / "masks" / "a.tif", np.ones((16, 24, 24), np.uint8))
    assert check()[0] == 0


def test_nanometres_given_as_micrometres_are_refused(check):
    z, y, x = (str(1000 * size) for size in SPACING)
    assert_refused(check("--spacing", z, y, x), "is 1000 times the voxel size in", "is it in another unit?")


def test_a_spacing_that_is_far_from_that_of_the_files_is_warned_of(check):
    code, printed, _ = check("--spacing", "1", "0.2", "0.1")
    assert code == 0
    assert "warning: --spacing 1 0.2 0.1 is used, not the voxel size of the files" in printed
    assert "warning: --spacing" not in check("--spacing", "0.31", "0.2", "0.1")[1]


def test_masks_may_cover_a_part_of_the_images(check, data):
    put(data / "images" / "new.tif", image(3))
    code, printed, facts = check()
    assert (code, [case["mask"] is None for case in facts["cases"]]) == (0, [False, False, True])
    assert "2 of 3 images have a mask: these teach and are scored, the others are segmented only" in printed


def test_mask_without_image_is_refused(check, data):
    put(data / "masks" / "c.tif", labels(1))
    assert_refused(check(), "c.tif': mask without image", "add the image")


def test_an_empty_folder_is_refused(check, data):
    for path in (data / "masks").iterdir():
        path.unlink()
    assert_refused(check(), "masks': no image found there, nothing; wanted")


def test_a_missing_folder_is_refused(check, data):
    (data / "masks").rename(data / "truth")
    assert_refused(check(), "masks': no such file or folder; check the path")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused_with_their_place(check, data, value):
    array = image(0, dtype="float32")
    array[0, 1, 2, 3] = array[0, 4, 5, 6] = value
    put(data / "images" / "a.tif", array)
    assert_refused(check(), "a.tif': 2 voxels are NaN or infinite, the first at c=0, z=1, y=2, x=3; wanted finite")


def test_labels_that_are_not_whole_are_refused_with_their_place(check, data):
    mask = labels(1).astype(np.float32)[None]
    mask[0, 1, 2, 3] = 0.5
    put(data / "masks" / "a.tif", mask)
    assert_refused(check(), "a.tif': 1 voxels are no whole numbers, the first is 0.5 at z=1, y=2, x=3; wanted labels")


def test_whole_float_labels_pass(check, data):
    put(data / "masks" / "a.tif", labels(1).astype(np.float32)[None])
    assert check()[2]["cases"][0]["voxels"]["1"] == 24 * 24


def test_a_mask_of_0_and_255_passes_with_a_warning(check, data):
    put(data / "masks" / "a.tif", labels(255))
    code, _, facts = check()
    assert (code, facts["cases"][0]["voxels"]["1"]) == (0, 24 * 24)
    assert facts["warnings"] == [f"'{data / 'masks' / 'a.tif'}': value 255 is taken as class 1"]


def test_objects_with_numbers_are_refused_for_one_class(check, data):
    put(data / "masks" / "a.tif", labels(1, 2, 3))
    assert_refused(check(), "a.tif': found 0, 1, 2, 3, wanted 0..1", "pass --instances", "--num_classes 3")


def test_objects_with_numbers_pass_as_instances(check, data):
    put(data / "masks" / "a.tif", labels(1, 2, 3))
    assert check("--instances")[2]["cases"][0]["voxels"]["1"] == 3 * 24 * 24


def test_instances_contradict_several_classes(check):
    code, printed, _ = check("--instances", classes=2)
    assert code == 2
    assert "--instances makes one class of all labels, --num_classes is 2" in printed


def test_labels_beyond_the_classes_are_refused(check, data):
    put(data / "masks" / "a.tif", labels(1, 2, 7))
    assert_refused(check(classes=2), "a.tif': found 0, 1, 2, 7, wanted 0..2; pass --num_classes 3 --label_values 1 2 7")


def test_a_class_that_never_occurs_is_a_warning(check):
    assert check(classes=2)[2]["warnings"] == ["class 2 occurs in no mask; is --num_classes 2 right?"]


def test_an_empty_mask_is_a_warning(check, data):
    put(data / "masks" / "a.tif", labels())
    assert check()[2]["warnings"] == [f"'{data / 'masks' / 'a.tif'}': no object in it, all background"]


def test_only_empty_masks_are_refused(check, data):
    for name in ("a", "b"):
        put(data / "masks" / f"{name}.tif", labels())
    assert_refused(check(), "no mask has an object in it")


def test_an_unreadable_mask_does_not_count_as_empty(check, data):
    put(data / "masks" / "a.tif", labels())
    (data / "masks" / "b.tif").write_bytes(b"II*\0")
    assert "no mask has an object" not in check()[1]


def test_a_constant_image_is_a_warning(check, data):
    put(data / "images" / "a.tif", np.full((1, *SHAPE), 7, np.uint8))
    assert check()[2]["warnings"] == [f"'{data / 'images' / 'a.tif'}': every voxel is 7: is this an image?"]


def test_the_same_image_twice_is_a_warning(check, data):
    put(data / "images" / "b.nii.gz", image(0))
    (data / "images" / "b.tif").unlink()
    assert "the same voxels under several names: 'a', 'b'" in check()[2]["warnings"][-1]


def test_mixed_2d_and_3d_are_refused(check, data):
    put(data / "images" / "c.tif", image(3, (1, 24, 24)), "YX")
    put(data / "masks" / "c.tif", labels(1, shape=(1, 24, 24)), "YX")
    assert_refused(check(), "c.tif' is 2D, most are 3D")


def test_different_channel_counts_are_refused(check, data):
    put(data / "images" / "c.tif", np.repeat(image(3), 2, axis=0), "CZYX")
    put(data / "masks" / "c.tif", labels(1))
    assert_refused(check(), "c.tif' has 2 channel(s), most have 1")


def test_spacing_in_some_files_only_is_refused(check, data):
    put(data / "images" / "b.tif", image(1), spacing=None)
    assert_refused(check(), "do not tell their voxel spacing", "b.tif", "--spacing Z Y X")


def test_a_given_spacing_holds_for_all(check, data):
    put(data / "images" / "b.tif", image(1), spacing=None)
    code, _, facts = check("--spacing", "1", "0.5", "0.5")
    assert (code, [case["spacing_um"] for case in facts["cases"]]) == (0, [[1, 0.5, 0.5]] * 2)


def test_spacings_far_apart_are_a_warning(check, data):
    put(data / "images" / "b.tif", image(1), spacing=(300, 200, 100))
    assert "voxel sizes differ more than 10-fold" in check()[2]["warnings"][-1]


def test_a_mask_with_another_spacing_is_a_warning(check, data):
    put(data / "masks" / "a.tif", labels(1), spacing=(1, 1, 1))
    assert "voxel size 1 x 1 x 1 µm, but its image says 0.3 x 0.2 x 0.1 µm" in check()[2]["warnings"][0]


def test_unknown_spacing_everywhere_is_a_note(check, data):
    for seed, name in enumerate(("a", "b")):
        put(data / "images" / f"{name}.tif", image(seed), spacing=None)
    assert "no image says its voxel size" in check()[2]["notes"][0]


def test_thick_planes_are_a_note(check):
    assert check("--spacing", "2", "0.5", "0.5")[2]["notes"] == ["anisotropic: a voxel is 4.0 times as thick as wide"]


def test_one_volume_and_a_tiny_one_are_notes(check, data):
    for folder in ("images", "masks"):
        (data / folder / "b.tif").unlink()
    put(data / "images" / "a.tif", image(0, (4, 24, 24)))
    put(data / "masks" / "a.tif", labels(1, shape=(4, 24, 24)))
    notes = "\n".join(check()[2]["notes"])
    assert "only 4 x 24 x 24 voxels; an axis below 8" in notes
    assert "one volume only: it is cut into blocks" in notes


def test_different_types_are_a_note(check, data):
    put(data / "images" / "b.tif", image(1, dtype="uint16"))
    assert "the images have different types: uint8: 'a'; uint16: 'b'" in check()[2]["notes"][-1]


def test_several_folders_are_one_data_set(check, data, capsys):
    (data.parent / "other").mkdir()
    for folder in ("images", "masks"):
        (data / folder / "b.tif").rename(data.parent / "other" / f"{folder}-b.tif")
    for kind, array in (("images", image(5)), ("masks", labels(1))):
        put(data.parent / "other" / kind / "a.tif", array)
    folders = [[str(top / kind) for top in (data, data.parent / "other")] for kind in ("images", "masks")]
    out = data.parent / "two.json"
    assert main(["--img_path", *folders[0], "--msk_path", *folders[1], "--num_classes", "1", "--out", str(out)]) == 0
    assert [case["name"] for case in json.loads(out.read_text())["cases"]] == ["data_a", "other_a"]


def test_2d_data_pass(check, data):
    for seed, name in enumerate(("a", "b")):
        put(data / "images" / f"{name}.tif", image(seed, (1, 24, 24)), "YX")
        mask = np.zeros((1, 24, 24), np.uint8)
        mask[0, :4] = 1
        put(data / "masks" / f"{name}.tif", mask, "YX")
    code, printed, _ = check()
    assert code == 0
    assert "2D, 1 channel(s)" in printed


def test_classes_below_one_are_refused(check):
    code, printed, _ = check(classes=0)
    assert (code, "--num_classes 0: wanted at least 1" in printed) == (2, True)


def test_odd_names_of_folders_work(data, capsys):
    data = data.rename(data.parent / "dä [ta] 'x\"")
    assert main(["--img_path", str(data / "images"), "--msk_path", str(data / "masks"), "--num_classes", "1"]) == 0


def test_events_tell_warnings_and_the_end(check, data):
    put(data / "masks" / "a.tif", labels(255))
    check("--events", str(data / "events.jsonl"))
    events = [json.loads(line) for line in (data / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "warning", "done"]


def test_bad_volumes_are_left_out_and_named_where_that_is_wanted(data, check):
    (data / "images" / "b.tif").write_bytes(b"II*\0damaged")
    put(data / "images" / "c.tif", image(3))
    put(data / "masks" / "d.tif", labels(1))
    assert_refused(check(), "images/b.tif")
    code, printed, facts = check("--skip_bad")
    assert (code, facts["num_cases"], len(facts["left_out"])) == (0, 2, 2)
    assert printed.count("warning: left out: ") == 2


def test_left_out_is_no_word_of_a_good_data_set(check):
    assert "left_out" not in check("--skip_bad")[2]


@pytest.mark.parametrize("classes", ["1", "12"])
def test_of_masks_that_are_no_whole_numbers_nothing_else_is_said(tmp_path, classes, capsys):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number, name in enumerate("ab"):
        mask = np.zeros((8, 16, 16), np.float32)
        mask[2:5, 4:9, 4:9] = 10.92 + number
        np.save(tmp_path / "images" / f"{name}.npy", (60 + 5 * mask + number).astype(np.uint16))
        np.save(tmp_path / "masks" / f"{name}.npy", mask)
    argv = ["--img_path", str(tmp_path / "images"), "--msk_path", str(tmp_path / "masks"), "--num_classes", classes]
    assert main(argv) == 2
    words = capsys.readouterr().err
    assert "2 problems with the data set" in words
    assert words.count("75 voxels are no whole numbers") == 2
