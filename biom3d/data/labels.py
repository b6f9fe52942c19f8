"""Labels: which values a mask may hold, what is wrong with others, and how they become classes 0..N."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from biom3d.errors import DataError

FEW_CLASSES = 8
_MANY = 50  # more values than that in a mask of one class are objects or intensities, not classes
_SMALL = 1 << 16  # up to here counting by table beats sorting


@dataclass(frozen=True)
class LabelRule:
    """What to do with the values of one mask.

    Attributes:
        mapping: value -> class; None where it is the identity.
        problem: why these values cannot be used, and what to do; None where they can.
        warning: what will be changed without asking; None where nothing will be.
    """

    mapping: dict[int, int] | None = None
    problem: str | None = None
    warning: str | None = None


def count_labels(labels: np.ndarray) -> dict[int, int]:
    """Return value -> number of voxels, of an integer array of any shape."""
    if labels.size == 0:
        return {}
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < _SMALL:
        # bincount copies to 64 bits: one plane at a time
        table = np.zeros(high + 1, np.int64)
        for part in labels if labels.ndim > 2 else [labels]:
            table += np.bincount(part.ravel(), minlength=high + 1)
        return {int(value): int(table[value]) for value in np.flatnonzero(table)}
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the voxels of each class in each plane of labels (z, y, x) 0..num_classes: (z, num_classes + 1)."""
    if num_classes < FEW_CLASSES:  # comparing is 10 x faster than np.bincount, which copies to 64 bits
        objects = [[np.count_nonzero(plane == value) for value in range(1, num_classes + 1)] for plane in labels]
        return np.array([[labels[0].size - sum(row), *row] for row in objects], np.int64)
    return np.array([np.bincount(plane.ravel(), minlength=num_classes + 1) for plane in labels])


def check_labels(values: Iterable[int], num_classes: int, instances: bool = False) -> LabelRule:
    """Decide what the `values` of one mask mean for classes 0 (background) to `num_classes`.

    0..num_classes are taken as they are. With one class, {0, v} is taken as {0, 1}, with a warning. Several
    objects with a number each are one class only where `instances` says so; nothing is merged silently.
    """
    present = sorted(set(values))
    objects = [value for value in present if value != 0]
    if present and present[0] < 0:
        return LabelRule(
            problem=f"found the negative value {present[0]}, wanted 0..{num_classes}; "
            "give the background 0 and the classes 1, 2, ..."
        )
    if instances:
        return LabelRule(mapping={value: int(value > 0) for value in present})
    if not objects or objects[-1] <= num_classes:
        return LabelRule()
    if num_classes == 1 and len(objects) == 1:
        value = objects[0]
        return LabelRule(mapping={0: 0, value: 1}, warning=f"value {value} is taken as class 1")
    return LabelRule(problem=_explain(present, objects, num_classes))


def find_rule(labels: np.ndarray, num_classes: int, instances: bool = False) -> LabelRule:
    """Return what `check_labels` decides about integer `labels` of any shape."""
    if instances:  # whatever the values are, only a negative one matters
        return check_labels([int(labels.min())] if labels.size else [], num_classes, instances=True)
    return check_labels(count_labels(labels), num_classes)


def apply_rule(labels: np.ndarray, rule: LabelRule, num_classes: int) -> np.ndarray:
    """Return integer `labels` of any shape as classes 0..num_classes, uint8 (uint16 above 255 classes).

    Raises:
        DataError: the rule refuses them; the caller adds the file name.
    """
    if rule.problem:
        raise DataError(f"labels: {rule.problem}")
    dtype = np.uint8 if num_classes <= 255 else np.uint16
    return (labels > 0).astype(dtype) if rule.mapping else labels.astype(dtype)


def map_counts(counts: Mapping[int, int], rule: LabelRule) -> dict[int, int]:
    """Return class -> number of voxels, from value -> number of voxels."""
    classes: dict[int, int] = {}
    for value, count in counts.items():
        label = rule.mapping[value] if rule.mapping else value
        classes[label] = classes.get(label, 0) + count
    return classes


def describe_values(values: list[int]) -> str:
    """Write label values for people: all of a few, the range of many."""
    if len(values) <= 8:
        return ", ".join(map(str, values))
    return f"{len(values)} values from {values[0]} to {values[-1]}"


def _explain(present: list[int], objects: list[int], num_classes: int) -> str:
    found = f"found {describe_values(present)}, wanted 0..{num_classes}"
    if num_classes == 1 and len(objects) > _MANY:
        return (
            f"{found}; if each value is one object of the same class pass --instances (every value above 0 is class "
            "1); if they are intensities, this is an image and not its mask"
        )
    if num_classes == 1:
        return (
            f"{found}; if each value is one object of the same class pass --instances (every value above 0 is "
            f"class 1), if they are classes pass --num_classes {objects[-1]}"
        )
    if len(objects) <= num_classes:
        changes = ", ".join(f"{value} -> {label}" for label, value in enumerate(objects, start=1) if value != label)
        return f"{found}; renumber the labels, for example {changes}, or pass --num_classes {objects[-1]}"
    return f"{found}; pass --num_classes {objects[-1]}, or renumber the labels"
