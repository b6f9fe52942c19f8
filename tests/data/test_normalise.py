import numpy as np
import pytest

from biom3d.config import Normalisation
from biom3d.data.normalise import choose_scaling, mean_and_std


def test_zscore_brings_each_channel_to_mean_0_and_std_1():
    image = np.random.default_rng(0).normal([[[[5.0]]], [[[100.0]]]], [[[[2.0]]], [[[30.0]]]], (2, 8, 9, 10))
    scaled = choose_scaling(Normalisation(), [image], 2).apply(image)
    assert scaled.dtype == np.float32
    assert scaled.mean((1, 2, 3)) == pytest.approx([0, 0], abs=1e-5)
    assert scaled.std((1, 2, 3)) == pytest.approx([1, 1], abs=1e-4)


def test_statistics_in_blocks_equal_those_of_the_whole():
    image = np.random.default_rng(0).integers(60000, 60100, (2, 17, 5, 5)).astype(np.uint16)
    mean, std = mean_and_std((image[:, z : z + 4] for z in range(0, 17, 4)), 2)
    assert mean == pytest.approx(image.mean((1, 2, 3)), rel=1e-12)
    assert std == pytest.approx(image.std((1, 2, 3)), rel=1e-9)


def test_a_constant_image_becomes_zero_not_nan():
    image = np.full((1, 4, 4, 4), 7, np.uint8)
    assert not choose_scaling(Normalisation(), [image], 1).apply(image).any()


def test_ct_clips_and_scales_all_volumes_alike():
    normal = Normalisation("ct", low=(-100.0,), high=(300.0,), mean=(100.0,), std=(50.0,))
    image = np.array([-1000.0, 100.0, 3000.0]).reshape(1, 1, 1, 3)
    assert choose_scaling(normal, [], 1).apply(image).ravel().tolist() == [-4.0, 0.0, 4.0]
