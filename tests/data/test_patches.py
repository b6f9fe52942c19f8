import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from biom3d.data.patches import Case, choose_start, crop, sample_batch, sample_foreground, window_starts


def case(shape=(20, 24, 28), seed=0):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    mask[-1, -1, -1] = 1
    return Case("c", rng.random((1, *shape), np.float32) + 1, mask, sample_foreground(mask, 1, rng))


@given(st.integers(1, 300), st.integers(1, 64))
def test_windows_cover_every_voxel_and_stay_inside(length, patch):
    covered = np.zeros(max(length, patch), bool)
    for start in window_starts(length, patch):
        assert 0 <= start <= max(0, length - patch)
        covered[start : start + patch] = True
    assert covered.all()


@given(st.integers(65, 300))
def test_neighbouring_windows_overlap_by_half(length):
    assert np.diff(window_starts(length, 64)).max() <= 33


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_patches_of_a_large_volume_hold_real_voxels_only(seed, foreground):
    volume = case()
    start = choose_start(volume, (8, 8, 8), foreground, np.random.default_rng(seed))
    assert crop(volume.image, start, (8, 8, 8)).min() >= 1


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_foreground_patch_holds_an_object(seed):
    volume = case()
    start = choose_start(volume, (8, 8, 8), True, np.random.default_rng(seed))
    assert crop(volume.mask, start, (8, 8, 8)).any()


def test_a_small_volume_lies_in_the_middle_of_its_patch():
    volume = case((4, 24, 28))
    start = choose_start(volume, (8, 8, 8), False, np.random.default_rng(0))
    patch = crop(volume.image, start, (8, 8, 8))[0]
    assert patch[2:6].all()
    assert not patch[:2].any()
    assert not patch[6:].any()


def test_a_crop_outside_the_volume_is_zero():
    assert not crop(np.ones((4, 4, 4)), (10, 10, 10), (2, 2, 2)).any()
    assert not crop(np.ones((4, 4, 4)), (-5, 0, 0), (2, 2, 2)).any()


def test_a_batch_is_the_same_for_the_same_numbers():
    batches = [sample_batch([case()], (8, 8, 8), (2, 2, 2), 2, 0.5, np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(batches[0][0], batches[1][0])
    assert batches[0][0].shape == (2, 1, 12, 12, 12)
    assert batches[0][1].shape == (2, 12, 12, 12)


def test_foreground_voxels_are_listed_per_class():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 2, 3] = 2
    assert {c: v.tolist() for c, v in sample_foreground(labels, 3, np.random.default_rng(0)).items()} == {
        2: [[1, 2, 3]]
    }


def test_of_many_foreground_voxels_some_are_drawn_once_each():
    labels = np.random.default_rng(0).integers(0, 2, (9, 10, 11)).astype(np.uint8)
    voxels = sample_foreground(labels, 1, np.random.default_rng(0), limit=50)[1]
    assert (labels[tuple(voxels.T)] == 1).all()
    assert len(np.unique(voxels, axis=0)) == 50
