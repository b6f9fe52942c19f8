"""What is linked, what is converted, and labels on the way back, judged by our own readers."""

import nibabel
import numpy as np
import pytest
import tifffile
from biom3d_upstream import volumes
from biom3d_upstream.contract import InputError

from biom3d.io import read_header, read_labels, read_volume
from tests.upstream.conftest import SHAPE, ball


def test_a_tiff_that_biom3d_reads_right_is_linked(data, tmp_path):
    volumes.stage_image(data / "images/v0.tif", tmp_path / "v0.tif", None, is_2d=False)
    assert (tmp_path / "v0.tif").is_symlink()


def test_nifti_becomes_tiff_with_its_voxel_size(tmp_path):
    image = nibabel.Nifti1Image(ball().transpose(2, 1, 0), np.diag([0.002, 0.003, 0.004, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    volumes.stage_image(tmp_path / "a.nii.gz", tmp_path / "a.tif", None, is_2d=False)
    staged = read_volume(tmp_path / "a.tif")
    assert np.array_equal(staged.array[0], ball())
    assert staged.header.spacing_um == pytest.approx((4, 3, 2), rel=1e-4)


def test_channels_are_brought_to_the_front(tmp_path):
    array = np.arange(5 * 2 * 8 * 9, dtype=np.uint16).reshape(5, 2, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZCYX"})
    volumes.stage_image(tmp_path / "a.tif", tmp_path / "b.tif", None, is_2d=False)
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), array.swapaxes(0, 1))


def test_a_spacing_of_the_table_is_written_into_the_image(data, tmp_path):
    volumes.stage_image(data / "images/v0.tif", tmp_path / "a.tif", (2.0, 1.0, 1.0), is_2d=False)
    assert read_header(tmp_path / "a.tif").spacing_um == pytest.approx((2, 1, 1))


@pytest.mark.parametrize("suffix", ["tif", "ome.tif", "nii.gz", "npy"])
def test_labels_come_back_in_the_format_of_the_image(tmp_path, suffix):
    image, target = tmp_path / f"a.{suffix}", tmp_path / "out" / f"a.{suffix}"
    target.parent.mkdir()
    if suffix == "npy":
        np.save(image, ball())
    elif suffix == "nii.gz":
        nibabel.save(nibabel.Nifti1Image(ball().transpose(2, 1, 0), np.eye(4)), image)
    else:
        tifffile.imwrite(image, ball(), metadata={"axes": "ZYX"})
    volumes.write_labels_like(image, ball(), target, None)
    assert np.array_equal(read_labels(target).array[0], ball())


def test_labels_get_the_voxel_size_that_biom3d_drops(data, tmp_path):
    volumes.write_labels_like(data / "images/v0.tif", ball(), tmp_path / "a.tif", None)
    assert read_header(tmp_path / "a.tif").spacing_um == pytest.approx((0.5, 0.25, 0.25))


@pytest.mark.parametrize(
    ("labels", "num_classes", "instances", "classes"),
    [((0, 255), 1, False, [0, 1]), ((0, 3, 7), 1, True, [0, 1, 1]), ((0, 1, 2), 2, False, [0, 1, 2])],
)
def test_labels_become_classes(tmp_path, labels, num_classes, instances, classes):
    np.save(tmp_path / "a.npy", np.array([[labels]], np.uint8))
    assert volumes.read_classes(tmp_path / "a.npy", num_classes, instances).ravel().tolist() == classes


def test_labels_beyond_the_classes_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[0, 1, 5]]]))
    with pytest.raises(InputError, match=r"labels up to 5, wanted 0..2"):
        volumes.read_classes(tmp_path / "a.npy", 2, False)


def test_a_format_without_reader_is_refused(tmp_path):
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(InputError, match="upstream engine reads"):
        volumes.list_volumes(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(InputError, match=r"a.tif' cannot be read"):
        volumes.shape_of(tmp_path / "a.tif")


def test_the_shape_of_a_volume_is_known_without_reading_it(data):
    assert volumes.shape_of(data / "images/v0.tif") == (1, *SHAPE)
