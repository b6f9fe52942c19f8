import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from biom3d.data.patches import (
    Case,
    choose_start,
    crop,
    mirrored,
    sample_batch,
    sample_foreground,
    sample_labelled,
    window_starts,
)


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
def test_patches_of_a_large_volume_stay_inside_it(seed, foreground):
    volume = case()
    start = choose_start(volume, (8, 8, 8), foreground, np.random.default_rng(seed))
    assert all(0 <= s <= n - 8 for s, n in zip(start, volume.mask.shape, strict=True))


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_a_foreground_patch_holds_an_object(seed):
    volume = case()
    start = choose_start(volume, (8, 8, 8), True, np.random.default_rng(seed))
    assert crop(volume.mask, start, (8, 8, 8)).any()


def test_a_small_volume_lies_in_the_middle_of_its_patch_between_its_mirror_images():
    volume = case((4, 24, 28))
    start = choose_start(volume, (8, 8, 8), False, np.random.default_rng(0))
    patch = crop(volume.image, start, (8, 8, 8))[0]
    whole = crop(volume.image, (0, *start[1:]), (4, 8, 8))[0]
    assert np.array_equal(patch, whole[[1, 0, 0, 1, 2, 3, 3, 2]])


@given(st.integers(-40, 40), st.integers(1, 40), st.integers(1, 12))
def test_what_lies_outside_an_axis_is_what_numpy_calls_symmetric(begin, size, length):
    padded = np.pad(np.arange(length), (40, 80), "symmetric")
    assert np.array_equal(mirrored(begin, begin + size, length), padded[40 + begin :][:size])


@given(st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_crop_may_leave_the_volume_on_any_side(start, size):
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    padded = np.pad(array, [(0, 0), *[(9, 18)] * 3], "symmetric")
    place = tuple(slice(9 + s, 9 + s + n) for s, n in zip(start, size, strict=True))
    assert np.array_equal(crop(array, start, size), padded[:, *place])


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


def test_patches_lie_where_a_volume_is_annotated():
    mask = np.full((40, 60, 60), -1, np.int16)
    mask[30, 40:50, 10:20] = 0
    rng = np.random.default_rng(0)
    case = Case("c", np.zeros((1, *mask.shape), np.float32), mask, {}, sample_labelled(mask, rng))
    for _ in range(50):
        start = choose_start(case, (8, 8, 8), False, rng)
        assert (crop(mask, start, (8, 8, 8)) >= 0).any()


def test_a_volume_that_is_annotated_whole_has_no_list_of_voxels():
    assert sample_labelled(np.zeros((4, 4, 4), np.int16), np.random.default_rng(0)) is None
