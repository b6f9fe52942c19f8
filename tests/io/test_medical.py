"""NRRD and MetaImage as SimpleITK writes and reads them, both ways."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import SimpleITK

from biom3d.data.dataset import same_orientation
from biom3d.errors import DataError
from biom3d.io import read_header, read_volume, write_labels, write_volume
from biom3d.io.geometry import place_of

SUFFIXES = [".nrrd", ".mha"]
ANGLE = np.deg2rad(20)
DIRECTION = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, -1.0)


def itk_image(array: np.ndarray, is_vector: bool = False) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing((0.5, 0.7, 2.0))
    image.SetOrigin((5.0, -7.0, 9.0))
    image.SetDirection(DIRECTION)
    return image


def geometry(path) -> tuple:
    image = SimpleITK.ReadImage(path)
    return tuple(np.round((*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()), 9))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_itk_writes_is_read(tmp_path, make, suffix, packed):
    for dtype in ("uint8", "int16", "uint16", "int32", "float32", "float64"):
        array = make(5, 12, 14, dtype=dtype)
        SimpleITK.WriteImage(itk_image(array), tmp_path / f"a{suffix}", useCompression=packed)
        back = read_volume(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(back.array[0], array)
        assert back.array.dtype == array.dtype
        assert (back.header.spacing_um, back.header.unit) == (pytest.approx((2000, 700, 500)), "mm")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_lies_where_the_image_lies_for_itk(tmp_path, make, suffix):
    SimpleITK.WriteImage(itk_image(make(5, 12, 14)), tmp_path / f"a{suffix}")
    labels = make(5, 12, 14, dtype="uint8")
    write_labels(tmp_path / f"b{suffix}", labels, read_header(tmp_path / f"a{suffix}"))
    assert geometry(tmp_path / f"b{suffix}") == geometry(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / f"b{suffix}")), labels)


@pytest.mark.parametrize(("first", "second"), product([*SUFFIXES, ".nii.gz"], repeat=2))
def test_the_place_survives_from_format_to_format(tmp_path, make, first, second):
    SimpleITK.WriteImage(itk_image(make(5, 12, 14)), tmp_path / f"a{first}")
    write_labels(tmp_path / f"b{second}", make(5, 12, 14, dtype="uint8"), read_header(tmp_path / f"a{first}"))
    assert geometry(tmp_path / f"b{second}") == pytest.approx(geometry(tmp_path / f"a{first}"), abs=1e-5)
    headers = [read_header(tmp_path / name) for name in (f"a{first}", f"b{second}")]
    assert place_of(headers[0]) == pytest.approx(place_of(headers[1]), abs=1e-2)
    assert same_orientation(*headers)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_channels_of_itk_are_channels(tmp_path, make, suffix):
    array = make(5, 12, 14, 3)
    SimpleITK.WriteImage(itk_image(array, is_vector=True), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, np.moveaxis(array, 3, 0))


def test_channels_that_are_written_are_those_of_itk(tmp_path, make, header):
    array = make(2, 5, 12, 14)
    write_volume(tmp_path / "a.mha", array, replace(header, axes="CZYX"))
    back = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "a.mha"))
    np.testing.assert_array_equal(np.moveaxis(back, 3, 0), array)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_big_endian_comes_as_native(tmp_path, make, suffix):
    array = make(5, 12, 14)
    text = {
        ".nrrd": "NRRD0004\ntype: uint16\ndimension: 3\nsizes: 14 12 5\nencoding: raw\nendian: big\n\n",
        ".mha": "NDims = 3\nDimSize = 14 12 5\nBinaryDataByteOrderMSB = True\nElementType = MET_USHORT\n"
        "ElementDataFile = LOCAL\n",
    }[suffix]
    (tmp_path / f"a{suffix}").write_bytes(text.encode() + array.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array[0], array)
    assert read_header(tmp_path / f"a{suffix}").spacing_um is None


def test_nrrd_in_microns_of_another_space_is_read(tmp_path, make):
    text = (
        "NRRD0005\n# a comment\ntype: uchar\ndimension: 3\nsizes: 14 12 5\nencoding: raw\nspace: RAS\n"
        'space directions: (0.1,0,0) (0,0.2,0) (0,0,0.3)\nspace units: "microns" "microns" "microns"\n'
        "space origin: (1,2,3)\nkey:=value\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(text.encode() + make(5, 12, 14, dtype="uint8").tobytes())
    header = read_header(tmp_path / "a.nrrd")
    assert header.spacing_um == pytest.approx((0.3, 0.2, 0.1))
    assert place_of(header) == pytest.approx((3, 2, 1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.nrrd", "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: a.raw\n\n"),
        ("a.mha", "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"),
    ],
)
def test_voxels_in_another_file_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}.*keeps its voxels in another file; save it as one"):
        read_header(tmp_path / name)
