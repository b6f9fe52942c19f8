"""The planes of a volume as networks want them, and where they are read from: its file, or a copy made to be cut."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from biom3d.config import Triple
from biom3d.data.normalise import Scaling
from biom3d.data.resample import CUBIC, axis_weights, weighted_sum
from biom3d.io import LazyVolume
from biom3d.prediction.windows import Limits

READ_PLANES_BYTES = 64e6  # about what is read at once to gather statistics
BlockReader = Callable[[Limits, Limits, Limits], np.ndarray]  # z, y, x -> (c, z, y, x)


@dataclass(frozen=True)
class Planes:
    """A volume, and a reader of blocks of it."""

    volume: LazyVolume
    read: BlockReader


@contextmanager
def open_planes(volume: LazyVolume, folder: Path | None) -> Iterator[Planes]:
    """Yield a volume to be read block by block; with a `folder` from a plain copy there, removed at the end.

    Files are read plane by plane, so that without it each tile would decode the whole file again.
    """
    if folder is None:
        yield Planes(volume, lambda z, y, x: volume.read(*z)[:, :, slice(*y), slice(*x)])
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        read = _copy(volume, file)
        height, width = volume.header.shape[2:]
        whole = replace(volume, read=lambda z0, z1: read((z0, z1), (0, height), (0, width)))
        yield Planes(whole, read)


def blocks_of(volume: LazyVolume) -> Iterator[np.ndarray]:
    """Yield all planes (c, n, y, x) as stored, some at a time."""
    channels, depth, height, width = volume.header.shape
    step = max(1, int(READ_PLANES_BYTES / (channels * height * width * 4)))
    yield from (volume.read(z, min(z + step, depth)) for z in range(0, depth, step))


class ScaledSource:
    """Blocks of the volume as the network wants them: scaled and resampled."""

    def __init__(self, planes: Planes, scaling: Scaling, target: Triple) -> None:
        self.planes, self.scaling, self.target = planes, scaling, target

    def read(self, z: Limits, y: Limits, x: Limits) -> np.ndarray:
        """Return a block of the target grid as (c, z, y, x) float32."""
        native = self.planes.volume.header.shape[1:]
        steps = [_neighbours(n, m, part) for n, m, part in zip(native, self.target, (z, y, x), strict=True)]
        block = self.scaling.apply(self.planes.read(*(reach for reach, _ in steps)))
        for axis, (_, taps) in enumerate(steps, start=1):
            block = block if taps is None else weighted_sum(block, axis, *taps)
        return block


def _neighbours(native: int, target: int, part: Limits) -> tuple[Limits, tuple[np.ndarray, np.ndarray] | None]:
    """Return what to read of an axis for `part` of the target's, and how to weigh it; None: as it is."""
    if native == target:
        return part, None
    index, weight = (each[slice(*part)] for each in axis_weights(native, target, CUBIC))
    first = int(index.min())
    return (first, int(index.max()) + 1), (index - first, weight)


def _copy(volume: LazyVolume, file: IO[bytes]) -> BlockReader:
    """Write all planes into `file` as they are, and return what reads blocks of them."""
    channels, _, height, width = volume.header.shape
    for block in blocks_of(volume):
        file.write(np.ascontiguousarray(block.swapaxes(0, 1)).data)
    file.flush()  # a full disk is told here
    dtype = volume.header.dtype
    row = width * dtype.itemsize

    def read(z: Limits, y: Limits, x: Limits) -> np.ndarray:
        out = np.empty((channels, z[1] - z[0], y[1] - y[0], x[1] - x[0]), dtype)
        rows = np.empty((y[1] - y[0], width), dtype)
        for c, plane in np.ndindex(out.shape[:2]):
            file.seek((((z[0] + plane) * channels + c) * height + y[0]) * row)
            _read_into(file, rows.data.cast("B"))
            out[c, plane] = rows[:, slice(*x)]
        return out

    return read


def _read_into(file: IO[bytes], buffer: memoryview) -> None:
    """Fill `buffer`; the system reads 2 GB at most at once."""
    while len(buffer):
        count = file.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            raise OSError(f"the copy of the volume ends {len(buffer)} bytes too early")
        buffer = buffer[count:]
