from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK

from biom3d.errors import DataError
from biom3d.io import read_header, read_volume, write_labels, write_volume

OBLIQUE = np.array([[-0.4, 0.1, 0, 7], [0.1, 0.4, 0, -3], [0, 0, 1.5, 2.5], [0, 0, 0, 1]])


def save(path, array, affine=None, unit="mm"):
    image = nibabel.Nifti1Image(array, np.diag([0.1, 0.2, 0.3, 1]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1e3), ("micron", 1), ("meter", 1e6), ("unknown", 1e3)])
def test_spacing_is_turned_from_x_y_z_and_into_um(tmp_path, make, unit, factor):
    save(tmp_path / "a.nii", make(14, 12, 5), unit=unit)
    spacing = read_header(tmp_path / "a.nii").spacing_um
    assert spacing == pytest.approx((0.3 * factor, 0.2 * factor, 0.1 * factor), rel=1e-12)


def test_voxels_are_turned_from_x_y_z(tmp_path, make):
    array = make(14, 12, 5)
    save(tmp_path / "a.nii.gz", array)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array[0], array.T)


def test_the_fourth_axis_is_the_channel(tmp_path, make):
    array = make(14, 12, 5, 2)
    save(tmp_path / "a.nii", array)
    back = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(back.array, array.T)
    assert back.header.axes == "CZYX"


def test_the_fifth_axis_is_the_channel_after_one_time_point(tmp_path, make):
    save(tmp_path / "a.nii", make(14, 12, 5, 1, 2))
    assert read_header(tmp_path / "a.nii").shape == (2, 5, 12, 14)


def test_labels_have_the_affine_of_their_image(tmp_path, make):
    save(tmp_path / "a.nii.gz", make(14, 12, 5), OBLIQUE)
    write_labels(tmp_path / "b.nii.gz", make(5, 12, 14, dtype="uint8"), read_header(tmp_path / "a.nii.gz"))
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii.gz").affine, OBLIQUE, atol=1e-6)


def test_another_reader_sees_labels_where_their_image_is(tmp_path, make):
    image = SimpleITK.GetImageFromArray(make(5, 12, 14))
    image.SetSpacing((0.1, 0.2, 0.3))
    image.SetOrigin((7, -3, 2))
    SimpleITK.WriteImage(image, tmp_path / "a.nii.gz")
    write_labels(tmp_path / "b.nii.gz", make(5, 12, 14, dtype="uint8"), read_header(tmp_path / "a.nii.gz"))
    labels = SimpleITK.ReadImage(tmp_path / "b.nii.gz")
    assert labels.GetSpacing() == pytest.approx(image.GetSpacing())
    assert labels.GetOrigin() == pytest.approx(image.GetOrigin())
    assert labels.GetDirection() == pytest.approx(image.GetDirection())


def test_another_spacing_scales_the_affine(tmp_path, make):
    save(tmp_path / "a.nii", make(14, 12, 5), OBLIQUE)
    header = replace(read_header(tmp_path / "a.nii"), spacing_um=(3000.0, 2000.0, 1000.0))
    write_labels(tmp_path / "b.nii", make(5, 12, 14, dtype="uint8"), header)
    assert read_header(tmp_path / "b.nii").spacing_um == pytest.approx((3000, 2000, 1000), rel=1e-6)


def test_scaled_values_are_read_as_float32(tmp_path):
    image = nibabel.Nifti1Image(np.arange(840, dtype=np.int16).reshape(14, 12, 5), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "a.nii")
    back = read_volume(tmp_path / "a.nii")
    assert (back.array.dtype, back.header.dtype) == (np.float32, np.float32)
    assert back.array.max() == pytest.approx(np.asarray(nibabel.load(tmp_path / "a.nii").dataobj).max())


def test_version_2_of_the_format_is_read(tmp_path, make):
    array = make(14, 12, 5)
    nibabel.save(nibabel.Nifti2Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array[0], array.T)


def test_float16_is_written_as_float32(tmp_path, make, header):
    write_volume(tmp_path / "a.nii", make(1, 5, 12, 14, dtype="float16"), header)
    assert read_header(tmp_path / "a.nii").dtype == np.float32


def test_64_bit_integers_survive(tmp_path, make, header):
    write_volume(tmp_path / "a.nii", make(1, 5, 12, 14, dtype="int64"), header)
    assert read_header(tmp_path / "a.nii").dtype == np.int64


def test_a_changed_voxel_in_a_compressed_file_is_noticed(tmp_path, header):
    noise = np.random.default_rng(0).integers(0, 255, (1, 5, 32, 32)).astype(np.uint8)
    write_volume(tmp_path / "a.nii.gz", noise, header)
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-200] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a.nii.gz.*copy it again"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_compressed_file_without_gz_in_its_name_is_refused(tmp_path, make, header):
    write_volume(tmp_path / "a.nii.gz", make(1, 5, 12, 14), header)
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a.nii.*begins like a gzip file"):
        read_volume(tmp_path / "a.nii")
