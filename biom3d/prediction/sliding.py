"""Sliding-window prediction that streams along z, tile by tile: memory depends on the patch, not on the volume.

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
from biom3d.data.patches import mirrored
from biom3d.data.resample import LINEAR, axis_weights, target_shape, weighted_sum
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import LazyVolume
from biom3d.io.mapped import forget_pages
from biom3d.prediction.agreement import Agreement
from biom3d.prediction.room import COPY_BYTES, PLANES_READ, UNLIMITED, Room, fitting_tiles, tile_cost, window_bytes
from biom3d.prediction.source import BlockReader, ScaledSource, blocks_of, open_planes
from biom3d.prediction.windows import Axis, Limits, Tile, count_windows, plan_axis, whole_plane
from biom3d.training.device import autocast, explain_out_of_memory

DEVICE_SHARE = 0.25  # of a GPU's free memory that slabs may take; larger ones stay in main memory
MAX_RATIO = 50.0  # of the voxel sizes of volume and model; more are different units, such as mm and µm
Planes = tuple[int, np.ndarray]


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
    agreement: Agreement | None = None  # counts how far they agree about one volume

    def window_bytes(self) -> float:
        """Return what a window takes in the main memory, about."""
        plan, outputs = self.plan, self.plan.num_classes + 1
        if self.device.type == "cuda":
            return window_bytes(plan.patch_size, 0, outputs, 4)
        itemsize = max(getattr(network, "dtype", torch.float32).itemsize for network in self.networks)
        return window_bytes(plan.patch_size, plan.width, outputs, itemsize)


def predict_labels(
    predictor: Predictor,
    volume: LazyVolume,
    spacing: SpacingUm | None,
    labels: np.ndarray,
    report: Reporter,
    room: Room = UNLIMITED,
    shares: np.ndarray | None = None,
) -> None:
    """Segment `volume` into `labels` (z, y, x), an integer array or memory map of the volume's shape.

    `shares` (classes, z, y, x), where given, gets what the network makes of each class, 0 to 1 (softmax).
    Raises DataError where `room` is too small.
    """
    check_fits(predictor.plan, volume)
    shape = volume.header.shape[1:]
    refuse_other_units(spacing, predictor.plan.spacing_um)
    target = target_shape(shape, spacing, predictor.plan.spacing_um)
    axes = [plan_axis(n, p) for n, p in zip(target, predictor.plan.patch_size, strict=True)]
    tiles = plan_tiles(predictor, axes, shape, room)
    shift = np.array(predictor.prior_shift, np.float32)[:, None, None]
    with open_planes(volume, room.folder if len(tiles) > 1 else None) as planes:
        source = ScaledSource(planes, _scaling(predictor.plan, planes.volume), target)
        for (y, x), scores in score_tiles(predictor, source.read, axes, tiles, report):
            for z, plane in _resample_back(scores, target, shape, (y, x)):
                place, shifted = (slice(*y.out), slice(*x.out)), plane - shift
                labels[(z, *place)] = shifted.argmax(0)
                forget_pages(labels)
                if shares is not None:
                    shares[(slice(None), z, *place)] = softmax(shifted)
                    forget_pages(shares)
                del plane, shifted  # else they would be there while the next ones are made


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return scores (classes, ...) as shares that add up to 1."""
    powers = np.asarray(scores - scores.max(0))
    np.exp(powers, out=powers)
    powers /= powers.sum(0)
    return powers


def plan_tiles(predictor: Predictor, axes: Sequence[Axis], shape: Sequence[int], room: Room) -> list[Tile]:
    """Return the tiles of the plane that keep within the room; the whole plane where slabs lie on the GPU."""
    if _place(predictor, axes).type != "cpu":
        return [whole_plane(axes, shape)]
    cost = tile_cost(axes, shape, predictor.plan.num_channels, predictor.plan.num_classes + 1)
    return fitting_tiles(axes, shape, cost, room)


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


