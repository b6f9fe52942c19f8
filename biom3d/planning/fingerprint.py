"""Facts about a data set on which a plan rests, from headers and voxel samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from biom3d.config import Fingerprint, SpacingUm, Triple


def make_fingerprint(
    shapes: Sequence[tuple[int, int, int, int]],
    spacings: Sequence[SpacingUm | None],
    is_2d: bool,
    class_voxels: Sequence[int] = (),
    samples: Sequence[np.ndarray] = (),
) -> Fingerprint:
    """Return the facts of volumes with `shapes` (c, z, y, x).

    The median shape is that after resampling to the median spacing. `samples` are intensities (c, n) of objects,
    one array a volume, needed for "ct" normalisation only.
    """
    known = [s for s in spacings if s is not None]
    spacing: SpacingUm | None = None
    if known and len(known) == len(spacings):
        z, y, x = np.median(known, axis=0)
        spacing = (float(z), float(y), float(x))
    same = spacing is None or bool(np.allclose(known, spacing, rtol=0.01))
    return Fingerprint(
        num_volumes=len(shapes),
        num_channels=shapes[0][0],
        is_2d=is_2d,
        median_shape=_median_shape(shapes, known if spacing else [], spacing),
        spacing_um=spacing,
        same_spacing=same,
        class_voxels=tuple(int(n) for n in class_voxels),
        **_intensities(samples),
    )


def _median_shape(
    shapes: Sequence[tuple[int, int, int, int]], spacings: Sequence[SpacingUm], spacing: SpacingUm | None
) -> Triple:
    sizes = np.array([shape[1:] for shape in shapes], float)
    if spacing is not None:
        sizes = sizes * np.array(spacings) / np.array(spacing)
    z, y, x = (max(1, round(float(n))) for n in np.median(sizes, axis=0))
    return z, y, x


def _intensities(samples: Sequence[np.ndarray]) -> dict[str, Any]:
    if not samples:
        return {}
    values = np.concatenate(samples, axis=1)
    facts = {
        "low": np.percentile(values, 0.5, axis=1),
        "high": np.percentile(values, 99.5, axis=1),
        "mean": values.mean(1),
        "std": values.std(1),
    }
    return {name: tuple(float(v) for v in column) for name, column in facts.items()}
