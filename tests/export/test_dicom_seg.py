"""DICOM series through the steps: checked with a NIfTI mask, predicted as NIfTI, exported as DICOM-SEG."""

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from biom3d import check, eval, report
from biom3d.export import main
from biom3d.io import read_header, read_labels, write_labels
from tests.dicom_files import UID, change, write_series

SHAPE = (5, 12, 14)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A data set: images/p1 and p2 are series, pred/ holds labels of both."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("p1", "p2")):
        write_series(tmp_path / "images" / name, rng.integers(0, 90, SHAPE).astype(np.int16), uid=f"{UID}.{number}1")
        labels = np.zeros(SHAPE, np.uint8)
        labels[1, 2:5, 3:9], labels[3, 2:5, 3:9] = 1, 4
        write_labels(tmp_path / "pred" / f"{name}.nii.gz", labels, read_header(tmp_path / "images" / name))
    return tmp_path


def export(case: Path, *options: str) -> int:
    words = ["--path_pred", case / "pred", "--path_in", case / "images", "--out_dir", case / "out", *options]
    return main(["labels", *map(str, words)])


def test_labels_are_written_on_the_slices_of_their_series(case):
    assert export(case, "--formats", "dicom-seg", "ome-tiff") == 0
    for name in ("p1", "p2"):
        made = highdicom.seg.segread(case / "out" / f"{name}.dcm")
        source = [pydicom.dcmread(path) for path in (case / "images" / name).iterdir()]
        source.sort(key=lambda one: float(one.ImagePositionPatient[2]))
        numbers = made.get_pixels_by_source_instance(
            [one.SOPInstanceUID for one in source], combine_segments=True, assert_missing_frames_are_empty=True
        )
        expected = np.asarray(nibabel.load(case / "pred" / f"{name}.nii.gz").dataobj).T
        np.testing.assert_array_equal(numbers, expected)
        assert [made.get_segment_description(number).SegmentLabel for number in (1, 4)] == ["class 1", "class 4"]
        assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == (f"{UID}.9", f"{UID}.8")
        back = read_labels(case / "out" / f"{name}.dcm", read_header(case / "images" / name))
        np.testing.assert_array_equal(back.array[0], expected)


def test_segments_have_the_names_that_were_given(case):
    options = ("--class_names", "liver", "spleen", "--label_values", "1", "4")
    assert export(case, "--formats", "dicom-seg", *options) == 0
    made = highdicom.seg.segread(case / "out" / "p1.dcm")
    assert [made.get_segment_description(number).SegmentLabel for number in (1, 4)] == ["liver", "spleen"]


def test_the_same_labels_get_the_same_names_and_replace_the_earlier_export(case):
    names = []
    for _ in range(2):
        assert export(case, "--formats", "dicom-seg") == 0
        names.append(pydicom.dcmread(case / "out" / "p1.dcm").SOPInstanceUID)
    assert names[0] == names[1]


def test_a_file_of_somebody_else_is_left_alone(case, capsys):
    (case / "out").mkdir()
    (case / "out" / "p1.dcm").write_bytes(b"mine")
    assert export(case, "--formats", "dicom-seg") == 2
    assert "is no earlier export of 'prediction'" in capsys.readouterr().err
    assert (case / "out" / "p1.dcm").read_bytes() == b"mine"


def test_labels_without_an_object_are_a_file_too(case):
    write_labels(case / "pred" / "p1.nii.gz", np.zeros(SHAPE, np.uint8), read_header(case / "images" / "p1"))
    assert export(case, "--formats", "dicom-seg") == 0
    assert not read_labels(case / "out" / "p1.dcm", read_header(case / "images" / "p1")).array.any()


def test_a_series_that_lacks_what_must_be_said_is_refused_in_one_line(case, capsys):
    for path in (case / "images" / "p1").iterdir():
        change(path, lambda head: delattr(head, "FrameOfReferenceUID"))
    assert export(case, "--formats", "dicom-seg") == 2
    assert "p1': no DICOM-SEG can be made of this series: " in capsys.readouterr().err


def test_images_that_are_no_dicom_have_no_dicom_seg(case, capsys):
    for path in (case / "images" / "p1").iterdir():
        path.unlink()
    (case / "images" / "p1").rmdir()
    write_labels(case / "images" / "p1.nii.gz", np.ones(SHAPE, np.uint8), read_header(case / "images" / "p2"))
    assert export(case, "--formats", "dicom-seg") == 0
    assert "1 image(s) are no DICOM, so no DICOM-SEG is written of them: 'p1'" in capsys.readouterr().err
    assert [path.name for path in (case / "out").iterdir()] == ["p2.dcm"]


def test_dicom_seg_serves_as_mask_and_as_truth(case, capsys):
    assert export(case, "--formats", "dicom-seg") == 0
    paths = ["--img_path", str(case / "images"), "--msk_path", str(case / "out")]
    assert check.main([*paths, "--label_values", "1", "4", "--strict"]) == 0
    assert "cases    2, 3D" in capsys.readouterr().out
    words = ["--path_pred", str(case / "pred"), "--path_lab", str(case / "out"), "--label_values", "1", "4"]
    assert eval.main([*words, "--num_classes", "2", "--strict"]) == 0
    assert "1.000" in capsys.readouterr().out
    words = ["--path_pred", str(case / "pred"), "--path_in", str(case / "images"), "--path_lab", str(case / "out")]
    assert report.main(["overlay", *words, "--label_values", "1", "4", "--out_dir", str(case / "views")]) == 0
