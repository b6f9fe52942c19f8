"""Keep the objects that matter: the largest component of a class, or the large ones."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from biom3d.errors import DataError
from biom3d.memory import SHARE, Limit, in_gb

BYTES = 12  # a voxel: numbered components, two masks, the result, the values of all objects
BIG = 0.3  # share of Otsu's threshold of the volumes above which a component counts as big, as in Biom3d


def keep_biggest(labels: np.ndarray) -> np.ndarray:
    """Return `labels` (z, y, x) with the largest connected component of each class (26 neighbours)."""
    return _keep(labels, lambda sizes: sizes == sizes.max())


def keep_big(labels: np.ndarray) -> np.ndarray:
    """Return `labels` (z, y, x) without the small components of each class.

    Small: below 0.3 x Otsu's threshold (Otsu 1979) of the component volumes of the class.
    """
    from skimage.filters import threshold_otsu

    return _keep(labels, lambda sizes: sizes >= BIG * (threshold_otsu(sizes) if len(set(sizes)) > 1 else 0))


def keep_centred(labels: np.ndarray) -> np.ndarray:
    """Return `labels` with one component a class, as Biom3d's `keep_biggest_only`.

    It is the component whose centre of mass is nearest to that of the volume, or the largest one where that has less
    than half of its voxels.
    """
    return _keep_each(labels, _centred)


def keep_big_biom3d(labels: np.ndarray) -> np.ndarray:
    """Return `labels` without small components, as Biom3d's `keep_big_only`: Otsu's threshold over 255 steps."""
    return _keep_each(labels, lambda sizes, _: sizes > BIG * _otsu_of_few(sizes))


KEEP: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda labels: labels,
    "biggest": keep_biggest,
    "big": keep_big,
    "centred": keep_centred,
    "big_biom3d": keep_big_biom3d,
}


def with_values(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Write the `values` of the classes 1, 2, ... in place of them, plane by plane; no values: nothing changes."""
    if values:
        table = np.array([0, *values], labels.dtype)
        for plane in labels:
            plane[...] = table[plane]
    return labels


def refuse_large(keep: str, shape: Sequence[int], held: float, limit: Limit) -> None:
    """Raise DataError where a volume of `shape` cannot be held whole, as every `keep` but "none" does."""
    needed = (held + BYTES * math.prod(shape)) / SHARE
    if keep != "none" and needed > limit.bytes:
        raise DataError(
            f"keeping some of its objects needs {in_gb(needed)} of memory, {limit.who} {in_gb(limit.bytes)}; use a "
            "machine with more, or leave --keep out"
        )


def _keep(labels: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Keep the components whose voxel counts `choose` accepts, class by class."""
    return _keep_each(labels, lambda sizes, _: choose(sizes))


def _keep_each(labels: np.ndarray, choose: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Keep the components that `choose(voxel counts (n,), distances to the centre (n,))` accepts, class by class."""
    import cc3d

    out = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        components = cc3d.connected_components(labels == value, connectivity=26)
        facts = cc3d.statistics(components)
        distances = np.linalg.norm(facts["centroids"][1:] - np.array(labels.shape) / 2, axis=1)
        sizes = facts["voxel_counts"][1:].astype(np.int64)
        kept = np.zeros(len(sizes) + 1, bool)
        kept[1:] = choose(sizes, distances)
        out[kept[components]] = value
    return out


def _centred(sizes: np.ndarray, distances: np.ndarray) -> np.ndarray:
    nearest = int(distances.argmin())
    chosen = nearest if 2 * sizes[nearest] >= sizes.max() else int(sizes.argmax())
    return np.arange(len(sizes)) == chosen


def _otsu_of_few(sizes: np.ndarray) -> float:
    """Return Otsu's threshold (1979) among 255 even steps, which needs no histogram of the few values."""
    steps = np.linspace(sizes.min(), sizes.max() + 1, 255)
    within = [
        _variance(sizes[sizes >= step], len(sizes)) + _variance(sizes[sizes < step], len(sizes)) for step in steps
    ]
    parted = [sizes.min() < step <= sizes.max() for step in steps]
    return float(steps[int(np.argmin(np.where(parted, within, np.inf)))])


def _variance(part: np.ndarray, total: int) -> float:
    return float(part.var() * len(part) / total) if len(part) else 0.0
