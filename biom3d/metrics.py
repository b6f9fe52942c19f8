"""How well a prediction matches the truth: Dice, IoU and surface distance of label volumes (z, y, x).

Definitions, for one class in one case (P, T: its voxels in prediction and truth):

- Dice = 2 |P and T| / (|P| + |T|); IoU = |P and T| / |P or T|.
- HD95, the robust Hausdorff distance of Nikolov et al. 2021 (J Med Internet Res 23(7):e26151): both surfaces
  are cut into elements, each with its area (2D: its length); 95 % of the predicted surface's area lies within
  d1 of the true surface, 95 % of the true surface's area within d2 of the predicted one; HD95 = max(d1, d2).
- A class in neither volume has no score (None, not 1). In one of them only: Dice 0, IoU 0, no HD95.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from biom3d.errors import DataError
from biom3d.io.mapped import forget_pages, limits

SURFACE_SHARE = 0.95
HD95_BYTES = 24  # a voxel of the box around a class: masks, surfaces, and the places of the nearest surface
VOXELS_AT_ONCE = 1 << 22  # counting takes 8 bytes a voxel: 32 MB instead of eight times the volume


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class in one case.

    Attributes:
        label: the class, from 1.
        dice, iou: 0 to 1, None where the class is in neither volume.
        hd95: in `unit`; None where the class is absent from one volume, where it was not asked for, or takes too much.
        unit: "µm", or "voxels" where the voxel size is not known.
        equals: share of all voxels where prediction and truth agree about this class.
        voxels_pred, voxels_true: the size of the class in each volume.
    """

    label: int
    dice: float | None
    iou: float | None
    hd95: float | None
    unit: str
    equals: float
    voxels_pred: int
    voxels_true: int


def score_case(
    pred: np.ndarray,
    true: np.ndarray,
    num_classes: int,
    spacing_um: Sequence[float] | None = None,
    with_hd95: bool = True,
    known: int | None = None,
    most_bytes: float = math.inf,
) -> list[ClassScore]:
    """Score classes 1..num_classes of two label volumes (z, y, x) with values 0..num_classes.

    Where the truth is negative nobody has annotated it: there both count as background, and agree about nothing.
    `known` says how many voxels are annotated, where `clear_unknown` has done that already. `spacing_um` is the voxel
    size (z, y, x) in µm; without it HD95 is in voxels. A class whose HD95 takes more than `most_bytes` has none.
    Raises DataError where the shapes differ or a label is above `num_classes`.
    """
    if known is None and true.dtype.kind == "i" and true.size and true.min() < 0 and pred.shape == true.shape:
        pred, true = pred.copy(), true.copy()
        known = clear_unknown(pred, true)
    known = pred.size if known is None else known
    counts = count_overlaps(pred, true, num_classes)
    unit = "voxels" if spacing_um is None else "µm"
    scores = []
    for label in range(1, num_classes + 1):
        both, in_pred, in_true = counts[label, label], counts[label].sum(), counts[:, label].sum()
        hd95 = None
        if with_hd95 and in_pred and in_true:
            box = _label_box(pred, true, label)
            if math.prod(part.stop - part.start for part in box) * HD95_BYTES <= most_bytes:
                masks = (pred[box] == label, true[box] == label)
                hd95 = _distance_95(*masks, spacing_um or (1.0, 1.0, 1.0), is_2d=len(pred) == 1)
        scores.append(_class_score(label, int(both), int(in_pred), int(in_true), known, hd95, unit))
    return scores


def clear_unknown(pred: np.ndarray, true: np.ndarray) -> int:
    """Make background of the voxels of both (z, y, x) whose truth is negative; return how many others there are."""
    known = 0
    for pred_plane, true_plane in zip(pred, true, strict=True):
        unknown = true_plane < 0
        pred_plane[unknown] = 0
        true_plane[unknown] = 0
        known += int(unknown.size - np.count_nonzero(unknown))
        forget_pages(pred)
        forget_pages(true)
    return known


def _class_score(
    label: int, both: int, in_pred: int, in_true: int, voxels: int, hd95: float | None, unit: str
) -> ClassScore:
    either = in_pred + in_true - both
    return ClassScore(
        label=label,
        dice=2 * both / (in_pred + in_true) if either else None,
        iou=both / either if either else None,
        hd95=hd95,
        unit=unit,
        equals=(voxels - either + both) / voxels if voxels else 1.0,
        voxels_pred=in_pred,
        voxels_true=in_true,
    )


