import numpy as np

from biom3d.data.planner import SAMPLES, sample_object_voxels
from biom3d.planning.fingerprint import make_fingerprint


def test_the_median_shape_is_that_after_resampling():
    facts = make_fingerprint([(1, 10, 20, 20)] * 3, [(1.0, 1, 1), (2.0, 1, 1), (2.0, 1, 1)], is_2d=False)
    assert facts.spacing_um == (2.0, 1.0, 1.0)
    assert facts.median_shape == (10, 20, 20)


def test_spacing_that_files_round_differently_counts_as_the_same():
    assert make_fingerprint([(1, 8, 8, 8)] * 2, [(1.0, 1, 1), (1.005, 1, 1)], is_2d=False).same_spacing


def test_one_file_without_spacing_makes_it_unknown():
    assert make_fingerprint([(1, 8, 8, 8)] * 2, [(1.0, 1, 1), None], is_2d=False).spacing_um is None


def test_intensities_come_from_objects_alone():
    image, mask = np.zeros((1, 4, 8, 8)), np.zeros((4, 8, 8), np.uint8)
    image[0, 1], mask[1] = 7.0, 1
    voxels = sample_object_voxels(image, mask, np.random.default_rng(0))
    assert voxels.shape == (1, 64)
    assert (voxels == 7).all()


def test_no_more_voxels_are_sampled_than_wanted():
    voxels = sample_object_voxels(np.ones((2, 30, 30, 30)), np.ones((30, 30, 30)), np.random.default_rng(0))
    assert voxels.shape == (2, SAMPLES)
