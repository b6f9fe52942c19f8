import numpy as np
import pytest
import tifffile

from biom3d.compat.data import load_biom3d_case
from biom3d.errors import DataError

IMAGE = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
LABELS = np.zeros((4, 8, 8), np.uint16)
LABELS[1:3, 2:5, 2:5] = 1
LABELS[3] = 2


def load(folder, mask, image=IMAGE, classes=2):
    for name, array in (("i", image), ("m", mask)):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "a.tif", array, compression="zlib", photometric="minisblack")
    return load_biom3d_case(folder / "i", folder / "m", "a.tif", classes, seed=0)


def one_hot(labels, first):
    return np.stack([(labels == value) for value in range(first, 3)]).astype(np.uint16)


@pytest.mark.parametrize("mask", [LABELS[None], LABELS[None].astype(float), one_hot(LABELS, 0), one_hot(LABELS, 1)])
def test_every_kind_of_mask_gives_the_same_labels(tmp_path, mask):
    case = load(tmp_path, mask)
    assert np.array_equal(case.mask, LABELS)
    assert np.array_equal(case.image, IMAGE)


def test_foreground_is_drawn_from_the_mask(tmp_path):
    case = load(tmp_path, LABELS[None])
    assert {label: len(voxels) for label, voxels in case.foreground.items()} == {1: 18, 2: 64}


def test_each_of_several_channels_gets_its_own_scale(tmp_path):
    case = load(tmp_path, LABELS[None], np.concatenate([IMAGE * 3 + 1, IMAGE]))
    assert np.allclose(case.image.mean((1, 2, 3)), 0, atol=1e-5)
    assert np.allclose(case.image.std((1, 2, 3)), 1)


@pytest.mark.parametrize("mask", [LABELS[None, :2], np.zeros((5, 4, 8, 8)), LABELS[None] + 0.5])
def test_what_does_not_fit_is_refused_with_the_case(tmp_path, mask):
    with pytest.raises(DataError, match=r"'a\.tif', preprocessed by Biom3d, cannot be read"):
        load(tmp_path, mask)
