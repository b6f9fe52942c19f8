"""Sliding-window prediction that streams along z: memory depends on the patch and the slab, not on the volume.

Windows overlap by half and never leave the volume (only where it is smaller than the patch they see its mirror
image, as in training). Their
scores are averaged with Gaussian weights (Isensee et al. 2021). The weights are separable and the windows form a
grid, so their sum is a product of three vectors and needs no volume of its own. A slab is one row of windows along
z; its planes are finished, resampled back and labelled as soon as no later window reaches them.

Where the windows lie and what they weigh is an `Axis` per axis; `biom3d.py` has those of Biom3d 0.1.2.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from biom3d.config import Plan, SpacingUm, Triple
from biom3d.data.normalise import Scaling, choose_scaling
from biom3d.data.patches import mirrored, window_starts
from biom3d.data.resample import CUBIC, LINEAR, axis_weights, resample_axis, target_shape
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import LazyVolume
from biom3d.io.mapped import forget_pages
from biom3d.training.device import autocast, explain_out_of_memory

SIGMA = 1 / 8  # of the patch: standard deviation of the Gaussian weights
READ_PLANES_BYTES = 64e6  # about what is read at once to gather statistics
COPY_BYTES = 64e6  # about what is copied at once of a slab
DEVICE_SHARE = 0.25  # of a GPU's free memory that slabs may take; larger ones stay in main memory
MAX_RATIO = 50.0  # of the voxel sizes of volume and model; more are different units, such as mm and µm
Planes = tuple[int, np.ndarray]
PlaneReader = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Axis:
    """Windows along one axis: the volume lies at `before` in `padded` voxels; a window has `weights` (patch,).

    Around the volume is its mirror image where `mirror`, else 0.
    """

    length: int
    before: int
    padded: int
    starts: Sequence[int]
    weights: np.ndarray
    mirror: bool = False

    def weight_sum(self) -> np.ndarray:
        """Return the sum of the windows' weights (padded,) float32."""
        total = np.zeros(self.padded, np.float32)
        for begin in self.starts:
            total[begin : begin + len(self.weights)] += self.weights
        return total


@dataclass(frozen=True)
class Predictor:
    """Trained networks of one plan (an ensemble) on a device.

    `precision` returns the context in which networks run on a device. `prior_shift` is what the scores of each class
    (background first) are too high by, see `data.priors`; it counts in our own windows only.
    """

    plan: Plan
    networks: Sequence[nn.Module]
    device: torch.device
    mirror: bool = False
    precision: Callable[[torch.device], AbstractContextManager[None]] = autocast
    prior_shift: Sequence[float] = (0.0,)  # the same for all classes, which decides nothing


def predict_labels(
    predictor: Predictor, volume: LazyVolume, spacing: SpacingUm | None, labels: np.ndarray, report: Reporter
) -> None:
    """Segment `volume` into `labels` (z, y, x), an integer array or memory map of the volume's shape."""
    check_fits(predictor.plan, volume)
    shape = volume.header.shape[1:]
    refuse_other_units(spacing, predictor.plan.spacing_um)
    target = target_shape(shape, spacing, predictor.plan.spacing_um)
    source = ScaledSource(volume, _scaling(predictor.plan, volume), target)
    axes = [plan_axis(n, p) for n, p in zip(target, predictor.plan.patch_size, strict=True)]
    scores = score_slabs(predictor, source.read, axes, report)
    shift = np.array(predictor.prior_shift, np.float32)[:, None, None]
    for z, plane in _resample_back(scores, target, shape):
        labels[z] = (plane - shift).argmax(0)
        forget_pages(labels)


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