def _scaling(plan: Plan, volume: LazyVolume) -> Scaling:
    """Gather the statistics of a volume block by block."""
    return choose_scaling(plan.normalisation, blocks_of(volume), volume.header.shape[0])


def score_tiles(
    predictor: Predictor, read: BlockReader, axes: Sequence[Axis], tiles: Sequence[Tile], report: Reporter
) -> Iterator[tuple[Tile, Iterator[Planes]]]:
    """Yield each tile with the scores of its planes, see `score_slabs`, which have to be used before the next tile."""
    total = len(axes[0].starts) * count_windows(tiles)
    progress = report.track(range(total), "windows", total=total, unit="window")
    for tile in tiles:
        yield tile, score_slabs(predictor, read, axes, tile, progress)
    for _ in progress:  # let the bar end
        pass


def score_slabs(
    predictor: Predictor, read: BlockReader, axes: Sequence[Axis], tile: Tile, progress: Iterator[object]
) -> Iterator[Planes]:
    """Yield (z, scores (classes, n, y, x)) of finished planes of a tile, from the first to the last.

    `read(z, y, x)` returns a block (c, z, y, x) float32 of the volume whose axes (z, y, x) the windows lie on; y and x
    of the scores are what the tile needs. `progress` is asked for the next item before each window.
    """
    first_axis, *in_plane = axes
    starts, patch = first_axis.starts, [len(axis.weights) for axis in axes]
    place = _place(predictor, axes)
    kernel = _kernel(axes).to(place)
    if predictor.agreement:
        predictor.agreement.weigh(kernel.to(predictor.device))
    # of a tile: what is needed of the padded plane, and where that lies in the slabs
    needed = [slice(*(n + axis.before for n in span.need)) for axis, span in zip(in_plane, tile, strict=True)]
    crop = tuple(slice(n.start - s.held[0], n.stop - s.held[0]) for n, s in zip(needed, tile, strict=True))
    sums = [torch.from_numpy(axis.weight_sum()).to(place) for axis in axes]
    plane_weight = sums[1][needed[0], None] * sums[2][None, needed[1]]
    windows = [(y - tile[0].held[0], x - tile[1].held[0]) for y in tile[0].starts for x in tile[1].starts]
    held = [span.held for span in tile]
    images = _fill(None, read, (starts[0], starts[0] + patch[0]), held, axes, place)
    scores: Tensor | None = None
    for i, begin in enumerate(starts):
        for y, x in windows:
            next(progress)
            window = images[:, :, y : y + patch[1], x : x + patch[2]]
            result = _run(predictor, window[None])[0].to(place)
            if scores is None:
                scores = torch.zeros((len(result), *images.shape[1:]), device=place)
            scores[:, :, y : y + patch[1], x : x + patch[2]].addcmul_(result, kernel)
            del result
        assert scores is not None
        done = (starts[i + 1] if i + 1 < len(starts) else first_axis.padded) - begin
        first = max(begin, first_axis.before)
        last = min(begin + done, first_axis.before + first_axis.length)
        step = _planes_at_once(scores)
        for z in range(first, last, step):
            end = min(z + step, last)
            finished = scores[:, z - begin : end - begin, *crop] / (sums[0][z:end, None, None] * plane_weight)
            yield z - first_axis.before, finished.cpu().numpy()
            del finished
        if i + 1 < len(starts):
            _shift(scores, done)
            scores[:, -done:] = 0
            _shift(images, done)
            _fill(images[:, -done:], read, (begin + patch[0], starts[i + 1] + patch[0]), held, axes, place)


def _planes_at_once(slab: Tensor) -> int:
    """Return how many planes of a slab (c, z, y, x) are worked on at a time, so that copies stay small."""
    return max(1, int(COPY_BYTES / (slab[:, 0].numel() * slab.element_size())))


