"""Random patches for training and the grid of patches for prediction."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biom3d.config import Triple
from biom3d.data.labels import count_classes
from biom3d.errors import DataError
from biom3d.io.mapped import forget_pages

LABELLED = "labelled"  # name in the file of foreground voxels
MARGIN = 0.2  # share of the patch read around it, so that rotation and scaling find real voxels
WHOLE = slice(None)  # all samples of a batch


@dataclass(frozen=True)
class Case:
    """One preprocessed volume, memory-mapped.

    Attributes:
        image: (c, z, y, x) float32. mask: (z, y, x) integer labels.
        foreground: class -> voxels (n, 3) as z, y, x; classes that are absent are left out.
        labelled: voxels (n, 3) that are annotated, background too, where not all are: the mask is `IGNORED` elsewhere.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    foreground: dict[int, np.ndarray]
    labelled: np.ndarray | None = None


def load_case(images: Path, masks: Path, foreground: Path, filename: str) -> Case:
    """Open one preprocessed case by its file name in `folds.csv`."""
    stem = filename.removesuffix(".npy")
    try:
        image = np.load(images / filename, mmap_mode="r", allow_pickle=False)
        mask = np.load(masks / filename, mmap_mode="r", allow_pickle=False)
        with np.load(foreground / f"{stem}.npz", allow_pickle=False) as archive:
            voxels = {int(key): archive[key] for key in archive.files if key != LABELLED}
            labelled = archive[LABELLED] if LABELLED in archive.files else None
        listed = {} if labelled is None or not len(labelled) else {len(voxels) + 1: labelled}
        _refuse_damaged(
            image, mask, voxels | {max(voxels, default=0) + label: places for label, places in listed.items()}
        )
    except Exception as error:  # a damaged file finds every exception there is in NumPy, zipfile and zlib
        raise DataError(
            f"preprocessed case '{filename}' cannot be read in '{images.parent}': {error}; run preprocess again"
        ) from error
    return Case(stem, image, mask[0], voxels, labelled)


def _refuse_damaged(image: np.ndarray, mask: np.ndarray, voxels: dict[int, np.ndarray]) -> None:
    if image.ndim != 4 or image.dtype != np.float32:
        raise ValueError(f"found an image {image.dtype} {image.shape}, wanted float32 (c, z, y, x)")
    if mask.shape != (1, *image.shape[1:]) or mask.dtype.kind not in "iu":
        raise ValueError(f"found a mask {mask.dtype} {mask.shape}, wanted integers (1, z, y, x) like {image.shape}")
    for label, places in voxels.items():
        fits = places.ndim == 2 and places.shape[1] == 3 and len(places) and places.dtype.kind in "iu"
        if label < 1 or not fits or places.min() < 0 or (places >= image.shape[1:]).any():
            raise ValueError(f"foreground of label {label}: wanted voxels (z, y, x) inside {image.shape[1:]}")


def margin_of(patch: Triple) -> Triple:
    """Return how many voxels to read around a patch on each side; a single plane has none."""
    z, y, x = (0 if p == 1 else math.ceil(p * MARGIN) for p in patch)
    return z, y, x


