"""Keep the objects that matter: the largest component of a class, or the large ones."""

from collections.abc import Callable

import numpy as np

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


KEEP: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda labels: labels,
    "biggest": keep_biggest,
    "big": keep_big,
}


def _keep(labels: np.ndarray, choose: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Keep the components whose voxel counts `choose` accepts, class by class."""
    import cc3d

    out = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        components = cc3d.connected_components(labels == value, connectivity=26)
        sizes = np.bincount(components.ravel())
        kept = np.zeros(len(sizes), bool)
        kept[1:] = choose(sizes[1:])
        out[kept[components]] = value
    return out
