"""DICOM series and DICOM-SEG beside what SimpleITK (GDCM) and highdicom read and write."""

import sys
import warnings
from pathlib import Path

import highdicom
import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes

from biom3d.data.dataset import same_orientation
from biom3d.errors import ConfigError, DataError
from biom3d.io import list_volumes, open_volume, passed_over, read_header, read_labels, read_volume, write_labels
from tests.dicom_files import OBLIQUE, UID, change, file_at, itk_read, write_series

SHAPE = (5, 12, 14)


@pytest.fixture
def array(make) -> np.ndarray:
    return make(*SHAPE, dtype="int16") * 20 - 1000


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("direction", [OBLIQUE, (1, 0, 0, 0, 0, -1, 0, 1, 0), (-1, 0, 0, 0, -1, 0, 0, 0, 1)])
def test_a_series_is_what_simpleitk_reads(tmp_path, array, direction, packed):
    write_series(tmp_path / "a", array, direction, packed=packed)
    theirs, ours = itk_read(tmp_path / "a"), read_volume(tmp_path / "a")
    np.testing.assert_array_equal(ours.array[0], SimpleITK.GetArrayFromImage(theirs))
    np.testing.assert_array_equal(ours.array[0], array)
    assert ours.header.spacing_um == pytest.approx((2000, 700, 500))
    write_labels(tmp_path / "b.nii.gz", np.ones(SHAPE, np.uint8), ours.header)
    labels = SimpleITK.ReadImage(tmp_path / "b.nii.gz")
    for place in ((0, 0, 0), (13, 0, 4), (3, 11, 2)):
        there = labels.TransformIndexToPhysicalPoint(place)
        assert there == pytest.approx(theirs.TransformIndexToPhysicalPoint(place), abs=1e-4)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, 0, "int16"), (1, -1024, "int32"), (2, 3, "int32"), (0.25, -3.5, "float32")]
)
def test_values_are_rescaled(tmp_path, array, slope, intercept, dtype):
    write_series(tmp_path / "a", array, RescaleSlope=slope, RescaleIntercept=intercept)
    ours = read_volume(tmp_path / "a")
    np.testing.assert_array_equal(ours.array[0], array * slope + intercept)
    np.testing.assert_array_equal(ours.array[0], SimpleITK.GetArrayFromImage(itk_read(tmp_path / "a")))
    assert ours.array.dtype == dtype == ours.header.dtype


def test_hounsfield_units_of_twelve_bits_stay_small(tmp_path, make):
    stored = make(*SHAPE) * 40
    write_series(tmp_path / "a", stored, BitsStored=12, HighBit=11, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read_volume(tmp_path / "a").array[0], stored.astype(int) - 1024)
    assert read_header(tmp_path / "a").dtype == np.int16


def test_every_slice_has_its_own_slope(tmp_path, array):
    write_series(tmp_path / "a", array)
    for z in range(5):
        change(file_at(tmp_path / "a", z), lambda head, z=z: setattr(head, "RescaleSlope", 0.5 + z))
    np.testing.assert_array_equal(read_volume(tmp_path / "a").array[0], array * (0.5 + np.arange(5))[:, None, None])


ENCODERS = {
    uid.JPEGLosslessSV1: imagecodecs.ljpeg_encode,
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEG2000Lossless: lambda plane: imagecodecs.jpeg2k_encode(plane, reversible=True, level=0, codecformat="j2k"),
}


@pytest.mark.parametrize("syntax", [*ENCODERS, uid.RLELossless, uid.DeflatedExplicitVRLittleEndian])
def test_compressed_series_are_read(tmp_path, make, syntax):
    stored = make(*SHAPE)
    write_series(tmp_path / "a", stored)

    def pack(head: pydicom.Dataset) -> None:
        if syntax == uid.RLELossless:
            head.compress(syntax)
            return
        if syntax in ENCODERS:
            head.PixelData = encapsulate([ENCODERS[syntax](head.pixel_array)])
            head["PixelData"].is_undefined_length = True
        head.file_meta.TransferSyntaxUID = syntax

    for path in (tmp_path / "a").iterdir():
        change(path, pack)
    np.testing.assert_array_equal(read_volume(tmp_path / "a").array[0], stored)


def test_planes_are_read_one_by_one(tmp_path, array):
    write_series(tmp_path / "a", array)
    with open_volume(tmp_path / "a") as lazy:
        file_at(tmp_path / "a", 4).unlink()
        np.testing.assert_array_equal(lazy.read(1, 3)[0], array[1:3])


