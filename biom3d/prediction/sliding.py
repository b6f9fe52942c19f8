"""Sliding-window prediction that streams along z: memory depends on the patch and the slab, not on the volume.

Windows overlap by half and never leave the volume (it is padded only where it is smaller than the patch). Their
scores are averaged with Gaussian weights (Isensee et al. 2021). The weights are separable and the windows form a
grid, so their sum is a product of three vectors and needs no volume of its own. A slab is one row of windows along
z; its planes are finished, resampled back and labelled as soon as no later window reaches them.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from biom3d.config import Plan, SpacingUm, Triple
from biom3d.data.normalise import Scaling, choose_scaling
from biom3d.data.patches import window_starts
from biom3d.data.resample import CUBIC, LINEAR, axis_weights, resample_axis, target_shape
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import LazyVolume
from biom3d.models.unet import UNet
from biom3d.training.device import autocast, explain_out_of_memory

SIGMA = 1 / 8  # of the patch: standard deviation of the Gaussian weights
READ_PLANES_BYTES = 64e6  # about what is read at once to gather statistics
DEVICE_SHARE = 0.25  # of a GPU's free memory that slabs may take; larger ones stay in main memory
Planes = tuple[int, np.ndarray]


@dataclass(frozen=True)
class Predictor:
    """Trained networks of one plan (an ensemble) on a device."""

    plan: Plan
    networks: Sequence[UNet]
    device: torch.device
    mirror: bool = False


def predict_labels(
    predictor: Predictor, volume: LazyVolume, spacing: SpacingUm | None, labels: np.ndarray, report: Reporter
) -> None:
    """Segment `volume` into `labels` (z, y, x), an integer array or memory map of the volume's shape."""
    check_fits(predictor.plan, volume)
    shape = volume.header.shape[1:]
    target = target_shape(shape, spacing, predictor.plan.spacing_um)
    source = _Source(volume, _scaling(predictor.plan, volume), target)
    scores = _slabs(predictor, source, report)
    for z, plane in _resample_back(scores, target, shape):
        labels[z] = plane.argmax(0)


def check_fits(plan: Plan, volume: LazyVolume) -> None:
    """Refuse a volume that the model was not made for."""
    channels, depth = volume.header.shape[:2]
    if channels != plan.num_channels:
        raise DataError(
            f"it has {channels} channel(s), the model wants {plan.num_channels}; give what it was trained on"
        )
    if plan.is_2d and depth > 1:
        raise DataError(f"it has {depth} planes, the model was trained on 2D images; give single planes")
    if not plan.is_2d and volume.header.is_2d:
        raise DataError("it is a 2D image, the model was trained on volumes with a z axis; give volumes")


def gaussian_weights(length: int) -> np.ndarray:
    """Return the weights of a window along one axis: 1 in the middle, never 0; float32."""
    offset = (np.arange(length) - (length - 1) / 2) / (length * SIGMA)
    return np.maximum(np.exp(-0.5 * offset**2), 1e-3).astype(np.float32)


def weight_sum(length: int, patch: int) -> np.ndarray:
    """Return the sum of the windows' weights along one axis of `length` >= `patch` voxels."""
    total = np.zeros(length, np.float32)
    for begin in window_starts(length, patch):
        total[begin : begin + patch] += gaussian_weights(patch)
    return total


class _Source:
    """Planes of the volume as the network wants them: scaled, resampled, padded to at least a patch."""

    def __init__(self, volume: LazyVolume, scaling: Scaling, target: Triple) -> None:
        self.volume, self.scaling, self.target = volume, scaling, target

    def read(self, z0: int, z1: int) -> np.ndarray:
        """Return the planes z0 <= z < z1 of the target grid as (c, z, y, x) float32; z may lie outside."""
        depth, height, width = self.target
        begin, end = max(z0, 0), min(z1, depth)
        block = self._resampled(begin, end)
        if block.shape[2:] != (height, width):
            block = resample_axis(resample_axis(block, 2, height, CUBIC), 3, width, CUBIC)
        padding = ((0, 0), (begin - z0, z1 - end), (0, 0), (0, 0))
        return np.pad(block, padding) if any(padding[1]) else block

    def _resampled(self, begin: int, end: int) -> np.ndarray:
        """Return planes of the target grid that are not yet resampled within the plane."""
        native, depth = self.volume.header.shape[1], self.target[0]
        if native == depth:
            return self.scaling.apply(self.volume.read(begin, end))
        index, weight = (part[begin:end] for part in axis_weights(native, depth, CUBIC))
        first, last = int(index.min()), int(index.max())
        planes = self.scaling.apply(self.volume.read(first, last + 1))
        out = np.zeros((planes.shape[0], end - begin, *planes.shape[2:]), np.float32)
        for k in range(index.shape[1]):
            out += planes[:, index[:, k] - first] * weight[None, :, k, None, None]
        return out


def _scaling(plan: Plan, volume: LazyVolume) -> Scaling:
    """Gather the statistics of a volume block by block."""
    channels, depth, height, width = volume.header.shape
    step = max(1, int(READ_PLANES_BYTES / (channels * height * width * 4)))
    blocks = (volume.read(z, min(z + step, depth)) for z in range(0, depth, step))
    return choose_scaling(plan.normalisation, blocks, channels)


