"""Rare classes: how often patches hold them, in sets where one voxel in 10,000 is of a class."""

import numpy as np
import pytest

from biom3d.data.patches import Case, sample_batch, sample_foreground

PATCH = (8, 16, 16)


def rare_case(seed: int, voxels: int, shape=(32, 64, 64)) -> Case:
    """Return a volume in which class 1 has `voxels` voxels in a row and class 2 a hundred times as many."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    mask[20:30, 40:60, 5 : 5 + voxels // 2] = 2
    mask[5, 9, 10 : 10 + voxels] = 1
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    return Case("c", image, mask, sample_foreground(mask, 2, rng))


@pytest.mark.parametrize("voxels", [1, 13])  # of 131,072: 1 to 131,072 and 1 to 10,000
def test_a_class_of_one_voxel_in_ten_thousand_is_in_an_eighth_of_the_patches_or_more(voxels):
    case, rng = rare_case(0, voxels), np.random.default_rng(1)
    batches = [sample_batch([case], PATCH, (0, 0, 0), 2, 0.5, rng)[1] for _ in range(100)]
    held = np.mean([(mask == 1).any() for batch in batches for mask in batch])
    assert held >= 0.125  # by chance it would be 2 % and less


def test_classes_are_drawn_equally_often_however_rare():
    case, rng = rare_case(0, 13), np.random.default_rng(1)
    masks = [sample_batch([case], PATCH, (0, 0, 0), 1, 1.0, rng)[1] for _ in range(200)]
    rare, common = (sum((mask == label).any() for mask in masks) for label in (1, 2))
    assert 0.7 < rare / common < 1.4


def test_a_rare_class_is_kept_whole_where_a_common_one_is_thinned_out():
    mask = np.ones((40, 40, 40), np.uint8)
    mask[3, 4, 5] = 2
    found = sample_foreground(mask, 2, np.random.default_rng(0))
    assert (len(found[1]), found[2].tolist()) == (10_000, [[3, 4, 5]])
