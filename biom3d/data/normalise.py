"""Intensities to a common scale, from statistics that can be gathered plane by plane."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from biom3d.config import Normalisation
from biom3d.errors import DataError
from biom3d.io.mapped import forget_pages

TINY = 1e-8
VOXELS_AT_ONCE = 1 << 18  # 2 MB in float64, which caches hold


@dataclass(frozen=True)
class Scaling:
    """What is done to each channel: clip to low..high, subtract `mean`, divide by `std`; arrays (c,)."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Return `block` (c, z, y, x) as scaled float32."""
        low, high, mean, std = (
            v[:, None, None, None].astype(np.float32) for v in (self.low, self.high, self.mean, self.std)
        )
        out = block.astype(np.float32)
        if np.isfinite(self.low).any():
            np.clip(out, low, high, out=out)
        out -= mean
        out /= std
        return out


def refuse_not_finite(block: np.ndarray, z0: int = 0) -> None:
    """Raise DataError where planes (c, z, y, x), the first of them `z0`, hold NaN, infinity, or more than float32."""
    if block.dtype.kind != "f":
        return
    most = np.finfo(np.float32).max
    if block.size and block.min() >= -most and block.max() <= most:  # without copies; NaN is neither
        return
    wrong = ~(np.abs(block) <= most)
    if wrong.any():
        c, z, y, x = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        raise DataError(
            f"voxel value {block[c, z, y, x]} at c={c}, z={z + z0}, y={y}, x={x}; wanted finite numbers of ordinary "
            "size; replace such voxels, for example by 0"
        )


def choose_scaling(normalisation: Normalisation, blocks: Iterable[np.ndarray], channels: int) -> Scaling:
    """Return the scaling of one volume given as blocks (c, z, y, x); "ct" does not read them."""
    infinite = np.full(channels, np.inf)
    if normalisation.scheme == "ct":
        low, high, mean, std = (
            np.asarray(v, np.float64)
            for v in (normalisation.low, normalisation.high, normalisation.mean, normalisation.std)
        )
        return Scaling(low, high, mean, np.maximum(std, TINY))
    mean, std = mean_and_std(blocks, channels)
    return Scaling(-infinite, infinite, mean, np.where(std > TINY, std, 1.0))


def mean_and_std(blocks: Iterable[np.ndarray], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (c,) over all blocks (c, ...).

    Chan, Golub & LeVeque 1983: moments of the parts are merged, which loses no digits to a large offset.
    """
    count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    for flat in _pieces(blocks, channels):
        n = flat.shape[1]
        block_mean = flat.mean(1, dtype=np.float64)
        block_squares = flat.var(1, dtype=np.float64) * n
        delta = block_mean - mean
        total = count + n
        squares += block_squares + delta**2 * (count * n / total)
        mean += delta * (n / total)
        count = total
    return mean, np.sqrt(squares / max(count, 1))


def _pieces(blocks: Iterable[np.ndarray], channels: int) -> Iterator[np.ndarray]:
    """Yield blocks (c, ...) as (c, n), few voxels at a time: moments are gathered in float64 copies."""
    for block in blocks:
        flat = block.reshape(channels, -1)
        for i in range(0, flat.shape[1], VOXELS_AT_ONCE):
            yield flat[:, i : i + VOXELS_AT_ONCE]
            forget_pages(block)