def _shift(slab: Tensor, planes: int) -> None:
    """Move a slab (c, z, y, x) by `planes` towards its start, in place; the last ones keep what they held."""
    depth = slab.shape[1]
    for z in range(0, depth - planes, planes):
        size = min(planes, depth - planes - z)
        slab[:, z : z + size] = slab[:, z + planes : z + planes + size]


def _fill(
    slab: Tensor | None,
    read: BlockReader,
    wanted: Limits,
    held: Sequence[Limits],
    axes: Sequence[Axis],
    place: torch.device,
) -> Tensor:
    """Read the planes `wanted` of the padded grid into a slab (c, z, y, x), a new one where none is given."""
    z, last = wanted
    while z < last:
        step = PLANES_READ if slab is None else max(PLANES_READ, _planes_at_once(slab))
        end = min(z + step, last)
        block = torch.from_numpy(np.ascontiguousarray(_padded_block(read, [(z, end), *held], axes)))
        if slab is None:
            slab = torch.empty((block.shape[0], last - z, *block.shape[2:]), device=place)
        slab[:, z - wanted[0] : end - wanted[0]] = block
        z = end
    assert slab is not None
    return slab


def _padded_block(read: BlockReader, limits: Sequence[Limits], axes: Sequence[Axis]) -> np.ndarray:
    """Return a block (c, z, y, x) of the padded grid, of which some may lie outside the volume."""
    wanted = [(begin - axis.before, end - axis.before) for axis, (begin, end) in zip(axes, limits, strict=True)]
    inside = [_inside(axis, *limit) for axis, limit in zip(axes, wanted, strict=True)]
    block = read(*inside)
    for number, (axis, (begin, end), (first, last)) in enumerate(zip(axes, wanted, inside, strict=True), start=1):
        if (begin, end) == (first, last):
            continue
        if axis.mirror:
            block = block.take(mirrored(begin, end, axis.length) - first, number)
        else:
            above = min(max(-begin, 0), end - begin)
            kept = max(0, min(end, axis.length) - max(begin, 0))
            around = [(0, 0)] * 4
            around[number] = (above, end - begin - above - kept)
            block = np.pad(block.take(range(kept), number), around)
    return block


def _inside(axis: Axis, begin: int, end: int) -> Limits:
    """Return what is to be read of an axis for begin..end, of which some may lie outside; at least one voxel."""
    if axis.mirror:
        wanted = mirrored(begin, end, axis.length)
        return int(wanted.min()), int(wanted.max()) + 1
    first = min(max(begin, 0), axis.length - 1)
    return first, max(first + 1, min(end, axis.length))


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
    agreement = predictor.agreement
    remedy = "train with a smaller patch, or use a device with more memory"
    with explain_out_of_memory("a window does not fit the memory", remedy), predictor.precision(predictor.device):
        for network in predictor.networks:
            for flip in flips:
                scores = network(window.flip(flip)).flip(flip).float()
                if agreement:
                    agreement.add_view(scores)
                total = scores if total is None else total.add_(scores)
            if agreement:
                agreement.end_network()
    assert total is not None
    if agreement:
        agreement.end_window()
    return total.div_(len(predictor.networks) * len(flips))


def _resample_back(
    scores: Iterator[Planes], target: Triple, shape: Sequence[int], tile: Tile
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (z, scores (classes, y, x)) of a tile on the grid of the volume, plane by plane."""

    def in_plane(planes: np.ndarray) -> np.ndarray:
        for axis, span in zip((2, 3), tile, strict=True):
            if target[axis - 1] != shape[axis - 1]:
                index, weight = (
                    part[slice(*span.out)] for part in axis_weights(target[axis - 1], shape[axis - 1], LINEAR)
                )
                planes = weighted_sum(planes, axis, index - span.need[0], weight)
        return planes

    if target[0] == shape[0]:
        for z, planes in scores:
            planes = in_plane(planes)
            yield from ((z + i, planes[:, i]) for i in range(planes.shape[1]))
            del planes
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
