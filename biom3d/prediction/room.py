"""What a prediction takes in memory, reckoned before it starts, and the tiles that keep within what it may take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from biom3d.errors import DataError
from biom3d.io import Header
from biom3d.memory import SHARE, Limit, in_gb
from biom3d.prediction.windows import Axis, Cost, Tile, choose_tiles, count_windows, largest, whole_plane

MODEST = 2.8e9  # bytes of the whole process where nobody allows it more: a laptop has them, and a shared server
LEAST = 2e8  # bytes for slabs, where the rest has taken all that would be modest
PATIENCE = 2.5  # times the windows of an uncut plane; rather than more of them, more memory
COPY_BYTES = 64e6  # about what is copied at once of a slab
PLANES_READ = 8  # at a time
ACTIVATIONS = 7  # tensors of its first stage that a network holds at once, measured: 450 bytes a voxel at width 32
SCORES = 3  # tensors of scores in single precision at once, measured at 300 classes


@dataclass(frozen=True)
class Room:
    """Bytes of memory that slabs and their copies should take, and may; `folder` is for copies on disk.

    `besides` is what the process takes besides, `limit` is what it may take in all.
    """

    modest: float = float("inf")
    most: float = float("inf")
    besides: float = 0
    limit: Limit | None = None
    folder: Path | None = None

    def without(self, taken: float) -> "Room":
        """Return what is left where something else takes bytes."""
        return replace(self, modest=self.modest - taken, most=self.most - taken, besides=self.besides + taken)


UNLIMITED = Room()


def measure_room(limit: Limit, header: Header, held: float, folder: Path, is_asked: bool) -> Room:
    """Return the room for slabs, besides what is `held` anyway and the reading of planes.

    A limit that `is_asked` for is used up, which saves windows; of any other no more is taken than is modest.
    """
    channels, _, height, width = header.shape
    besides = held + 2 * max(COPY_BYTES, channels * height * width * header.dtype.itemsize)
    most = limit.bytes * SHARE - besides
    modest = most if is_asked else min(most, max(MODEST - besides, LEAST))
    return Room(modest, most, besides, limit, folder)


def window_bytes(patch: Sequence[int], width: int, outputs: int, itemsize: int) -> float:
    """Return what a network of `width` and its `outputs` scores take for one window, in numbers of `itemsize` bytes."""
    voxels = patch[0] * patch[1] * patch[2]
    return voxels * (ACTIVATIONS * width * itemsize + outputs * (itemsize + 4 * SCORES))


def fitting_tiles(axes: Sequence[Axis], shape: Sequence[int], cost: Cost, room: Room) -> list[Tile]:
    """Return tiles of the plane that keep within the room; DataError where none do."""
    few = PATIENCE * count_windows([whole_plane(axes, shape)])
    allowed = room.modest
    while True:
        tiles = choose_tiles(axes, shape, cost, allowed)
        takes = cost(*largest(*map(list, zip(*tiles, strict=True))))
        if takes <= allowed and count_windows(tiles) <= few:
            return tiles
        if allowed >= room.most:
            break
        allowed = min(max(allowed, LEAST) * 1.5, room.most)
    if takes <= room.most:
        return tiles
    assert room.limit is not None
    raise DataError(
        f"its prediction needs {in_gb((room.besides + takes) / SHARE)} of memory, {room.limit.who} "
        f"{in_gb(room.limit.bytes)}; use a machine with more, or train with a smaller --patch_size"
    )


def tile_cost(axes: Sequence[Axis], shape: Sequence[int], channels: int, outputs: int) -> Cost:
    """Return what tells the bytes of a tile: slabs of image and scores, and copies of some of their planes."""
    patch_z = len(axes[0].weights)
    resampled = [axis.length != n for axis, n in zip(axes, shape, strict=True)]
    chunks = 3 if any(resampled[1:]) else 1
    planes = 6 if resampled[0] else 2

    def cost(held: int, out: int) -> float:
        plane = 4.0 * outputs * max(held, out)
        image = 4.0 * held * patch_z * channels
        scores = 4.0 * held * patch_z * outputs
        filled = 3 * 4.0 * channels * min(PLANES_READ, patch_z) * max(held, out)
        finished = chunks * max(COPY_BYTES, plane) + planes * plane
        if len(axes[0].starts) == 1:  # what is read is there before there are scores
            return image + max(filled, scores + finished)
        return image + scores + max(filled, finished)

    return cost