def count_overlaps(pred: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    """Count voxels by (predicted label, true label), in one pass: int64, (num_classes + 1, num_classes + 1).

    Raises DataError where the shapes differ or a label is not in 0..num_classes.
    """
    if pred.shape != true.shape:
        raise DataError(f"the prediction has shape {pred.shape} (z, y, x), the truth {true.shape}")
    _require_labels(pred, num_classes, "prediction")
    _require_labels(true, num_classes, "truth")
    size = num_classes + 1
    counts = np.zeros(size * size, np.int64)
    for a, b in zip(_pieces(pred), _pieces(true), strict=True):
        counts += np.bincount(a.astype(np.intp) * size + b.astype(np.intp), minlength=size * size)
    return counts.reshape(size, size)


def _require_labels(labels: np.ndarray, num_classes: int, which: str) -> None:
    low, high = limits(labels) if labels.size else (0, 0)
    if low < 0 or high > num_classes:
        raise DataError(
            f"the {which} holds labels from {low} to {high}, wanted 0 to {num_classes} "
            f"for {num_classes} class(es); set --num_classes, or renumber the labels"
        )


def _pieces(labels: np.ndarray) -> Iterable[np.ndarray]:
    flat = labels.reshape(-1)
    for start in range(0, flat.size, VOXELS_AT_ONCE):
        yield flat[start : start + VOXELS_AT_ONCE]
        forget_pages(labels)


def surface_distance_95(pred: np.ndarray, true: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the HD95 of two masks (z, y, x), each with a voxel in it, in the unit of `spacing` (z, y, x).

    A volume with one plane is measured as a 2D image: its outline counts, not its top and bottom. Definition
    and area tables are those of the `surface-distance` package, and so are the numbers. Its own loop is not
    used: it sorts in Python, and keeps distances for all voxels where those of the surface are enough (here
    12 bytes a voxel). A k-d tree needs less still, but was 15 times slower for noise against a sphere.
    """
    box = _label_box(pred, true, 1)
    return _distance_95(pred[box], true[box], spacing, is_2d=len(pred) == 1)


def _distance_95(pred: np.ndarray, true: np.ndarray, spacing: Sequence[float], is_2d: bool) -> float:
    if is_2d:
        pred, true, spacing = pred[0], true[0], spacing[1:]
    pred, true = np.pad(pred, 1), np.pad(true, 1)
    pred_surface, pred_areas = _surface(pred, spacing)
    true_surface, true_areas = _surface(true, spacing)
    return max(
        _area_quantile(_distances(pred_surface, true_surface, spacing), pred_areas),
        _area_quantile(_distances(true_surface, pred_surface, spacing), true_areas),
    )


def _label_box(pred: np.ndarray, true: np.ndarray, label: int) -> tuple[slice, ...]:
    """Return the smallest box around a label in both volumes (z, y, x), few planes of them in memory at a time."""
    used = [np.zeros(n, bool) for n in pred.shape]
    for z, (pred_plane, true_plane) in enumerate(zip(pred, true, strict=True)):
        mask = (pred_plane == label) | (true_plane == label)
        forget_pages(pred)
        forget_pages(true)
        used[0][z] = mask.any()
        used[1] |= mask.any(1)
        used[2] |= mask.any(0)
    return tuple(slice(int(np.flatnonzero(one)[0]), int(np.flatnonzero(one)[-1]) + 1) for one in used)


def _surface(mask: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return where a mask with an empty rim has surface elements, and the area of each.

    An element sits at a corner shared by 2x2x2 voxels (2D: 2x2) that are neither all in nor all out; its area
    follows from which of them are in, and the package has a table for it.
    """
    from surface_distance import lookup_tables

    if mask.ndim == 2:
        kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL
        areas = lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
    else:
        kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
        areas = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    codes = _neighbour_codes(mask, kernel)
    on_surface = (codes != 0) & (codes != kernel.sum())
    return on_surface, areas[codes[on_surface]]


def _neighbour_codes(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    codes = np.zeros([length - 1 for length in mask.shape], np.uint8)
    for offset, weight in np.ndenumerate(kernel):
        window = tuple(slice(start, start + n) for start, n in zip(offset, codes.shape, strict=True))
        codes += mask[window] * np.uint8(weight)
    return codes


def _distances(start: np.ndarray, goal: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return how far each true element of `start` is from the nearest of `goal`, in the order of `start`."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~goal, sampling=spacing, return_distances=False, return_indices=True)
    steps = (nearest[:, start] - np.stack(start.nonzero())) * np.reshape(spacing, (-1, 1))
    return np.sqrt((steps**2).sum(axis=0))


def _area_quantile(distances: np.ndarray, areas: np.ndarray) -> float:
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order][min(int(np.searchsorted(share, SURFACE_SHARE)), len(order) - 1)])
