import numpy as np
import pytest

from biom3d.data.labels import (
    IGNORED,
    Coding,
    LabelRule,
    apply_rule,
    check_labels,
    count_classes,
    count_labels,
    find_rule,
    map_counts,
)
from biom3d.errors import DataError


def classes_of(labels, num_classes, instances=False):
    return apply_rule(labels, find_rule(labels, num_classes, Coding(instances)), num_classes)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64"])
def test_every_value_is_counted(dtype):
    labels = np.array([[[0, 0, 1], [3, 3, 3]]], dtype)
    assert count_labels(labels) == {0: 2, 1: 1, 3: 3}


@pytest.mark.parametrize("high", [70000, -3])
def test_rare_values_are_counted(high):
    assert count_labels(np.array([0, high, high], np.int64)) == {0: 1, high: 2}


@pytest.mark.parametrize(("values", "classes"), [([0], 1), ([0, 1], 1), ([1], 1), ([0, 2], 2), ([0, 1, 2, 3], 3)])
def test_values_up_to_the_number_of_classes_stay(values, classes):
    assert check_labels(values, classes) == LabelRule()


@pytest.mark.parametrize("values", [[0, 255], [255], [0, 7]])
def test_one_value_stands_for_the_one_class_with_a_warning(values):
    rule = check_labels(values, 1)
    assert rule.problem is None
    assert rule.warning == f"value {values[-1]} is taken as class 1"


def test_several_objects_are_not_merged_silently():
    problem = check_labels(range(38), 1).problem
    assert problem is not None
    assert "found 38 values from 0 to 37, wanted 0..1" in problem
    assert "--instances" in problem
    assert "--num_classes 37" in problem


def test_several_objects_are_one_class_when_asked():
    rule = check_labels([0, 4, 9], 1, Coding(instances=True))
    assert rule.mapping == {0: 0, 4: 1, 9: 1}


def test_spread_values_get_a_renumbering():
    problem = check_labels([0, 85, 170, 255], 3).problem
    assert problem is not None
    assert "found 0, 85, 170, 255, wanted 0..3; renumber the labels, for example 85 -> 1, 170 -> 2, 255 -> 3" in problem


def test_too_many_classes_say_which():
    assert check_labels([0, 1, 2, 3], 2).problem == (
        "found 0, 1, 2, 3, wanted 0..2; pass --num_classes 3, or renumber the labels"
    )


@pytest.mark.parametrize("instances", [False, True])
def test_negative_values_are_refused(instances):
    assert "negative value -1" in (check_labels([-1, 0, 1], 1, Coding(instances)).problem or "")


@pytest.mark.parametrize(
    ("labels", "classes", "instances", "expected"),
    [
        ([0, 255, 0], 1, False, [0, 1, 0]),
        ([0, 4, 9], 1, True, [0, 1, 1]),
        ([0, 1, 2], 2, False, [0, 1, 2]),
        ([1, 1, 0], 1, False, [1, 1, 0]),
    ],
)
def test_labels_become_classes(labels, classes, instances, expected):
    result = classes_of(np.array(labels, np.int32), classes, instances)
    assert (result.tolist(), result.dtype) == (expected, np.uint8)


def test_many_classes_need_16_bits():
    assert classes_of(np.array([0, 300], np.uint16), 300).tolist() == [0, 300]


def test_wrong_labels_are_refused():
    with pytest.raises(DataError, match=r"labels: found 0, 1, 2, wanted 0\.\.1"):
        classes_of(np.array([0, 1, 2]), 1)


def test_counts_follow_the_rule():
    assert map_counts({0: 5, 4: 2, 9: 1}, check_labels([0, 4, 9], 1, Coding(instances=True))) == {0: 5, 1: 3}


@pytest.mark.parametrize("classes", [1, 3, 20])
def test_classes_are_counted_plane_by_plane(classes):
    labels = np.random.default_rng(0).integers(0, classes + 1, (3, 8, 9)).astype(np.uint8)
    expected = [np.bincount(plane.ravel(), minlength=classes + 1) for plane in labels]
    assert np.array_equal(count_classes(labels, classes), expected)


def test_an_ignored_value_is_no_class():
    labels, coding = np.array([0, 1, 255, 2]), Coding(ignore=255)
    rule = find_rule(labels, 2, coding)
    assert apply_rule(labels, rule, 2).tolist() == [0, 1, IGNORED, 2]
    assert map_counts({0: 5, 1: 2, 255: 9}, rule) == {0: 5, 1: 2}


@pytest.mark.parametrize("instances", [False, True])
def test_a_negative_value_may_be_ignored(instances):
    labels, coding = np.array([0, 1, -1, 1]), Coding(instances, -1)
    assert apply_rule(labels, find_rule(labels, 1, coding), 1).tolist() == [0, 1, IGNORED, 1]


def test_values_with_gaps_become_classes():
    labels, coding = np.array([0, 9, 4, 255]), Coding(ignore=255, values=(4, 9))
    assert apply_rule(labels, find_rule(labels, 2, coding), 2).tolist() == [0, 2, 1, IGNORED]


def test_one_value_too_many_may_be_ignored():
    assert "if 255 marks what nobody has annotated pass --ignore_label 255" in (
        check_labels([0, 1, 255], 1).problem or ""
    )


def test_gaps_get_their_values():
    assert "pass --num_classes 2 --label_values 3 9" in (check_labels([0, 3, 9], 1).problem or "")


def test_ignored_voxels_are_not_counted():
    labels = np.array([[[0, -1, 1], [-1, -1, 2]]], np.int16)
    assert count_classes(labels, 2).tolist() == count_classes(labels, 9)[:, :3].tolist() == [[1, 1, 1]]
