import numpy as np

from biom3d.prediction.postprocess import KEEP, keep_big, keep_biggest


def blobs():
    labels = np.zeros((12, 24, 24), np.uint8)
    labels[1:9, 1:9, 1:9] = 1
    labels[2:8, 14:20, 14:20] = 1
    labels[10, 22, 22] = 1
    labels[10, 1, 1:4] = 2
    return labels


def test_the_biggest_object_of_each_class_is_kept():
    kept = keep_biggest(blobs())
    assert np.bincount(kept.ravel()).tolist()[1:] == [512, 3]


def test_small_objects_go_and_big_ones_stay():
    kept = keep_big(blobs())
    assert np.bincount(kept.ravel()).tolist()[1:] == [512 + 216, 3]


def test_an_empty_volume_stays_empty():
    assert not keep_biggest(np.zeros((4, 4, 4), np.uint8)).any()
    assert not keep_big(np.zeros((4, 4, 4), np.uint8)).any()


def test_corners_touch():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert np.array_equal(keep_biggest(labels), labels)


def test_nothing_is_done_unless_asked():
    assert np.array_equal(KEEP["none"](blobs()), blobs())
