"""Separable resampling whose every output plane needs only a few input planes, so that it can be streamed.

Cubic convolution (Keys 1981, a = -1/2) for images, linear for scores. Voxel centres lie at (i + 1/2) * size, so
that first and last voxel keep their outer faces; outside the volume the nearest voxel counts.
"""

from collections.abc import Sequence

import numpy as np

CUBIC, LINEAR = 4, 2  # number of neighbours


def axis_weights(n_in: int, n_out: int, taps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours (n_out, taps) int64 and their weights (n_out, taps) float32 along one axis."""
    centre = (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5
    first = np.floor(centre).astype(np.int64) - (taps // 2 - 1)
    index = first[:, None] + np.arange(taps)
    distance = np.abs(centre[:, None] - index)
    weight = np.clip(1 - distance, 0, None) if taps == LINEAR else _keys(distance)
    return np.clip(index, 0, n_in - 1), (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def _keys(d: np.ndarray) -> np.ndarray:
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resample_axis(array: np.ndarray, axis: int, n_out: int, taps: int) -> np.ndarray:
    """Resample one axis of `array` to `n_out` samples; float32."""
    n_in = array.shape[axis]
    if n_in == n_out:
        return array
    return weighted_sum(array, axis, *axis_weights(n_in, n_out, taps))


def weighted_sum(array: np.ndarray, axis: int, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Make each sample of an axis from its neighbours `index` (n_out, taps) with their weights; float32."""
    shape = [1] * array.ndim
    shape[axis] = len(index)
    out = np.zeros([*array.shape[:axis], len(index), *array.shape[axis + 1 :]], np.float32)
    for k in range(index.shape[1]):
        out += array.take(index[:, k], axis) * weight[:, k].reshape(shape)
    return out


def resample(array: np.ndarray, shape: Sequence[int], taps: int = CUBIC) -> np.ndarray:
    """Resample the last three axes (z, y, x) of `array` to `shape`; float32, the axis that shrinks most first."""
    offset = array.ndim - 3
    order = sorted(range(3), key=lambda axis: shape[axis] / array.shape[offset + axis])
    for axis in order:
        array = resample_axis(array, offset + axis, shape[axis], taps)
    return array


def resample_labels(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample a label volume (z, y, x): the class whose linearly resampled share is largest; same dtype."""
    if labels.shape == tuple(shape):
        return labels
    best = np.zeros(tuple(shape), np.float32)
    out = np.zeros(tuple(shape), labels.dtype)
    for value in np.unique(labels):
        share = resample((labels == value).astype(np.float32), shape, LINEAR)
        larger = share > best
        out[larger] = value
        best[larger] = share[larger]
    return out


def target_shape(
    shape: Sequence[int], spacing: Sequence[float] | None, target: Sequence[float] | None
) -> tuple[int, int, int]:
    """Return the shape (z, y, x) that `shape` has at spacing `target`; unchanged where either is unknown.

    A spacing within 1 % of the target counts as equal: files round.
    """
    if spacing is None or target is None:
        z, y, x = shape
    else:
        z, y, x = (
            n if abs(s / t - 1) < 0.01 or n == 1 else max(1, round(n * s / t))
            for n, s, t in zip(shape, spacing, target, strict=True)
        )
    return z, y, x