def choose_start(case: Case, patch: Sequence[int], foreground: bool, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the first voxel (z, y, x) of a patch that lies inside the volume wherever it fits.

    With `foreground` a voxel of a random class of the case lies in the middle third of the patch where the
    borders allow; classes are drawn with equal chance, so that rare ones are seen. Where not all of a volume is
    annotated, it is otherwise any voxel that is.
    """
    shape = case.mask.shape
    sure = foreground and case.foreground
    if sure or (case.labelled is not None and len(case.labelled)):
        classes = sorted(case.foreground)
        voxels = case.foreground[classes[rng.integers(len(classes))]] if sure else case.labelled
        assert voxels is not None
        voxel = voxels[rng.integers(len(voxels))]
        third = [max(1, p // 3) for p in patch]
        start = [
            int(v) - p // 2 + int(rng.integers(-(t // 2), t // 2 + 1))
            for v, p, t in zip(voxel, patch, third, strict=True)
        ]
    else:
        start = [int(rng.integers(0, max(1, n - p + 1))) for n, p in zip(shape, patch, strict=True)]
    z, y, x = (-((p - n) // 2) if n < p else min(max(s, 0), n - p) for s, n, p in zip(start, shape, patch, strict=True))
    return z, y, x


def mirrored(begin: int, end: int, length: int) -> np.ndarray:
    """Return the places 0..length-1 to read for begin..end: outside an axis it is seen in a mirror at its border.

    Zeros there would be an edge that no microscope makes, at the mean intensity, and networks take it for an object:
    held-out Dice of nuclei in blocks of 20 voxels, with a patch of 48, was 0.79 with zeros and is 0.88 so
    (bench/quality/README.md).
    """
    place = np.arange(begin, end) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)


def crop(array: np.ndarray, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Return the last three axes of `array` from `start`, `size` voxels long; outside it is `mirrored`."""
    shape = array.shape[-3:]
    end = [s + n for s, n in zip(start, size, strict=True)]
    if all(s >= 0 and e <= full for s, e, full in zip(start, end, shape, strict=True)):
        within: tuple[Any, ...] = (..., *map(slice, start, end))
        return np.asarray(array[within])
    places = [mirrored(*limits) for limits in zip(start, end, shape, strict=True)]
    inside: tuple[Any, ...] = (..., *(slice(place.min(), place.max() + 1) for place in places))
    out = np.asarray(array[inside])  # a file is read once, as one block
    for axis, place in zip((-3, -2, -1), places, strict=True):
        out = out.take(place - place.min(), axis)
    return out


def draw_places(
    cases: Sequence[Case], patch: Sequence[int], batch_size: int, foreground_rate: float, rng: np.random.Generator
) -> Iterator[tuple[Case, tuple[int, int, int]]]:
    """Yield case and first voxel (z, y, x) of each patch of a batch.

    The last round(batch_size x foreground_rate) hold an object for sure.
    """
    for i in range(batch_size):
        case = cases[int(rng.integers(len(cases)))]
        sure = i >= batch_size - round(batch_size * foreground_rate)
        yield case, choose_start(case, patch, sure, rng)


def sample_batch(
    cases: Sequence[Case],
    patch: Triple,
    margin: Triple,
    batch_size: int,
    foreground_rate: float,
    rng: np.random.Generator,
    share: slice = WHOLE,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch: images (b, c, z, y, x) float32 and masks (b, z, y, x) int16, each `patch` + 2 x `margin`.

    All places are drawn, and only the patches of `share` are read: processes that share a batch draw the same one.
    """
    wanted = range(batch_size)[share]
    size = [p + 2 * m for p, m in zip(patch, margin, strict=True)]
    images, masks = [], []
    for i, (case, start) in enumerate(draw_places(cases, patch, batch_size, foreground_rate, rng)):
        if i not in wanted:
            continue
        outer = [s - m for s, m in zip(start, margin, strict=True)]
        images.append(crop(case.image, outer, size))
        masks.append(crop(case.mask, outer, size).astype(np.int16))
    return np.stack(images), np.stack(masks)


def window_starts(length: int, patch: int, overlap: float = 0.5) -> list[int]:
    """Return where windows of `patch` voxels start so that they cover `length` with at least `overlap`.

    The windows are shifted evenly and stay inside; an axis no longer than the patch has one window.
    """
    if length <= patch:
        return [0]
    steps = int(np.ceil((length - patch) / (patch * (1 - overlap))))
    return [round(i * (length - patch) / steps) for i in range(steps + 1)]


def sample_labelled(labels: np.ndarray, rng: np.random.Generator, limit: int = 10_000) -> np.ndarray | None:
    """Return up to `limit` annotated voxels (n, 3) int32 as z, y, x; None where all of them are."""
    counts = np.zeros(len(labels), np.int64)
    for z, plane in enumerate(labels):
        counts[z] = np.count_nonzero(plane >= 0)
        forget_pages(labels)
    if counts.sum() == labels.size:
        return None
    found = _sample(labels, lambda plane: plane >= 0, counts, rng, limit)
    return np.zeros((0, 3), np.int32) if found is None else found


def sample_foreground(
    labels: np.ndarray, num_classes: int, rng: np.random.Generator, limit: int = 10_000
) -> dict[int, np.ndarray]:
    """Return class -> up to `limit` of its voxels (n, 3) int32 as z, y, x; absent classes are left out."""
    counts = count_classes(labels, num_classes)
    found = {}
    for value in range(1, num_classes + 1):
        places = _sample(labels, lambda plane, value=value: plane == value, counts[:, value], rng, limit)  # type: ignore[misc]
        if places is not None:
            found[value] = places
    return found


def _sample(
    labels: np.ndarray,
    choose: Callable[[np.ndarray], np.ndarray],
    counts: np.ndarray,
    rng: np.random.Generator,
    limit: int,
) -> np.ndarray | None:
    """Return up to `limit` of the voxels that `choose` tells, of which each plane has one of `counts`."""
    before = np.cumsum(counts) - counts  # such voxels in the planes above
    total = int(counts.sum())
    chosen = np.sort(rng.choice(total, limit, replace=False)) if total > limit else np.arange(total)
    planes = np.searchsorted(before, chosen, "right") - 1
    flat = []
    for z in np.unique(planes):
        flat.append(np.flatnonzero(choose(labels[z]))[chosen[planes == z] - before[z]])
        forget_pages(labels)
    if not flat:
        return None
    y, x = np.divmod(np.concatenate(flat), labels.shape[2])
    return np.stack([planes, y, x], axis=1).astype(np.int32)