def test_a_folder_of_series_folders_is_a_data_set(tmp_path, array):
    for name in ("p1", "p2"):
        write_series(tmp_path / name, array)
    for number, path in enumerate(sorted((tmp_path / "p2").iterdir())):
        path.rename(path.with_name(f"{number}"))  # as scanners name files
    (tmp_path / "p3.nii.gz").touch()
    (tmp_path / "notes").mkdir()
    assert [path.name for path in list_volumes(tmp_path)] == ["p1", "p2", "p3.nii.gz"]
    assert "1 folder passed over: 'notes'" in passed_over(tmp_path)
    assert list_volumes(tmp_path / "p2") == [tmp_path / "p2"]
    assert passed_over(tmp_path / "p2") is None
    np.testing.assert_array_equal(read_volume(tmp_path / "p2").array[0], array)


def test_a_file_of_a_series_stands_for_it(tmp_path, array):
    write_series(tmp_path / "a", array)
    write_series(tmp_path / "a", array[:3] + 1, uid=f"{UID}.2")  # replaces three of the files
    np.testing.assert_array_equal(read_volume(tmp_path / "a" / "IM000.dcm").array[0], array[:3] + 1)


def test_several_series_are_listed_and_one_can_be_named(tmp_path, array):
    folder = tmp_path / "a"
    write_series(folder, array, SeriesDescription="T1")
    for path in folder.iterdir():
        path.rename(path.with_suffix(""))
    write_series(folder, array + 1, uid=f"{UID}.2", SeriesDescription="T2")
    with pytest.raises(DataError, match=rf"holds 2 series .*'{UID}' \(CT 'T1', 5 files\), '{UID}.2' \(CT 'T2'"):
        read_header(folder)
    for key in (f"{UID}.2", "T2"):
        np.testing.assert_array_equal(read_volume(f"{folder}:{key}").array[0], array + 1)
    assert list_volumes(folder, "T2") == [Path(f"{folder}:T2")]
    with pytest.raises(DataError, match=r"no series 'T3' in it; it holds '1\.2"):
        read_header(f"{folder}:T3")


def test_missing_slices_are_told(tmp_path, array):
    write_series(tmp_path / "a", array)
    file_at(tmp_path / "a", 2).unlink()
    header = read_header(tmp_path / "a")
    assert header.shape == (1, 4, 12, 14)
    assert header.spacing_um == pytest.approx((2000, 700, 500))
    (remark,) = header.remarks
    assert remark.kind == "warning"
    assert "1 slices seem to be missing, the first between slices 1 and 2, at 11 and 15 mm; the others lie 2 mm" in (
        remark.text
    )


def test_uneven_gaps_are_told(tmp_path, array):
    write_series(tmp_path / "a", array)
    change(file_at(tmp_path / "a", 2), lambda head: setattr(head, "ImagePositionPatient", [5, -7, 13.5]))
    (remark,) = read_header(tmp_path / "a").remarks
    assert "lie unevenly, 1.5 to 2.5 mm apart" in remark.text


def test_a_tilted_gantry_is_told(tmp_path, array):
    write_series(tmp_path / "a", array)
    for z in range(5):
        change(file_at(tmp_path / "a", z), lambda head, z=z: setattr(head, "ImagePositionPatient", [5, -7 + z, 2 * z]))
    (remark,) = read_header(tmp_path / "a").remarks
    assert "tilted gantry, 26.6 degrees" in remark.text


def test_slices_at_one_place_are_refused(tmp_path, array):
    write_series(tmp_path / "a", array)
    place = pydicom.dcmread(file_at(tmp_path / "a", 1)).ImagePositionPatient
    change(file_at(tmp_path / "a", 2), lambda head: setattr(head, "ImagePositionPatient", place))
    with pytest.raises(DataError, match="5 slices, 1 of them at the place of another: several time points"):
        read_header(tmp_path / "a")


