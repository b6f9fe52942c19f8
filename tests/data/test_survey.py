import numpy as np
import pytest

from biom3d.data.survey import measure_image, measure_mask
from biom3d.io import Header, write_volume

PLANE = 12 * 14


@pytest.fixture
def save(tmp_path):
    def write(array):
        path = tmp_path / "a.tif"
        write_volume(path, array[None], Header((1, *array.shape), array.dtype, "ZYX"))
        return path

    return write


def test_slabs_of_an_image_give_what_the_whole_gives(save):
    array = np.random.default_rng(0).normal(size=(5, 12, 14)).astype(np.float32)
    array[3, 4, 5] = array[4, 0, 0] = np.nan
    slabs, whole = (measure_image(save(array), voxels_at_once=planes * PLANE) for planes in (2, 5))
    assert (slabs.low, slabs.high, slabs.not_finite) == (whole.low, whole.high, 2)
    assert slabs.first_not_finite == whole.first_not_finite == (0, 3, 4, 5)
    assert slabs.digest == whole.digest


def test_slabs_of_a_mask_give_what_the_whole_gives(save):
    array = np.random.default_rng(0).integers(0, 4, (5, 12, 14)).astype(np.float32)
    array[3, 4, 5] = array[4, 0, 0] = 0.5
    slabs, whole = (measure_mask(save(array), voxels_at_once=planes * PLANE) for planes in (2, 5))
    assert slabs == whole
    assert slabs.first_not_whole == "0.5 at z=3, y=4, x=5"


def test_another_voxel_gives_another_digest_and_another_type_does_not(save):
    array = np.zeros((5, 12, 14), np.uint8)
    digests = {measure_image(save(array)).digest, measure_image(save(array.astype(np.uint16))).digest}
    array[4, 11, 13] = 1
    digests.add(measure_image(save(array)).digest)
    assert len(digests) == 2


def test_an_image_without_any_number_has_no_range(save):
    facts = measure_image(save(np.full((5, 12, 14), np.nan, np.float32)))
    assert facts.not_finite == 5 * PLANE