def _slabs(predictor: Predictor, source: _Source, report: Reporter) -> Iterator[Planes]:
    """Yield (z, scores (classes, n, y, x)) of finished planes of the target grid, from the first to the last."""
    patch, target = predictor.plan.patch_size, source.target
    padded = [max(n, p) for n, p in zip(target, patch, strict=True)]
    before = [(full - n) // 2 for full, n in zip(padded, target, strict=True)]
    place = _place(predictor, padded)
    kernel = _kernel(patch).to(place)
    sums = [torch.from_numpy(weight_sum(n, p)).to(place) for n, p in zip(padded, patch, strict=True)]
    plane_weight = sums[1][:, None] * sums[2][None, :]
    starts = window_starts(padded[0], patch[0])
    windows = _plane_windows(padded, patch)
    progress = report.track(
        itertools.product(range(len(starts)), range(len(windows))),
        "windows",
        total=len(starts) * len(windows),
        unit="window",
    )
    images = _padded_block(source, starts[0], starts[0] + patch[0], before, padded).to(place)
    scores = torch.zeros((predictor.plan.num_classes + 1, patch[0], *padded[1:]), device=place)
    crop = (slice(before[1], before[1] + target[1]), slice(before[2], before[2] + target[2]))
    for i, begin in enumerate(starts):
        for y, x in windows:
            next(progress)
            window = images[:, :, y : y + patch[1], x : x + patch[2]]
            result = _run(predictor, window[None])[0].to(place)
            scores[:, :, y : y + patch[1], x : x + patch[2]].addcmul_(result, kernel)
        done = (starts[i + 1] if i + 1 < len(starts) else padded[0]) - begin
        finished = scores[:, :done] / (sums[0][begin : begin + done, None, None] * plane_weight)
        first, last = max(begin, before[0]), min(begin + done, before[0] + target[0])
        if first < last:
            planes = finished[:, first - begin : last - begin, *crop]
            yield first - before[0], planes.cpu().numpy()
        if i + 1 < len(starts):
            scores = torch.cat([scores[:, done:], torch.zeros_like(scores[:, :done])], dim=1)
            new = _padded_block(source, begin + patch[0], starts[i + 1] + patch[0], before, padded)
            images = torch.cat([images[:, done:], new.to(place)], dim=1)
    for _ in progress:  # let the bar end
        pass


def _padded_block(source: _Source, z0: int, z1: int, before: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Return planes z0..z1 of the padded grid as a tensor (c, z, y, x)."""
    block = source.read(z0 - before[0], z1 - before[0])
    after = [full - n - b for full, n, b in zip(padded[1:], block.shape[2:], before[1:], strict=True)]
    if any(after) or any(before[1:]):
        block = np.pad(block, ((0, 0), (0, 0), (before[1], after[0]), (before[2], after[1])))
    return torch.from_numpy(np.ascontiguousarray(block))


def _plane_windows(padded: Sequence[int], patch: Triple) -> list[tuple[int, int]]:
    return list(itertools.product(window_starts(padded[1], patch[1]), window_starts(padded[2], patch[2])))


def _kernel(patch: Triple) -> Tensor:
    z, y, x = (torch.from_numpy(gaussian_weights(p)) for p in patch)
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


def _place(predictor: Predictor, padded: Sequence[int]) -> torch.device:
    """Keep slabs on the GPU where they are a small part of its memory."""
    if predictor.device.type != "cuda":
        return torch.device("cpu")
    plan = predictor.plan
    need = 4 * (2 * plan.num_classes + 3 + plan.num_channels) * plan.patch_size[0] * padded[1] * padded[2]
    free = torch.cuda.mem_get_info(predictor.device)[0]
    return predictor.device if need < DEVICE_SHARE * free else torch.device("cpu")


@torch.inference_mode()
def _run(predictor: Predictor, window: Tensor) -> Tensor:
    """Return the mean scores (b, classes, z, y, x) of all networks and mirrored views; float32."""
    window = window.to(predictor.device)
    axes = [axis for axis in (2, 3, 4) if window.shape[axis] > 1]
    flips = [
        list(chosen)
        for count in range(len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
        if predictor.mirror or count == 0
    ]
    total: Tensor | None = None
    remedy = "train with a smaller patch, or use a device with more memory"
    with explain_out_of_memory("a window does not fit the memory", remedy), autocast(predictor.device):
        for network in predictor.networks:
            for flip in flips:
                scores = network(window.flip(flip)).flip(flip).float()
                total = scores if total is None else total.add_(scores)
    assert total is not None
    return total / (len(predictor.networks) * len(flips))


def _resample_back(scores: Iterator[Planes], target: Triple, shape: Sequence[int]) -> Iterator[Planes]:
    """Yield (z, scores (classes, y, x)) on the grid of the volume, plane by plane."""
    in_plane: Callable[[np.ndarray], np.ndarray] = lambda s: resample_axis(  # noqa: E731
        resample_axis(s, 2, shape[1], LINEAR), 3, shape[2], LINEAR
    )
    if target[0] == shape[0]:
        for z, planes in scores:
            planes = in_plane(planes)
            yield from ((z + i, planes[:, i]) for i in range(planes.shape[1]))
        return
    index, weight = axis_weights(target[0], shape[0], LINEAR)
    waiting: dict[int, np.ndarray] = {}
    done = 0
    for z, planes in scores:
        planes = in_plane(planes)
        waiting.update((z + i, planes[:, i]) for i in range(planes.shape[1]))
        while done < shape[0] and index[done].max() in waiting:
            yield done, sum(w * waiting[k] for k, w in zip(index[done], weight[done], strict=True))
            done += 1
        oldest = index[done].min() if done < shape[0] else target[0]
        for k in [k for k in waiting if k < oldest]:
            del waiting[k]
