import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biom3d.data.resample import CUBIC, LINEAR, axis_weights, resample, resample_labels, target_shape

sizes = st.integers(1, 40)


@settings(deadline=None)
@given(sizes, sizes, st.sampled_from([CUBIC, LINEAR]))
def test_weights_of_every_sample_sum_to_one(n_in, n_out, taps):
    index, weight = axis_weights(n_in, n_out, taps)
    assert np.allclose(weight.sum(1), 1)
    assert index.min() >= 0
    assert index.max() < n_in


@pytest.mark.parametrize("taps", [CUBIC, LINEAR])
def test_the_same_size_changes_nothing(taps):
    array = np.random.default_rng(0).random((2, 5, 6, 7)).astype(np.float32)
    assert np.array_equal(resample(array, (5, 6, 7), taps), array)


def test_a_ramp_stays_a_ramp_inside():
    ramp = np.arange(20, dtype=np.float32)[None, :, None, None] * np.ones((1, 1, 2, 2), np.float32)
    finer = resample(ramp, (40, 2, 2))[0, :, 0, 0]
    assert np.allclose(np.diff(finer[6:-6]), 0.5, atol=1e-5)


def test_labels_keep_their_values_and_their_type():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6] = 3
    finer = resample_labels(labels, (16, 16, 16))
    assert finer.dtype == np.uint8
    assert set(np.unique(finer)) == {0, 3}
    assert (finer[5:11, 5:11, 4:12] == 3).all()


def test_there_and_back_returns_the_labels():
    labels = (np.indices((8, 10, 12)).sum(0) > 14).astype(np.uint8)
    assert np.mean(resample_labels(resample_labels(labels, (16, 20, 24)), (8, 10, 12)) == labels) > 0.99


def test_the_target_shape_follows_the_spacing():
    assert target_shape((10, 20, 20), (2.0, 1.0, 1.0), (1.0, 1.0, 1.0)) == (20, 20, 20)


def test_rounded_spacing_and_unknown_spacing_change_no_shape():
    assert target_shape((10, 20, 20), (1.004, 1, 1), (1.0, 1, 1)) == (10, 20, 20)
    assert target_shape((10, 20, 20), None, (1.0, 1, 1)) == (10, 20, 20)


def test_agrees_with_scipy_on_a_smooth_volume():
    from scipy import ndimage

    z, y, x = np.indices((16, 16, 16)) / 5
    array = (np.sin(z) * np.cos(y) * np.sin(x + 1)).astype(np.float32)
    theirs = ndimage.zoom(array, 2, order=3, mode="nearest", grid_mode=True)
    ours = resample(array, (32, 32, 32))
    assert np.abs(theirs - ours)[6:-6, 6:-6, 6:-6].max() < 0.01 * array.std()
