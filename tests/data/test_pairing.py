from pathlib import Path

import pytest

from biom3d.data.pairing import Case, pair_volumes, refuse
from biom3d.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_image_and_mask_pair_by_name_whatever_the_suffix(tmp_path):
    images, masks = touch(tmp_path / "i", "a.tif", "b.v1.nii.gz"), touch(tmp_path / "m", "a.npy", "b.v1.ome.tif")
    pairing = pair_volumes([images], [masks])
    assert pairing.cases == (
        Case("a", images / "a.tif", masks / "a.npy"),
        Case("b.v1", images / "b.v1.nii.gz", masks / "b.v1.ome.tif"),
    )


def test_masks_without_an_image_are_named_at_once(tmp_path):
    images, masks = touch(tmp_path / "i", "a.tif", "b.tif"), touch(tmp_path / "m", "a.tif", "d.tif", "e.tif")
    problems = pair_volumes([images], [masks]).problems
    assert [problem.split(":")[0] for problem in problems] == [f"'{masks / name}'" for name in ("d.tif", "e.tif")]


def test_images_without_a_mask_are_told_apart_from_those_that_teach(tmp_path):
    images, masks = touch(tmp_path / "i", "a.tif", "b.tif", "c.tif"), touch(tmp_path / "m", "a.tif")
    pairing = pair_volumes([images], [masks])
    assert [[case.name for case in part] for part in (pairing.cases, pairing.unmasked)] == [["a"], ["b", "c"]]
    assert pairing.problems == ()
    expected = "1 of 3 images have a mask: these teach and are scored, the others are segmented only"
    assert pairing.coverage() == expected


def test_an_image_without_mask_renames_none_that_teaches(tmp_path):
    images = [touch(tmp_path / name / "images", f"{name}.tif", "new.tif") for name in ("x", "y")]
    masks = [touch(tmp_path / name / "masks", f"{name}.tif") for name in ("x", "y")]
    pairing = pair_volumes(images, masks)
    assert [case.name for case in pairing.cases] == ["x", "y"]
    assert [case.name for case in pairing.unmasked] == ["x_new", "y_new"]


def test_names_that_never_match_give_a_hint(tmp_path):
    images, masks = touch(tmp_path / "i", "a.tif"), touch(tmp_path / "m", "a_mask.tif", "b_mask.tif")
    assert "rename them alike, for example 'a_mask.tif' -> 'a.tif'" in pair_volumes([images], [masks]).problems[-1]


def test_two_files_are_a_pair_under_any_names(tmp_path):
    folder = touch(tmp_path, "a.tif", "truth.tif")
    pairing = pair_volumes([folder / "a.tif"], [folder / "truth.tif"])
    assert pairing.cases == (Case("a", folder / "a.tif", folder / "truth.tif"),)


def test_images_alone_need_no_masks(tmp_path):
    images = touch(tmp_path / "i", "a.tif")
    assert pair_volumes([images]).cases == (Case("a", images / "a.tif", None),)


def test_the_same_name_in_two_folders_gets_the_data_set_in_front(tmp_path):
    images = [touch(tmp_path / name / "images", "a.tif") for name in ("x", "y")]
    masks = [touch(tmp_path / name / "masks", "a.tif") for name in ("x", "y")]
    pairing = pair_volumes(images, masks)
    assert [(case.name, case.mask) for case in pairing.cases] == [
        ("x_a", masks[0] / "a.tif"),
        ("y_a", masks[1] / "a.tif"),
    ]


def test_different_names_in_two_folders_stay_as_they_are(tmp_path):
    images = [touch(tmp_path / name / "images", f"{name}.tif") for name in ("x", "y")]
    assert [case.name for case in pair_volumes(images).cases] == ["x", "y"]


def test_folders_that_differ_at_no_one_level_are_numbered(tmp_path):
    images = [touch(tmp_path / name / "images", "a.tif") for name in ("x", "y", "x")]
    names = [case.name for case in pair_volumes(images).cases]
    assert names == ["1_a", "2_a", "3_a"]


def test_each_image_folder_wants_its_mask_folder(tmp_path):
    images = touch(tmp_path / "i", "a.tif")
    assert "1 image folders and 2 mask folders" in pair_volumes([images], [images, images]).problems[0]


def test_a_missing_folder_is_a_problem_not_an_exception(tmp_path):
    images = touch(tmp_path / "i", "a.tif")
    pairing = pair_volumes([images], [tmp_path / "gone"])
    assert pairing.cases == ()
    assert "gone': no such file or folder" in pairing.problems[0]


def test_problems_are_refused_together():
    with pytest.raises(DataError, match=r"^2 problems with the data set:\n  one\n  two$"):
        refuse(["one", "two"])


def test_no_problem_is_fine():
    refuse([])