def test_slices_without_places_have_no_voxel_size(tmp_path, array):
    write_series(tmp_path / "a", array)
    for path in (tmp_path / "a").iterdir():
        change(path, lambda head: delattr(head, "ImagePositionPatient"))
    volume = read_volume(tmp_path / "a")
    np.testing.assert_array_equal(volume.array[0], array[::-1])  # the order of their numbers
    assert (volume.header.spacing_um, len(volume.header.remarks)) == (None, 1)


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, 1], "point different ways"),
        ("Rows", 6, "several sizes: .* of 14 x 12 and 1 of 14 x 6"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused(tmp_path, array, tag, value, said):
    write_series(tmp_path / "a", array)
    change(file_at(tmp_path / "a", 1), lambda head: setattr(head, tag, value))
    with pytest.raises(DataError, match=said):
        read_header(tmp_path / "a")


def test_a_slice_that_was_cut_off_is_named(tmp_path, array):
    write_series(tmp_path / "a", array)
    path = file_at(tmp_path / "a", 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{path.name}': (damaged or cut off|its pixels cannot be read)"):
        read_volume(tmp_path / "a")


def test_many_frames_in_one_file_are_a_volume(tmp_path, array):
    write_series(tmp_path / "a", array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = [pydicom.dcmread(path) for path in sorted((tmp_path / "a").iterdir())]
        for one in source:
            one.StudyInstanceUID, one.FrameOfReferenceUID = f"{UID}.9", f"{UID}.8"
        enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(source, f"{UID}.3", 2, f"{UID}.4", 1)
    (tmp_path / "many").mkdir()
    for name in ("x.dcm", "y"):
        enhanced.save_as(tmp_path / "many" / name)
    assert [path.name for path in list_volumes(tmp_path / "many")] == ["x.dcm", "y"]
    ours, series = read_volume(tmp_path / "many" / "y"), read_volume(tmp_path / "a")
    np.testing.assert_array_equal(ours.array, series.array)
    assert ours.header.spacing_um == series.header.spacing_um
    np.testing.assert_allclose(ours.header.extra["affine"], series.header.extra["affine"])


def test_without_pydicom_it_says_what_to_install(tmp_path, array, monkeypatch):
    write_series(tmp_path / "a", array)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"DICOM needs pydicom; install it: pip install 'biom3d-workflow\[dicom\]'"):
        read_header(tmp_path / "a")


# DICOM-SEG


def put_segmentation(path: Path, series: Path, labels: np.ndarray, omit: bool) -> None:
    """Write what other programs do: highdicom leaves empty slices out, unless asked."""
    source = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda one: -int(one.InstanceNumber))
    segments = [
        highdicom.seg.SegmentDescription(
            number, f"s{number}", codes.SCT.Organ, codes.SCT.Liver, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number in (1, 2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = highdicom.seg.Segmentation(
            *(source, labels, highdicom.seg.SegmentationTypeValues.BINARY, segments, f"{UID}.6", 3, f"{UID}.7", 1),
            *("maker", "model", "1", "1"),
            omit_empty_frames=omit,
        )
    path.parent.mkdir(exist_ok=True)
    made.save_as(path)


@pytest.fixture
def labels() -> np.ndarray:
    out = np.zeros(SHAPE, np.uint8)
    out[1, 2:5, 3:9], out[3, 2:5, 3:9], out[3, 7, 7] = 1, 2, 1
    return out


@pytest.mark.parametrize("omit", [False, True])
def test_a_segmentation_is_a_mask_on_the_slices_of_its_series(tmp_path, array, labels, omit):
    write_series(tmp_path / "a", array)
    put_segmentation(tmp_path / "m" / "a.dcm", tmp_path / "a", labels, omit)
    image = read_header(tmp_path / "a")
    mask = read_labels(list_volumes(tmp_path / "m")[0], image)
    np.testing.assert_array_equal(mask.array[0], labels)
    assert same_orientation(mask.header, image)
    assert mask.header.spacing_um == pytest.approx(image.spacing_um)


def test_a_segmentation_without_its_image_has_the_slices_between_its_own(tmp_path, array, labels):
    write_series(tmp_path / "a", array)
    put_segmentation(tmp_path / "m" / "a.dcm", tmp_path / "a", labels, omit=True)
    labels[2, 1, 1] = 1
    put_segmentation(tmp_path / "m" / "b.dcm", tmp_path / "a", labels, omit=True)
    whole = read_labels(tmp_path / "m" / "b.dcm")
    np.testing.assert_array_equal(whole.array[0], labels[1:4])
    assert whole.header.spacing_um == pytest.approx((2000, 700, 500))
    np.testing.assert_allclose(np.array(whole.header.extra["affine"])[:3, 3], (-5, 7, 11), atol=1e-4)
