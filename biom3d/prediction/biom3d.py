"""Prediction as Biom3d 0.1.2 does it, so that its models give its results.

What differs from our own: the volume is padded by half an overlap on every side, windows have Hann weights, all
channels share one mean and deviation, images are resampled by splines, and labels (not scores) are resampled back. It
streams where nothing is resampled; else the volume is in memory.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from biom3d.config import SpacingUm, Triple
from biom3d.data.normalise import Scaling, mean_and_std
from biom3d.events import Reporter
from biom3d.io import LazyVolume
from biom3d.io.mapped import forget_pages
from biom3d.prediction.room import UNLIMITED, Room
from biom3d.prediction.sliding import Predictor, check_fits, plan_tiles, refuse_other_units, score_tiles
from biom3d.prediction.source import BlockReader, ScaledSource, blocks_of, open_planes
from biom3d.prediction.windows import Axis

EPSILON = 1e-8  # added to a standard deviation
THIN = 3  # an axis is thin if both others are more than this many times longer
IMAGE, LABELS = 3, 1  # order of the splines


@dataclass(frozen=True)
class Scheme:
    """How Biom3d treats a volume; `spacing` (z, y, x) is what a volume is resampled to, None: as it is."""

    spacing: SpacingUm | None
    clip: tuple[float, float] | None = None
    moments: tuple[float, float] | None = None
    softmax: bool = True


def predict_like_biom3d(
    predictor: Predictor,
    scheme: Scheme,
    volume: LazyVolume,
    spacing: SpacingUm | None,
    labels: np.ndarray,
    report: Reporter,
    room: Room = UNLIMITED,
) -> None:
    """Segment `volume` into `labels` (z, y, x); `spacing` is in the unit of `scheme.spacing`.

    Raises DataError where `room` is too small.
    """
    check_fits(predictor.plan, volume)
    shape: Triple = volume.header.shape[1:]
    target = resampled_shape(shape, spacing, scheme.spacing)
    axes = [padded_axis(n, p) for n, p in zip(target, predictor.plan.patch_size, strict=True)]
    if target != shape:
        room = room.without(_resampling_bytes(shape, target, volume.header.shape[0]))
    tiles = plan_tiles(predictor, axes, target, room)
    with open_planes(volume, room.folder if len(tiles) > 1 and target == shape else None) as planes:
        scaling = choose_joint_scaling(scheme, blocks_of(planes.volume), volume.header.shape[0])
        read = ScaledSource(planes, scaling, shape).read if target == shape else _resampled(volume, scaling, target)
        out = labels if target == shape else np.zeros(target, labels.dtype)
        for (y, x), slabs in score_tiles(predictor, read, axes, tiles, report):
            for z, scores in slabs:
                out[z : z + scores.shape[1], slice(*y.out), slice(*x.out)] = decide(scores, scheme.softmax)
                forget_pages(out)
                del scores
    if out is not labels:
        labels[...] = resize_labels(out, shape)


def biom3d_half(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type in which Biom3d runs networks on a device, None: single precision."""
    return torch.float16 if device.type == "cuda" else None


def padded_axis(length: int, patch: int) -> Axis:
    """Return the windows of Biom3d along one axis: an even overlap of about half, half of it around the volume."""
    wanted = max(patch / 2, patch - length)
    overlap = min(2 * int(np.ceil(wanted / 2)), (patch - 1) // 2 * 2)
    padded = max(length + overlap, patch)
    last = padded - patch
    starts = sorted({*range(0, last + 1, patch - overlap), last})
    weights = np.sin(np.pi * np.arange(1, patch + 1) / (patch + 1)) ** 2  # Hann, without the zeros at its ends
    return Axis(length, overlap // 2, padded, starts, weights.astype(np.float32))


def choose_joint_scaling(scheme: Scheme, blocks: Iterable[np.ndarray], channels: int) -> Scaling:
    """Return the scaling of one volume, the same for all its channels; blocks are (c, z, y, x)."""
    low, high = scheme.clip or (-np.inf, np.inf)
    if scheme.moments is not None:
        mean, std = scheme.moments
    else:
        clipped = (np.clip(b, low, high) if scheme.clip else b for b in blocks)
        means, stds = mean_and_std((block.reshape(1, -1) for block in clipped), 1)
        mean, std = float(means[0]), float(stds[0])
    low_, high_, mean_, std_ = (np.full(channels, value, np.float64) for value in (low, high, mean, std + EPSILON))
    return Scaling(low_, high_, mean_, std_)


def decide(scores: np.ndarray, softmax: bool) -> np.ndarray:
    """Return labels (z, y, x) of scores (classes, z, y, x).

    Without `softmax` there is no score for the background: a voxel whose scores are all below 0 is background, of
    several classes it is the likeliest one.
    """
    best: np.ndarray = scores.argmax(0)
    return best if softmax else np.where(scores.max(0) > 0, best + 1, 0)


def resampled_shape(shape: Triple, spacing: SpacingUm | None, target: SpacingUm | None) -> Triple:
    """Return the shape at spacing `target`; DataError where the two cannot be in one unit."""
    if spacing is None or target is None:
        return shape
    refuse_other_units(spacing, target)
    z, y, x = (max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))
    return z, y, x


def resize_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample an image (c, z, y, x) to `shape` (z, y, x) by cubic splines; float64."""
    return np.stack([_resize(channel.astype(np.float64), shape, _resize_values, IMAGE) for channel in image])


def resize_labels(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample labels (z, y, x): the last one whose linearly resampled share is at least a half; same dtype."""
    return _resize(labels, shape, _resize_classes, LABELS).astype(labels.dtype)


Resize = Callable[[np.ndarray, Sequence[int], int], np.ndarray]


def _resize(array: np.ndarray, shape: Sequence[int], resize: Resize, order: int) -> np.ndarray:
    """Resample (z, y, x); with a thin axis first the planes across it, then along it the nearest voxel."""
    if array.shape == tuple(shape):
        return array
    axis = _thin_axis(array.shape)
    axis = _thin_axis(shape) if axis is None else axis
    if axis is None:
        return resize(array, shape, order)
    plane_shape = [n for i, n in enumerate(shape) if i != axis]
    planes = [resize(plane, plane_shape, order) for plane in np.moveaxis(array, axis, 0)]
    flat = np.stack(planes, axis)
    return flat if flat.shape == tuple(shape) else resize(flat, shape, 0)


def _thin_axis(shape: Sequence[int]) -> int | None:
    smallest = min(shape)
    long = [n > THIN * smallest for n in shape]
    return int(np.argmin(shape)) if sum(long) == 2 else None


def _resize_values(array: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    from skimage.transform import resize

    out: np.ndarray = resize(array, shape, order, mode="edge", anti_aliasing=False)
    return out


def _resize_classes(array: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    if order == 0:
        return _resize_values(array.astype(np.float64), shape, 0).astype(array.dtype)
    out = np.zeros(tuple(shape), array.dtype)
    for value in np.unique(array):
        out[_resize_values((array == value).astype(np.float64), shape, order) >= 0.5] = value
    return out


def _resampled(volume: LazyVolume, scaling: Scaling, target: Triple) -> BlockReader:
    whole = resize_image(scaling.apply(volume.read(0, volume.header.shape[1])), target).astype(np.float32)
    return lambda z, y, x: whole[:, slice(*z), slice(*y), slice(*x)]


def _resampling_bytes(shape: Triple, target: Triple, channels: int) -> float:
    """Return what volumes in memory take while splines resample them: float64, and a copy on the way."""
    return 8.0 * (channels + 2) * (math.prod(shape) + 2 * math.prod(target))
