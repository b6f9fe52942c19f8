"""Labels: which values a mask may hold, what is wrong with others, and how they become classes 0..N."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from biom3d.errors import DataError
from biom3d.io.mapped import forget_pages

FEW_CLASSES = 8
_MANY = 50  # more values than that in a mask of one class are objects or intensities, not classes
IGNORED = -1  # in classes: a voxel that teaches nothing and counts nowhere
_USUALLY_IGNORED = (255, 65535)
_SMALL = 1 << 16  # up to here counting by table beats sorting


@dataclass(frozen=True)
class Coding:
    """What the values of masks stand for, where they are not simply the classes.

    Attributes:
        instances: every value above 0 is a single object of class 1.
        ignore: the value of voxels that nobody has annotated.
        values: those of the classes 1, 2, ...; empty: 1, 2, ...
    """

    instances: bool = False
    ignore: int | None = None
    values: tuple[int, ...] = ()


PLAIN = Coding()


@dataclass(frozen=True)
class LabelRule:
    """What to do with the values of one mask.

    Attributes:
        mapping: value -> class; None where it is the identity, but for `ignore`.
        problem: why these values cannot be used, and what to do; None where they can.
        warning: what will be changed without asking; None where nothing will be.
        ignore: the value that becomes `IGNORED`.
    """

    mapping: dict[int, int] | None = None
    problem: str | None = None
    warning: str | None = None
    ignore: int | None = None


def count_labels(labels: np.ndarray) -> dict[int, int]:
    """Return value -> number of voxels, of an integer array of any shape."""
    found: Counter[int] = Counter()
    for part in labels if labels.ndim > 2 else [labels]:  # bincount copies to 64 bits: one plane at a time
        found.update(_count_plane(part))
        forget_pages(labels)
    return dict(sorted(found.items()))


def _count_plane(labels: np.ndarray) -> dict[int, int]:
    if labels.size == 0:
        return {}
    if labels.min() >= 0 and labels.max() < _SMALL:
        table = np.bincount(labels.ravel())
        return {int(value): int(table[value]) for value in np.flatnonzero(table)}
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the voxels of each class in each plane of labels (z, y, x): (z, num_classes + 1).

    Labels are 0..num_classes, or `IGNORED`, which is not counted.
    """
    partial = labels.dtype.kind == "i"
    if num_classes < FEW_CLASSES:  # comparing is 10 x faster than np.bincount, which copies to 64 bits
        rows = []
        for plane in labels:
            objects = [np.count_nonzero(plane == value) for value in range(1, num_classes + 1)]
            left_out = np.count_nonzero(plane < 0) if partial else 0
            rows.append([plane.size - left_out - sum(objects), *objects])
            forget_pages(labels)
        return np.array(rows, np.int64)
    tables = []
    for plane in labels:
        tables.append(np.bincount(plane[plane >= 0] if partial else plane.ravel(), minlength=num_classes + 1))
        forget_pages(labels)
    return np.array(tables)


def check_labels(values: Iterable[int], num_classes: int, coding: Coding = PLAIN) -> LabelRule:
    """Decide what the `values` of one mask mean for classes 0 (background) to `num_classes`.

    0..num_classes are taken as they are. With one class, {0, v} is taken as {0, 1}, with a warning. Several
    objects with a number each are one class only where `coding` says so; nothing is merged silently.
    """
    present = sorted(set(values) - {coding.ignore})
    objects = [value for value in present if value != 0]
    if coding.values:
        return _check_coded(present, coding)
    if present and present[0] < 0:
        return LabelRule(
            problem=f"found the negative value {present[0]}, wanted 0..{num_classes}; "
            f"give the background 0 and the classes 1, 2, ...; {_if_ignored(present[0])}"
        )
    if coding.instances:
        return LabelRule({value: int(value > 0) for value in present}, ignore=coding.ignore)
    if not objects or objects[-1] <= num_classes:
        return LabelRule(ignore=coding.ignore)
    if num_classes == 1 and len(objects) == 1:
        value = objects[0]
        warning = f"value {value} is taken as class 1"
        return LabelRule(mapping={0: 0, value: 1}, warning=warning, ignore=coding.ignore)
    return LabelRule(problem=_explain(present, objects, num_classes))


