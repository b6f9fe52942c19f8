"""Where windows lie along each axis, and the tiles of the plane that are predicted one after the other.

A tile has all windows that reach its voxels, so each voxel gets the same sums in the same order, however the plane is
cut. What windows at the border of two tiles say is computed twice; that is the price of less memory.
"""

import bisect
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from biom3d.data.patches import window_starts
from biom3d.data.resample import LINEAR, axis_weights

SIGMA = 1 / 8  # of the patch: standard deviation of the Gaussian weights
Limits = tuple[int, int]  # first, and one after the last
Cost = Callable[[int, int], float]  # pixels of a tile on the windows' grid, and on the volume's -> bytes


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
class Span:
    """What a tile is along one axis of the plane.

    Attributes:
        out: the voxels of the volume that get their labels.
        need: the voxels whose scores these are made of, on the grid that the windows see; without resampling the same.
        starts: the windows that reach them, in the padded axis.
        held: the part of the padded axis that these windows cover.
    """

    out: Limits
    need: Limits
    starts: Sequence[int]
    held: Limits


Tile = tuple[Span, Span]  # y, x


def gaussian_weights(length: int) -> np.ndarray:
    """Return the weights of a window along one axis: 1 in the middle, never 0; float32."""
    offset = (np.arange(length) - (length - 1) / 2) / (length * SIGMA)
    return np.maximum(np.exp(-0.5 * offset**2), 1e-3).astype(np.float32)


def plan_axis(length: int, patch: int) -> Axis:
    """Return windows that overlap by at least half and never leave `length`, which is padded only to a patch."""
    padded = max(length, patch)
    starts = window_starts(padded, patch)
    return Axis(length, (padded - length) // 2, padded, starts, gaussian_weights(patch), mirror=True)


def cut_axis(axis: Axis, length: int, parts: int) -> list[Span]:
    """Cut an axis of the volume, `length` voxels, into at most `parts` spans that begin where a window begins."""
    first, last = _reach(axis.length, length)
    edges = [round(i * len(axis.starts) / parts) for i in range(1, parts)]
    places = np.searchsorted(first, [axis.starts[edge] - axis.before for edge in edges])
    return [
        _span(axis, (a, b), (int(first[a]), int(last[b - 1]) + 1)) for a, b in pairwise([0, *places, length]) if a < b
    ]


def whole_plane(axes: Sequence[Axis], shape: Sequence[int]) -> Tile:
    """Return the one tile that is the plane of a volume of `shape` (z, y, x)."""
    (y,), (x,) = (cut_axis(axis, n, 1) for axis, n in zip(axes[1:], shape[1:], strict=True))
    return y, x


def choose_tiles(axes: Sequence[Axis], shape: Sequence[int], cost: Cost, room: float) -> list[Tile]:
    """Return the tiles of a plane of `shape` (z, y, x) that cost at most `room` bytes and the fewest windows.

    Where none fit they are the smallest ones.
    """
    _, y_axis, x_axis = axes
    columns_of = functools.cache(lambda parts: cut_axis(x_axis, shape[2], parts))
    best: tuple[list[Span], list[Span]] | None = None
    most = len(x_axis.starts)
    for parts in _some_of(len(y_axis.starts)):
        rows = cut_axis(y_axis, shape[1], parts)
        counts = range(1, most + 1)
        first = bisect.bisect_left(counts, True, key=lambda n: cost(*largest(rows, columns_of(n))) <= room)
        if first == most:
            continue
        most = counts[first]  # with more rows, never more columns
        if best is None or _count(rows, columns_of(most)) < _count(*best):
            best = rows, columns_of(most)
        if most == 1:
            break
    rows, columns = best or (cut_axis(y_axis, shape[1], len(y_axis.starts)), columns_of(len(x_axis.starts)))
    return [(y, x) for y in rows for x in columns]


def _some_of(count: int) -> Iterator[int]:
    """Yield numbers from 1 to `count`, ever fewer of the large ones."""
    number = 1
    while number < count:
        yield number
        number += max(1, number // 8)
    yield count


def largest(rows: Sequence[Span], columns: Sequence[Span]) -> tuple[int, int]:
    """Return the most pixels that a tile holds of the windows' grid, and of the volume's own."""
    held, out = (
        [max(end - begin for begin, end in (getattr(span, name) for span in spans)) for spans in (rows, columns)]
        for name in ("held", "out")
    )
    return held[0] * held[1], out[0] * out[1]


def count_windows(tiles: Sequence[Tile]) -> int:
    """Return how many windows lie in one row of windows along z."""
    return sum(len(y.starts) * len(x.starts) for y, x in tiles)


def _count(rows: Sequence[Span], columns: Sequence[Span]) -> int:
    return sum(len(y.starts) for y in rows) * sum(len(x.starts) for x in columns)


def _reach(seen: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last of `seen` voxels that each of `length` voxels is resampled from."""
    index = np.arange(length)[:, None] if seen == length else axis_weights(seen, length, LINEAR)[0]
    return index.min(1), index.max(1)


def _span(axis: Axis, out: Limits, need: Limits) -> Span:
    begin, end = (place + axis.before for place in need)
    patch = len(axis.weights)
    starts = axis.starts[bisect.bisect_right(axis.starts, begin - patch) : bisect.bisect_left(axis.starts, end)]
    return Span((int(out[0]), int(out[1])), need, starts, (starts[0], starts[-1] + patch))
