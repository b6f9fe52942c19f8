import numpy as np
import pytest

from biom3d.data.facts import measure
from biom3d.data.predictions import Prediction
from biom3d.data.unlike import find_signs

RNG = np.random.default_rng(0)


def volume(boxes=4, size=4, noise=5.0, spacing=(1.0, 1.0, 1.0)):
    """Return the facts of bright boxes in noise."""
    labels = np.zeros((16, 40, 40), np.uint8)
    for number in range(boxes):
        z, y, x = 2 + 7 * (number % 2), 10 * (number // 2 % 4), 10 * (number // 8) + 2
        labels[z : z + size, y : y + size, x : x + size] = 1
    image = RNG.normal(100, noise, (1, *labels.shape)) + 50 * labels
    return measure(labels, lambda z0, z1: image[:, z0:z1], 1, spacing)


NOBODY = Prediction()
TRAINING = [volume(4), volume(5), volume(6)]


def told(facts, prediction=NOBODY, reference=TRAINING):
    return [sign.words for sign in find_signs(facts, prediction, reference, is_ct=False) if sign.weight >= 1]


def test_facts_are_those_of_the_objects():
    facts = volume(3, 4, spacing=(2.0, 0.5, 0.5))
    assert (facts.classes[1].objects, facts.classes[1].size, facts.extent) == (3, 32.0, 16 * 40 * 40 / 2)
    assert facts.classes[1].share == pytest.approx(3 * 64 / (16 * 40 * 40))


def test_what_nobody_annotated_does_not_count():
    labels = np.full((16, 40, 40), -1, np.int16)
    labels[:4] = 0
    labels[1:3, 4:8, 4:8] = 1
    facts = measure(labels, lambda z0, z1: np.zeros((1, z1 - z0, 40, 40)), 1, None)
    assert (facts.classes[1].objects, facts.classes[1].share, facts.extent) == (1, 32 / 6400, 6400)


def test_a_volume_like_those_of_training_has_no_flag():
    assert told(volume(5)) == []


def test_no_object_is_the_strongest_sign():
    assert told(volume(0))[0] == "no objects found, every training image has some"


def test_small_objects_are_told_with_their_size():
    assert any(
        words.startswith("median size of objects 8 µm³, in training 64 to 64 µm³") for words in told(volume(5, 2))
    )


def test_many_more_objects_are_told():
    assert any(words.startswith("number of objects for its size 24, in training 4 to 6") for words in told(volume(24)))


def test_sizes_in_other_units_are_not_compared():
    assert not any("size" in words for words in told(volume(5, 2, spacing=None)))


def test_another_kind_of_image_is_told_by_its_intensities():
    labels = np.zeros((16, 40, 40), np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    image = np.where(RNG.random((1, *labels.shape)) < 0.011, 5000.0, 10.0)  # a few very bright voxels
    facts = measure(labels, lambda z0, z1: image[:, z0:z1], 1, (1.0, 1.0, 1.0))
    assert any(words.startswith("intensities unlike those of training: darkest percent") for words in told(facts))


def test_folds_and_views_that_disagree_are_told():
    words = told(volume(5), Prediction("held-out", ("a", "b"), 0.6, 0.7))
    assert words == [
        "the folds disagree (mean Dice of pairs 0.60)",
        "mirrored views disagree (mean Dice of pairs 0.70)",
    ]


def test_without_a_reference_only_what_needs_none_is_told():
    assert told(volume(5, 2), reference=[]) == []
    assert told(volume(0), reference=[]) == ["no object found"]
