"""The metrics agree with independent libraries and with what their definitions imply."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from surface_distance import compute_robust_hausdorff, compute_surface_distances

from biom3d.errors import DataError
from biom3d.metrics import VOXELS_AT_ONCE, count_overlaps, score_case, surface_distance_95

SPACING = (0.5, 0.2, 0.3)
small_labels = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))


def blobs(seed: int, shape: tuple[int, ...] = (12, 16, 18), classes: int = 2) -> np.ndarray:
    """Random labels 0..classes in coarse blocks, so that they have an inside and a surface."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes + 1, [-(-length // 3) for length in shape])
    return np.kron(coarse, np.ones([3] * len(shape), int))[tuple(map(slice, shape))].astype(np.uint8)


def cube(start: int, stop: int, shape: tuple[int, int, int] = (20, 20, 20)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[5:15, 5:15, start:stop] = 1
    return mask


def itk_overlap(pred: np.ndarray, true: np.ndarray) -> sitk.LabelOverlapMeasuresImageFilter:
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(sitk.GetImageFromArray(pred), sitk.GetImageFromArray(true))
    return measures


def reference_hd95(pred: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> float:
    return compute_robust_hausdorff(compute_surface_distances(true, pred, spacing), 95)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("label", [1, 2])
def test_dice_is_that_of_simpleitk(seed: int, label: int) -> None:
    pred, true = blobs(seed), blobs(seed + 100)
    ours = score_case(pred, true, 2, with_hd95=False)[label - 1]
    assert ours.dice == pytest.approx(itk_overlap(pred, true).GetDiceCoefficient(label))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("label", [1, 2])
def test_iou_is_that_of_simpleitk(seed: int, label: int) -> None:
    pred, true = blobs(seed), blobs(seed + 100)
    ours = score_case(pred, true, 2, with_hd95=False)[label - 1]
    assert ours.iou == pytest.approx(itk_overlap(pred, true).GetJaccardCoefficient(label))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_hd95_is_that_of_the_surface_distance_package(seed: int) -> None:
    pred, true = blobs(seed, classes=1) == 1, blobs(seed + 100, classes=1) == 1
    assert surface_distance_95(pred, true, SPACING) == pytest.approx(reference_hd95(pred, true, SPACING))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_plane_is_measured_as_a_2d_image() -> None:
    pred, true = blobs(1, (24, 27), 1) == 1, blobs(2, (24, 27), 1) == 1
    ours = surface_distance_95(pred[np.newaxis], true[np.newaxis], SPACING)
    assert ours == pytest.approx(reference_hd95(pred, true, SPACING[1:]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_flat_object_in_a_volume_is_measured_in_3d() -> None:
    pred, true = np.zeros((2, 5, 12, 12), bool)
    pred[2, 2:8, 2:8], true[2, 3:9, 2:10] = True, True
    assert surface_distance_95(pred, true, SPACING) == pytest.approx(reference_hd95(pred, true, SPACING))


@pytest.mark.parametrize("seed", range(3))
def test_hd95_is_at_most_the_full_hausdorff_distance_of_simpleitk_plus_a_voxel(seed: int) -> None:
    pred, true = blobs(seed, classes=1), blobs(seed + 100, classes=1)
    images = [sitk.GetImageFromArray(labels) for labels in (pred, true)]
    for image in images:
        image.SetSpacing(SPACING[::-1])
    full = sitk.HausdorffDistanceImageFilter()
    full.Execute(*images)
    diagonal = float(np.linalg.norm(SPACING))  # here surfaces run through corners, there through centres
    assert surface_distance_95(pred == 1, true == 1, SPACING) <= full.GetHausdorffDistance() + diagonal


def test_a_cube_moved_by_two_voxels_has_the_dice_of_the_formula() -> None:
    assert score_case(cube(4, 14), cube(6, 16), 1, with_hd95=False)[0].dice == pytest.approx(0.8)


def test_a_cube_moved_by_two_voxels_has_two_voxels_of_hd95_in_micrometres() -> None:
    score = score_case(cube(4, 14), cube(6, 16), 1, SPACING)[0]
    assert (score.hd95, score.unit) == (pytest.approx(2 * 0.3), "µm")


def test_without_spacing_hd95_is_in_voxels_and_says_so() -> None:
    score = score_case(cube(4, 14), cube(6, 16), 1)[0]
    assert (score.hd95, score.unit) == (pytest.approx(2), "voxels")


def test_hd95_does_not_depend_on_the_empty_space_around() -> None:
    pred, true = cube(4, 14), cube(6, 16)
    wide = [np.pad(mask, 7) == 1 for mask in (pred, true)]
    assert surface_distance_95(*wide, SPACING) == surface_distance_95(pred == 1, true == 1, SPACING)


def test_an_object_that_touches_the_border_has_a_surface_there() -> None:
    full = np.ones((6, 6, 6), bool)
    inner = np.pad(np.ones((4, 4, 4), bool), 1)
    assert surface_distance_95(inner, full, (1, 1, 1)) > 0.9


@given(small_labels, small_labels)
def test_scores_are_symmetric(a: np.ndarray, b: np.ndarray) -> None:
    forth, back = score_case(a, b, 2), score_case(b, a, 2)
    assert [(s.dice, s.iou, s.hd95) for s in forth] == [(s.dice, s.iou, s.hd95) for s in back]


@given(small_labels, small_labels)
def test_dice_follows_from_iou(a: np.ndarray, b: np.ndarray) -> None:
    for score in score_case(a, b, 2, with_hd95=False):
        if score.iou is not None:
            assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))


@given(small_labels, small_labels)
def test_dice_and_iou_lie_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    values = [value for s in score_case(a, b, 2, with_hd95=False) for value in (s.dice, s.iou, s.equals)]
    assert all(value is None or 0 <= value <= 1 for value in values)


@settings(deadline=None)
@given(small_labels)
def test_identical_volumes_are_perfect(a: np.ndarray) -> None:
    present = [s for s in score_case(a, a, 2) if s.voxels_true]
    assert all((s.dice, s.iou, s.hd95, s.equals) == (1, 1, 0, 1) for s in present)


@given(small_labels, small_labels)
def test_every_voxel_is_counted_once(a: np.ndarray, b: np.ndarray) -> None:
    assert count_overlaps(a, b, 2).sum() == a.size


def test_a_volume_counted_in_several_pieces_is_counted_whole() -> None:
    pred = np.zeros(VOXELS_AT_ONCE + 10, np.uint8)
    pred[VOXELS_AT_ONCE - 5 :] = 1
    assert count_overlaps(pred, pred, 1)[1, 1] == 15


def test_a_class_in_neither_volume_has_no_score() -> None:
    score = score_case(cube(4, 14), cube(6, 16), 2)[1]
    assert (score.dice, score.iou, score.hd95) == (None, None, None)


def test_a_class_in_one_volume_only_has_dice_0_and_no_distance() -> None:
    score = score_case(np.zeros_like(cube(4, 14)), cube(4, 14), 1)[0]
    assert (score.dice, score.iou, score.hd95) == (0, 0, None)


def test_sizes_of_the_class_are_told() -> None:
    score = score_case(cube(4, 14), cube(6, 12), 1, with_hd95=False)[0]
    assert (score.voxels_pred, score.voxels_true) == (1000, 600)


def test_equals_is_the_share_of_voxels_that_agree() -> None:
    score = score_case(cube(4, 14), cube(6, 16), 1, with_hd95=False)[0]
    assert score.equals == 1 - 400 / 8000


def test_different_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(DataError, match=r"\(2, 3, 4\).*\(2, 3, 5\)"):
        count_overlaps(np.zeros((2, 3, 4), int), np.zeros((2, 3, 5), int), 1)


@pytest.mark.parametrize("value", [-1, 3])
def test_a_label_outside_the_classes_is_refused_with_its_value(value: int) -> None:
    true = np.zeros((2, 3, 4), int)
    with pytest.raises(DataError, match=str(value)):
        count_overlaps(np.full((2, 3, 4), value), true, 2)
