"""Separable resampling whose every output plane needs only a few input planes, so that it can be streamed.

Cubic convolution (Keys 1981, a = -1/2) for images, linear for scores. Voxel centres lie at (i + 1/2) * size, so
that first and last voxel keep their outer faces; outside the volume the nearest voxel counts.
"""

from collections.abc import Callable, Sequence

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
        part = array.take(index[:, k], axis)
        out += np.multiply(part, weight[:, k].reshape(shape), out=part if part.dtype == np.float32 else None)
    return out


def resample(array: np.ndarray, shape: Sequence[int], taps: int = CUBIC) -> np.ndarray:
    """Resample the last three axes (z, y, x) of `array` to `shape`; float32, the axis that shrinks most first."""
    return resample_planes(lambda z0, z1: array[..., z0:z1, :, :], array.shape[-3:], shape, (0, shape[0]), taps)


def resample_planes(
    read: Callable[[int, int], np.ndarray],
    native: Sequence[int],
    shape: Sequence[int],
    wanted: tuple[int, int],
    taps: int = CUBIC,
) -> np.ndarray:
    """Return the planes `wanted` of what `resample` makes of an array of shape `native` (z, y, x), to the bit.

    `read(z0, z1)` returns planes of that array (..., z, y, x); a few more than `wanted` are asked for.
    """
    if native[0] == shape[0]:
        array, index, weight = read(*wanted), None, None
    else:
        index, weight = (part[slice(*wanted)] for part in axis_weights(native[0], shape[0], taps))
        first = int(index.min())
        array, index = read(first, int(index.max()) + 1), index - first
    offset = array.ndim - 3
    for axis in sorted(range(3), key=lambda axis: shape[axis] / native[axis]):
        if axis > 0:
            array = resample_axis(array, offset + axis, shape[axis], taps)
        elif index is not None and weight is not None:
            array = weighted_sum(array, offset, index, weight)
    return array


def resample_labels(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample a label volume (z, y, x): the class whose linearly resampled share is largest; same dtype."""
    return resample_label_planes(labels, shape, (0, shape[0]))


def resample_label_planes(labels: np.ndarray, shape: Sequence[int], wanted: tuple[int, int]) -> np.ndarray:
    """Return the planes `wanted` of what `resample_labels` makes."""
    if labels.shape == tuple(shape):
        return labels[slice(*wanted)]
    size = (wanted[1] - wanted[0], *shape[1:])
    best = np.zeros(size, np.float32)
    out = np.zeros(size, labels.dtype)
    z0, z1 = reach(labels.shape[0], shape[0], wanted)
    for value in np.unique(labels[z0:z1]):  # others have no share here
        share = resample_planes(
            lambda a, b, value=value: (labels[a:b] == value).astype(np.float32),  # type: ignore[misc]
            labels.shape,
            shape,
            wanted,
            LINEAR,
        )
        larger = share > best
        out[larger] = value
        best[larger] = share[larger]
    return out


def reach(native: int, length: int, wanted: tuple[int, int]) -> tuple[int, int]:
    """Return which of `native` places the places `wanted` of `length` are linearly resampled from: first, last + 1."""
    if native == length:
        return wanted
    index = axis_weights(native, length, LINEAR)[0][slice(*wanted)]
    return int(index.min()), int(index.max()) + 1


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
