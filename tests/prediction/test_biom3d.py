import numpy as np
import pytest
import torch

from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.prediction.biom3d import (
    Scheme,
    decide,
    padded_axis,
    predict_like_biom3d,
    resampled_shape,
    resize_image,
    resize_labels,
)
from biom3d.prediction.postprocess import keep_big_biom3d, keep_centred
from tests.prediction.test_sliding import Threshold, lazy, predictor


def predict(array, spacing=None, scheme=Scheme(None)):  # noqa: B008 (frozen)
    labels = np.zeros(array.shape[1:], np.uint8)
    predict_like_biom3d(predictor([Threshold()]), scheme, lazy(array)[0], spacing, labels, Reporter("pred"))
    return labels


@pytest.mark.parametrize("shape", [(20, 40, 40), (5, 16, 40), (3, 7, 9)])
def test_every_voxel_gets_the_answer_of_the_network(shape):
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    assert np.array_equal(predict(array) > 0, array[0] > array.mean())


@pytest.mark.parametrize(
    ("length", "patch", "padding", "starts"),
    [(31, 32, 8, [0, 15]), (64, 64, 16, [0, 32]), (128, 64, 16, [0, 32, 64, 96]), (1, 1, 0, [0]), (3, 32, 15, [0, 1])],
)
def test_windows_lie_where_biom3d_puts_them(length, patch, padding, starts):
    axis = padded_axis(length, patch)
    assert (axis.before, list(axis.starts)) == (padding, starts)
    assert axis.weight_sum().min() > 0


def test_weights_are_those_of_hann():
    assert np.allclose(padded_axis(8, 4).weights, torch.hann_window(6, periodic=False)[1:-1])


def test_clip_and_moments_of_the_model_are_used():
    array = np.full((1, 8, 16, 16), 5, np.uint16)
    array[:, 4:] = 15
    assert np.array_equal(predict(array, scheme=Scheme(None, (0, 20), (10, 2))) > 0, array[0] > 10)


def test_other_voxel_sizes_are_resampled_and_back():
    array = np.zeros((1, 8, 16, 16), np.float32)
    array[:, 4:] = 1
    labels = predict(array, (1, 1, 1), Scheme((0.5, 1, 1)))
    assert np.array_equal(labels, array[0] > 0.5)


def test_other_units_are_refused():
    with pytest.raises(DataError, match="different units"):
        resampled_shape((4, 4, 4), (0.001, 0.001, 0.001), (1.0, 1.0, 1.0))


def test_without_softmax_the_background_is_what_no_class_claims():
    scores = np.array([[-1, 2, 1, -1], [-2, 1, 3, 1]], float)[:, None, None]
    assert decide(scores, softmax=False).ravel().tolist() == [0, 1, 2, 2]


def test_a_thin_axis_takes_the_nearest_plane():
    image = np.zeros((1, 2, 20, 20))
    image[:, 1] = 1
    resized = resize_image(image, (4, 20, 20))
    assert resized[0, :, 0, 0].tolist() == [0, 0, 1, 1]


def test_labels_stay_labels_when_resized():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:, :, 4:] = 3
    assert np.unique(resize_labels(labels, (5, 11, 6))).tolist() == [0, 3]


def balls(*places):
    labels = np.zeros((9, 9, 30), np.uint8)
    for x, length in places:
        labels[3:6, 3:6, x : x + length] = 1
    return labels


@pytest.mark.parametrize(
    ("places", "kept"), [([(0, 6), (13, 4)], (13, 4)), ([(0, 9), (13, 4)], (0, 9)), ([(2, 1)], (2, 1))]
)
def test_the_central_object_is_kept_unless_it_is_small(places, kept):
    assert np.array_equal(keep_centred(balls(*places)), balls(kept))


def test_what_is_small_among_the_small_is_dropped_as_in_biom3d():
    large = balls((0, 8), (10, 7), (20, 1))
    speck = large.copy()
    speck[0, 0, 28] = 1
    assert np.array_equal(keep_big_biom3d(speck), large)
