"""What a volume and its labels look like, in a few numbers that can be compared with those of other volumes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biom3d.config import SpacingUm
from biom3d.data.normalise import mean_and_std
from biom3d.data.quantiles import percentiles
from biom3d.io.mapped import forget_pages

PLANES = 32  # of a volume whose intensities are looked at
LABELS_AT_ONCE = 1 << 26  # voxels in which objects are counted at a time
COUNT_BYTES = 6  # for each of these: the labels, and the numbers of their objects
PLANES_BYTES = 64e6  # of these planes in memory; more are read several times
PERCENTILES = (1, 50, 99)
TINY = 1e-8


@dataclass(frozen=True)
class ClassFacts:
    """One class of a volume: its share of all voxels, its objects (connected, 26 neighbours), their median size."""

    share: float
    objects: int
    size: float | None  # in µm³, or in voxels where the voxel size is not known


@dataclass(frozen=True)
class VolumeFacts:
    """One volume.

    Attributes:
        extent: the size of what is annotated, in µm³ or voxels.
        classes: class -> what is known of it.
        intensity: percentiles (channels, 3) of the values, in standard deviations from the mean of the channel.
        values: the same percentiles as stored.
        is_in_um: whether sizes are in µm³.
    """

    extent: float
    classes: Mapping[int, ClassFacts]
    intensity: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    is_in_um: bool


def measure(
    labels: np.ndarray,
    read: Callable[[int, int], np.ndarray],
    num_classes: int,
    spacing_um: SpacingUm | None,
) -> VolumeFacts:
    """Return the facts of labels (z, y, x) and of their image, of which `read(z0, z1)` returns planes (c, z, y, x).

    Voxels below 0, which nobody has annotated, do not count.
    """
    voxel = float(np.prod(spacing_um)) if spacing_um else 1.0
    known = 0
    for plane in labels:  # they may lie on the disk
        known += int(np.count_nonzero(plane >= 0))
        forget_pages(labels)
    intensity, values = measure_intensities(read, len(labels))
    return VolumeFacts(
        extent=known * voxel,
        classes=_classes(labels, num_classes, voxel, known),
        intensity=intensity,
        values=values,
        is_in_um=spacing_um is not None,
    )


def counting_bytes(shape: Sequence[int]) -> int:
    """Return what counting the objects of labels of `shape` (z, y, x) takes in memory, about."""
    return COUNT_BYTES * min(math.prod(shape), max(LABELS_AT_ONCE, shape[1] * shape[2]))


def facts_from(content: Mapping[str, Any]) -> VolumeFacts:
    """Return the facts that were written as JSON."""
    classes = {
        int(label): ClassFacts(float(one["share"]), int(one["objects"]), _number(one["size"]))
        for label, one in content["classes"].items()
    }
    intensity, values = (
        tuple(tuple(map(float, channel)) for channel in content[key]) for key in ("intensity", "values")
    )
    return VolumeFacts(float(content["extent"]), classes, intensity, values, bool(content["is_in_um"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _classes(labels: np.ndarray, num_classes: int, voxel: float, known: int) -> dict[int, ClassFacts]:
    """Count the objects of each class; of a large volume by parts, so that one across two parts counts twice."""
    import cc3d

    found: dict[int, list[int]] = {label: [] for label in range(1, num_classes + 1)}
    step = max(1, LABELS_AT_ONCE // max(1, labels[0].size))
    for z in range(0, len(labels), step):
        # each class apart: cc3d joins equal values only
        part = np.asarray(np.maximum(labels[z : z + step], 0))
        forget_pages(labels)
        parts = cc3d.connected_components(part, connectivity=26)
        sizes = cc3d.statistics(parts, no_slice_conversion=True)["voxel_counts"][1:]
        if not len(sizes):
            continue
        first = np.zeros(len(sizes) + 1, labels.dtype)
        for plane, values in zip(parts, part, strict=True):
            first[plane] = values
        for label, size in zip(first[1:].tolist(), sizes.tolist(), strict=True):
            if label in found:
                found[label].append(size)
    return {
        label: ClassFacts(
            share=sum(sizes) / max(1, known),
            objects=len(sizes),
            size=float(np.median(sizes)) * voxel if sizes else None,
        )
        for label, sizes in found.items()
    }


def measure_intensities(
    read: Callable[[int, int], np.ndarray], depth: int
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Return percentiles of each channel as the network sees them, and as stored, from planes at even distances."""
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, PLANES)).round().astype(int))
    first = read(int(chosen[0]), int(chosen[0]) + 1)
    is_small = first.nbytes * len(chosen) <= PLANES_BYTES
    held = [first, *(read(int(z), int(z) + 1) for z in chosen[1:])] if is_small else None

    def planes() -> Iterator[np.ndarray]:
        yield from held or (read(int(z), int(z) + 1) for z in chosen)

    channels, count = len(first), first[0].size * len(chosen)
    values = np.array([
        percentiles(lambda c=c: (plane[c] for plane in planes()), count, PERCENTILES)  # type: ignore[misc]
        for c in range(channels)
    ])  # fmt: skip
    mean, std = mean_and_std((plane.astype(np.float64) for plane in planes()), channels)
    scaled = (values - mean[:, None]) / np.maximum(std[:, None], TINY)
    return _rounded(scaled, 4), _rounded(values, 6)


def _rounded(table: np.ndarray, digits: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.{digits}g}") for value in row) for row in table)
