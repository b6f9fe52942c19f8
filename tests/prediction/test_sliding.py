import dataclasses

import numpy as np
import pytest
import torch

from biom3d.config import PlanRequest
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import Header, LazyVolume
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import make_plan
from biom3d.prediction import sliding
from biom3d.prediction.sliding import Predictor, predict_labels
from biom3d.prediction.windows import gaussian_weights, plan_axis


class Threshold(torch.nn.Module):
    """A network whose answer is known: object where the image is above 0, with a score that is its distance."""

    def forward(self, x):
        return torch.cat([-x[:, :1], x[:, :1]], 1)


class Zeros(torch.nn.Module):
    def forward(self, x):
        return torch.zeros(x.shape[0], 2, *x.shape[2:])


def lazy(array, spacing=(1.0, 1.0, 1.0)):
    header = Header(array.shape, array.dtype, "ZYX" if array.shape[1] > 1 else "YX", spacing)
    reads = []

    def read(z0, z1):
        reads.append((z0, z1))
        return array[:, z0:z1]

    return LazyVolume(header, read), reads


def predictor(networks, patch=(8, 16, 16), mirror=False, shape=(20, 40, 40)):
    facts = make_fingerprint([(1, *shape)] * 2, [(1.0, 1.0, 1.0)] * 2, is_2d=shape[0] == 1)
    plan = make_plan("m", facts, PlanRequest(patch_size=patch), Machine("cpu", 1.0, False))
    return Predictor(plan, networks, torch.device("cpu"), mirror)


def predict(array, model, spacing=(1.0, 1.0, 1.0)):
    labels = np.zeros(array.shape[1:], np.uint8)
    predict_labels(model, lazy(array, spacing)[0], spacing, labels, Reporter("pred"))
    return labels


@pytest.mark.parametrize("shape", [(20, 40, 40), (8, 16, 16), (5, 16, 40), (21, 17, 33), (3, 7, 9), (40, 10, 10)])
@pytest.mark.parametrize("mirror", [False, True])
def test_every_voxel_gets_the_answer_of_the_network(shape, mirror):
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    expected = array[0] > array.mean()
    assert np.array_equal(predict(array, predictor([Threshold()], mirror=mirror)) > 0, expected)


class Recorder(Threshold):
    def forward(self, x):
        self.seen = x.clone()
        return super().forward(x)


@pytest.mark.parametrize("shape", [(3, 16, 16), (8, 5, 16), (2, 3, 7)])
def test_around_a_volume_smaller_than_the_patch_the_network_sees_its_mirror_image(shape):
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    network = Recorder()
    predict(array, predictor([network], shape=shape))
    around = [((p - n) // 2, p - n - (p - n) // 2) for n, p in zip(shape, (8, 16, 16), strict=True)]
    expected = np.pad((array[0] - array.mean()) / array.std(), around, "symmetric")
    assert np.allclose(network.seen[0, 0], expected, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_networks():
    array = np.random.default_rng(0).normal(size=(1, 12, 20, 20)).astype(np.float32)
    alone = predict(array, predictor([Threshold()]))
    assert np.array_equal(predict(array, predictor([Threshold(), Zeros()])), alone)


def test_a_volume_of_another_spacing_is_resampled_and_brought_back():
    z, y, x = np.indices((30, 40, 40))
    array = np.sin(z / 8 + y / 9 + x / 10)[None].astype(np.float32)
    coarse = predict(array, predictor([Threshold()]), spacing=(0.5, 1.3, 0.8))
    assert np.mean((coarse > 0) == (array[0] > array.mean())) > 0.97


def test_planes_are_read_once_for_statistics_and_once_for_prediction():
    array = np.zeros((1, 64, 16, 16), np.float32)
    volume, reads = lazy(array)
    predict_labels(predictor([Zeros()]), volume, None, np.zeros(array.shape[1:], np.uint8), Reporter("pred"))
    assert sum(z1 - z0 for z0, z1 in reads) == 2 * 64
    assert max(z1 - z0 for z0, z1 in reads[1:]) <= 8


def test_a_2d_model_predicts_planes():
    array = np.random.default_rng(0).normal(size=(1, 1, 40, 50)).astype(np.float32)
    model = predictor([Threshold()], patch=(1, 16, 16), shape=(1, 40, 50))
    assert np.array_equal(predict(array, model) > 0, array[0] > array.mean())


def test_a_2d_model_refuses_a_volume():
    model = predictor([Threshold()], patch=(1, 16, 16), shape=(1, 40, 50))
    with pytest.raises(DataError, match="12 planes, the model was trained on 2D"):
        predict(np.zeros((1, 12, 40, 50), np.float32), model)


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(DataError, match="2 channel"):
        predict(np.zeros((2, 12, 40, 50), np.float32), predictor([Threshold()]))


@pytest.mark.parametrize(("length", "patch"), [(8, 8), (9, 8), (100, 16), (33, 32)])
def test_the_sum_of_weights_is_never_zero(length, patch):
    assert plan_axis(length, patch).weight_sum().min() > 0
    assert gaussian_weights(patch).argmax() in ((patch - 1) // 2, patch // 2)


@pytest.mark.parametrize("planes", [1, 3, 7, 8])
def test_a_slab_moves_in_place(planes):
    slab = torch.arange(8.0).view(1, 8, 1, 1).clone()
    sliding._shift(slab, planes)
    assert slab[0, : 8 - planes, 0, 0].tolist() == list(range(planes, 8))


def test_planes_are_finished_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(sliding, "COPY_BYTES", 1)
    array = np.random.default_rng(0).normal(size=(1, 40, 20, 20)).astype(np.float32)
    assert np.array_equal(predict(array, predictor([Threshold()], (24, 16, 16))) > 0, array[0] > array.mean())


def test_a_prior_shift_is_subtracted_from_the_scores():
    array = np.random.default_rng(0).normal(size=(1, 20, 40, 40)).astype(np.float32)
    model = dataclasses.replace(predictor([Threshold()]), prior_shift=(0.0, 0.8))
    scaled = (array[0] - array.mean()) / array.std()
    assert np.array_equal(predict(array, model) > 0, scaled - 0.8 > -scaled)