def _check_coded(present: list[int], coding: Coding) -> LabelRule:
    classes = {0: 0} | {value: label for label, value in enumerate(coding.values, start=1)}
    unknown = [value for value in present if value not in classes]
    if not unknown:
        return LabelRule(classes, ignore=coding.ignore)
    wanted = ", ".join(map(str, coding.values))
    problem = f"found {describe_values(unknown)}, wanted 0 (background) and the values of the classes, {wanted}"
    return LabelRule(problem=f"{problem}; give it by --label_values as well; {_if_ignored(unknown[-1])}")


def _if_ignored(value: int) -> str:
    return f"if {value} marks what nobody has annotated pass --ignore_label {value}"


def find_rule(labels: np.ndarray, num_classes: int, coding: Coding = PLAIN) -> LabelRule:
    """Return what `check_labels` decides about integer `labels` of any shape."""
    if coding == Coding(instances=True):  # whatever the values are, only a negative one matters
        lowest = []
        for part in labels if labels.size else ():
            lowest.append(int(part.min()))
            forget_pages(labels)
        return check_labels([min(lowest)] if lowest else [], num_classes, coding)
    return check_labels(count_labels(labels), num_classes, coding)


def class_type(rule: LabelRule, num_classes: int) -> np.dtype:
    """Return the type of the classes that `apply_rule` makes."""
    if rule.ignore is not None:
        return np.dtype(np.int16)
    return np.dtype(np.uint8 if num_classes <= 255 else np.uint16)


def apply_rule(labels: np.ndarray, rule: LabelRule, num_classes: int) -> np.ndarray:
    """Return integer `labels` of any shape as classes 0..num_classes, uint8 (uint16 above 255 classes).

    Where the rule ignores a value they are int16, and `IGNORED` there.

    Raises:
        DataError: the rule refuses them; the caller adds the file name.
    """
    if rule.problem:
        raise DataError(f"labels: {rule.problem}")
    dtype = class_type(rule, num_classes)
    if rule.mapping is None:
        classes = labels.astype(dtype)
    elif max(rule.mapping.values(), default=0) <= 1:
        classes = (labels > 0).astype(dtype)
    else:
        classes = np.zeros(labels.shape, dtype)
        for value, label in rule.mapping.items():
            if label:
                classes[labels == value] = label
    if rule.ignore is not None:
        classes[labels == rule.ignore] = IGNORED
    return classes


def map_counts(counts: Mapping[int, int], rule: LabelRule) -> dict[int, int]:
    """Return class -> number of voxels, from value -> number of voxels; what is ignored is left out."""
    classes: dict[int, int] = {}
    for value, count in counts.items():
        if value == rule.ignore:
            continue
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
    others = [value for value in objects[:-1] if value > num_classes]
    if num_classes == 1 and (objects[-1] not in _USUALLY_IGNORED or others):
        return (
            f"{found}; if each value is one object of the same class pass --instances (every value above 0 is "
            f"class 1), if they are classes pass --num_classes {len(objects)}{_by_value(objects)}"
        )
    if objects[-1] in _USUALLY_IGNORED and not others:
        as_class = f"--num_classes {len(objects)}{_by_value(objects)}"
        return f"{found}; {_if_ignored(objects[-1])}, if it is a class pass {as_class}"
    if len(objects) <= num_classes:
        changes = ", ".join(f"{value} -> {label}" for label, value in enumerate(objects, start=1) if value != label)
        return f"{found}; renumber the labels, for example {changes}, or pass their values{_by_value(objects)}"
    if len(objects) == objects[-1]:
        return f"{found}; pass --num_classes {objects[-1]}, or renumber the labels"
    return f"{found}; pass --num_classes {len(objects)}{_by_value(objects)}, or renumber the labels"


def _by_value(objects: list[int]) -> str:
    """Return the option for classes whose numbers leave gaps."""
    if objects == list(range(1, len(objects) + 1)) or len(objects) > _MANY:
        return ""
    return f" --label_values {' '.join(map(str, objects))}"
