import numpy as np
import pytest
import torch

from biom3d.prediction.agreement import Agreement
from tests.prediction.test_sliding import Threshold, predict, predictor


class Above(torch.nn.Module):
    """Object where the image is above a limit."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        return torch.cat([-(x[:, :1] - self.limit), x[:, :1] - self.limit], 1)


class Half(torch.nn.Module):
    """Object in the upper half of what it is shown, so mirrored views contradict each other."""

    def forward(self, x):
        up = torch.linspace(1, -1, x.shape[3])[None, None, None, :, None].expand_as(x)
        return torch.cat([-up, up], 1)


def agreement(networks, mirror=False, array=None):
    array = np.random.default_rng(0).normal(size=(1, 20, 40, 40)).astype(np.float32) if array is None else array
    counted = Agreement([0.0, 0.0], mirror)
    model = predictor(networks, mirror=mirror)
    labels = predict(array, type(model)(**{**vars(model), "agreement": counted}))
    return counted, labels, array


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_equal_networks_agree():
    counted, _, _ = agreement([Threshold(), Threshold()])
    assert (counted.folds(), counted.views()) == (1, None)


def test_a_single_network_has_nobody_to_agree_with():
    counted, _, _ = agreement([Threshold()])
    assert (counted.folds(), counted.views()) == (None, None)


def test_the_agreement_of_two_is_their_dice():
    counted, _, array = agreement([Above(0.0), Above(1.0)])
    scaled = (array - array.mean()) / array.std()
    assert counted.folds() == pytest.approx(dice(scaled > 0, scaled > 1), abs=0.02)


def test_the_agreement_of_three_is_that_of_all_pairs():
    counted, _, array = agreement([Above(0.0), Above(0.5), Above(1.0)])
    scaled = (array - array.mean()) / array.std()
    sets = [scaled > limit for limit in (0, 0.5, 1)]
    pairs = [(sets[0], sets[1]), (sets[0], sets[2]), (sets[1], sets[2])]
    pooled = sum(2 * np.count_nonzero(a & b) for a, b in pairs) / (2 * sum(map(np.count_nonzero, sets)))
    assert counted.folds() == pytest.approx(pooled, abs=0.02)


def test_mirrored_views_that_contradict_each_other_are_seen():
    steady, _, _ = agreement([Threshold()], mirror=True)
    torn, _, _ = agreement([Half()], mirror=True)
    assert steady.views() == 1
    assert torn.views() == pytest.approx(3 / 7, abs=0.02)  # 4 of 8 views are alike: 4 x 3 of 4 x 7 pairs


def test_where_nobody_finds_anything_there_is_no_agreement():
    counted, labels, _ = agreement([Above(99.0), Above(98.0)])
    assert not labels.any()
    assert counted.folds() is None


def test_counting_changes_no_label():
    array = np.random.default_rng(1).normal(size=(1, 20, 40, 40)).astype(np.float32)
    networks = [Above(0.0), Above(0.3)]
    for mirror in (False, True):
        plain = predict(array, predictor(networks, mirror=mirror))
        assert np.array_equal(plain, agreement(networks, mirror, array)[1])