def refuse_other_units(spacing: SpacingUm | None, target: SpacingUm | None) -> None:
    """Raise DataError where two voxel sizes cannot be of one kind of image: the volume would grow beyond all memory."""
    if spacing is None or target is None:
        return
    if not all(1 / MAX_RATIO < s / t < MAX_RATIO for s, t in zip(spacing, target, strict=True)):
        raise DataError(
            f"its voxel size is {list(spacing)} (z, y, x), the model was trained at {list(target)}; are these "
            "different units? give the true size in the unit of the model by --spacing Z Y X"
        )


def gaussian_weights(length: int) -> np.ndarray:
    """Return the weights of a window along one axis: 1 in the middle, never 0; float32."""
    offset = (np.arange(length) - (length - 1) / 2) / (length * SIGMA)
    return np.maximum(np.exp(-0.5 * offset**2), 1e-3).astype(np.float32)


def plan_axis(length: int, patch: int) -> Axis:
    """Return windows that overlap by at least half and never leave `length`, which is padded only to a patch."""
    padded = max(length, patch)
    starts = window_starts(padded, patch)
    return Axis(length, (padded - length) // 2, padded, starts, gaussian_weights(patch), mirror=True)


class ScaledSource:
    """Planes of the volume as the network wants them: scaled and resampled."""

    def __init__(self, volume: LazyVolume, scaling: Scaling, target: Triple) -> None:
        self.volume, self.scaling, self.target = volume, scaling, target

    def read(self, z0: int, z1: int) -> np.ndarray:
        """Return the planes z0 <= z < z1 of the target grid as (c, z, y, x) float32."""
        _, height, width = self.target
        block = self._resampled(z0, z1)
        if block.shape[2:] != (height, width):
            block = resample_axis(resample_axis(block, 2, height, CUBIC), 3, width, CUBIC)
        return block

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
    return choose_scaling(plan.normalisation, blocks_of(volume), volume.header.shape[0])


def blocks_of(volume: LazyVolume) -> Iterator[np.ndarray]:
    """Yield all planes (c, n, y, x) as stored, some at a time."""
    channels, depth, height, width = volume.header.shape
    step = max(1, int(READ_PLANES_BYTES / (channels * height * width * 4)))
    yield from (volume.read(z, min(z + step, depth)) for z in range(0, depth, step))


def score_slabs(predictor: Predictor, read: PlaneReader, axes: Sequence[Axis], report: Reporter) -> Iterator[Planes]:
    """Yield (z, scores (classes, n, y, x)) of finished planes, from the first to the last.

    `read(z0, z1)` returns planes (c, z, y, x) float32 of the volume, whose axes (z, y, x) the windows lie on.
    """
    first_axis, *in_plane = axes
    starts, patch = first_axis.starts, [len(axis.weights) for axis in axes]
    place = _place(predictor, axes)
    kernel = _kernel(axes).to(place)
    sums = [torch.from_numpy(axis.weight_sum()).to(place) for axis in axes]
    plane_weight = sums[1][:, None] * sums[2][None, :]
    windows = list(itertools.product(*(axis.starts for axis in in_plane)))
    progress = report.track(
        itertools.product(range(len(starts)), range(len(windows))),
        "windows",
        total=len(starts) * len(windows),
        unit="window",
    )
    images = _fill(None, read, range(starts[0], starts[0] + patch[0]), axes, place)
    scores: Tensor | None = None
    crop = tuple(slice(axis.before, axis.before + axis.length) for axis in in_plane)
    for i, begin in enumerate(starts):
        for y, x in windows:
            next(progress)
            window = images[:, :, y : y + patch[1], x : x + patch[2]]
            result = _run(predictor, window[None])[0].to(place)
            if scores is None:
                scores = torch.zeros((len(result), *images.shape[1:]), device=place)
            scores[:, :, y : y + patch[1], x : x + patch[2]].addcmul_(result, kernel)
        assert scores is not None
        done = (starts[i + 1] if i + 1 < len(starts) else first_axis.padded) - begin
        first = max(begin, first_axis.before)
        last = min(begin + done, first_axis.before + first_axis.length)
        step = _planes_at_once(scores)
        for z in range(first, last, step):
            end = min(z + step, last)
            finished = scores[:, z - begin : end - begin, *crop] / (
                sums[0][z:end, None, None] * plane_weight[crop[0], crop[1]]
            )
            yield z - first_axis.before, finished.cpu().numpy()
        if i + 1 < len(starts):
            _shift(scores, done)
            scores[:, -done:] = 0
            _shift(images, done)
            _fill(images[:, -done:], read, range(begin + patch[0], starts[i + 1] + patch[0]), axes, place)
    for _ in progress:  # let the bar end
        pass


def _planes_at_once(slab: Tensor) -> int:
    """Return how many planes of a slab (c, z, y, x) are worked on at a time, so that copies stay small."""
    return max(8, int(COPY_BYTES / (slab[:, 0].numel() * slab.element_size())))


def _shift(slab: Tensor, planes: int) -> None:
    """Move a slab (c, z, y, x) by `planes` towards its start, in place; the last ones keep what they held."""
    depth = slab.shape[1]
    for z in range(0, depth - planes, planes):
        size = min(planes, depth - planes - z)
        slab[:, z : z + size] = slab[:, z + planes : z + planes + size]


def _fill(slab: Tensor | None, read: PlaneReader, wanted: range, axes: Sequence[Axis], place: torch.device) -> Tensor:
    """Read the planes `wanted` of the padded grid into a slab (c, z, y, x), a new one where none is given."""
    done = 0
    while done < len(wanted):
        step = 8 if slab is None else _planes_at_once(slab)
        part = wanted[done : done + step]
        block = _padded_block(read, part.start, part.stop, axes)
        if slab is None:
            slab = torch.empty((block.shape[0], len(wanted), *block.shape[2:]), device=place)
        slab[:, done : done + len(part)] = block
        done += len(part)
    assert slab is not None
    return slab


def _padded_block(read: PlaneReader, z0: int, z1: int, axes: Sequence[Axis]) -> Tensor:
    """Return planes z0..z1 of the padded grid as a tensor (c, z, y, x)."""
    block = _planes(read, z0 - axes[0].before, z1 - axes[0].before, axes[0])
    for axis, number in zip(axes[1:], (2, 3), strict=True):
        around = [(0, 0)] * 4
        around[number] = (axis.before, axis.padded - axis.length - axis.before)
        if any(around[number]):
            block = np.pad(block, around, "symmetric" if axis.mirror else "constant")
    return torch.from_numpy(np.ascontiguousarray(block))


def _planes(read: PlaneReader, z0: int, z1: int, axis: Axis) -> np.ndarray:
    """Return planes z0..z1 of the volume (c, z, y, x), of which some may lie outside."""
    if axis.mirror:
        wanted = mirrored(z0, z1, axis.length)
        first, last = int(wanted.min()), int(wanted.max())
        return read(first, last + 1)[:, wanted - first]
    begin, end = (min(max(z, 0), axis.length) for z in (z0, z1))
    block = read(begin, end) if begin < end else read(0, 1)[:, :0]
    above = min(max(-z0, 0), z1 - z0)
    below = z1 - z0 - above - block.shape[1]
    return np.pad(block, [(0, 0), (above, below), (0, 0), (0, 0)]) if above or below else block


def _kernel(axes: Sequence[Axis]) -> Tensor:
    z, y, x = (torch.from_numpy(axis.weights) for axis in axes)
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


def _place(predictor: Predictor, axes: Sequence[Axis]) -> torch.device:
    """Keep slabs on the GPU where they are a small part of its memory."""
    if predictor.device.type != "cuda":
        return torch.device("cpu")
    plan = predictor.plan
    need = 4 * (2 * plan.num_classes + 3 + plan.num_channels) * plan.patch_size[0] * axes[1].padded * axes[2].padded
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
    with explain_out_of_memory("a window does not fit the memory", remedy), predictor.precision(predictor.device):
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
