"""Which planes of a volume an overlay shows, and their pixels: the places, the cuts, the contrast."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biom3d.figures import Planes, View
from biom3d.io import open_volume

SLAB = 16  # planes of an image in memory
DARK, BRIGHT = 0.5, 99.8  # percentiles that become black and white

Point = tuple[int, int, int]


def make_views(image: Path, pred: np.ndarray, true: np.ndarray | None) -> list[View]:
    """Choose the places to show and cut the image, the prediction and the truth (z, y, x) there."""
    places = choose_places(pred, true)
    pictures = stretch_contrast(read_planes(image, [point for _, point in places]))
    return [
        View(title, point, picture, _cut(pred, point), None if true is None else _cut(true, point))
        for (title, point), picture in zip(places, pictures, strict=True)
    ]


def choose_places(pred: np.ndarray, true: np.ndarray | None) -> list[tuple[str, Point]]:
    """Return titles and points (z, y, x) to show.

    The z, y and x planes with the most voxels of objects; with the truth, those where the two differ most too. The
    centre of the objects would often lie between them, where there is nothing to see. A 2D image has one place.
    """
    if true is None:
        return [_fullest_planes(pred > 0, "most of the prediction")]
    if len(pred) == 1:
        return [("prediction and truth", _middle(pred))]
    objects = _fullest_planes((pred > 0) | (true > 0), "most of the objects")
    differ = pred != true
    if not differ.any():
        return [(f"{objects[0]}; prediction and truth are equal", objects[1])]
    worst = ("where prediction and truth differ most", _fullest(differ))
    if worst[1] == objects[1]:
        return [(f"{objects[0]}, {worst[0]} too", worst[1])]
    return [objects, worst]


def _fullest_planes(mask: np.ndarray, what: str) -> tuple[str, Point]:
    if not mask.any():
        return "middle of the volume; no object", _middle(mask)
    return f"planes with {what}", _fullest(mask)


def _middle(volume: np.ndarray) -> Point:
    depth, height, width = volume.shape
    return depth // 2, height // 2, width // 2


def _fullest(mask: np.ndarray) -> Point:
    """Return the z, the y and the x plane with the most voxels."""
    z, y, x = (int(profile.argmax()) for profile in _profiles(mask))
    return z, y, x


def _profiles(mask: np.ndarray) -> list[np.ndarray]:
    """Count the true voxels of each z plane, each y plane and each x plane."""
    return [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]


def _cut(volume: np.ndarray, point: Point) -> Planes:
    z, y, x = point
    return volume[z], volume[:, y], volume[:, :, x].T


def read_planes(path: Path, points: Sequence[Point]) -> list[list[np.ndarray]]:
    """Read the planes through each point, (c, y, x), (c, z, x) and (c, y, z), with few planes in memory."""
    with open_volume(path) as volume:
        channels, depth, height, width = volume.header.shape
        sizes = [(channels, height, width), (channels, depth, width), (channels, height, depth)]
        cuts = [[np.zeros(size, volume.header.dtype) for size in sizes] for _ in points]
        for z0 in range(0, depth, SLAB):
            slab = volume.read(z0, min(z0 + SLAB, depth))
            z1 = z0 + slab.shape[1]
            for (z, y, x), cut in zip(points, cuts, strict=True):
                cut[1][:, z0:z1] = slab[:, :, y]
                cut[2][:, :, z0:z1] = slab[:, :, :, x].transpose(0, 2, 1)
                if z0 <= z < z1:
                    cut[0][...] = slab[:, z - z0]
    return cuts


def stretch_contrast(cuts: Sequence[Sequence[np.ndarray]]) -> list[Planes]:
    """Scale each channel to 0..1 by percentiles over all planes, and average the channels to grey."""
    values = np.concatenate([plane.reshape(len(plane), -1) for cut in cuts for plane in cut], axis=1)
    low, high = [], []
    for channel in values.astype(np.float32):
        finite = channel[np.isfinite(channel)]
        ends = np.percentile(finite, [DARK, BRIGHT]) if finite.size else np.zeros(2)
        low.append(ends[0])
        high.append(max(ends[1], ends[0] + 1e-6))
    shape = (-1, 1, 1)
    black, white = np.reshape(low, shape), np.reshape(high, shape)

    def grey(plane: np.ndarray) -> np.ndarray:
        scaled = np.nan_to_num((plane - black) / (white - black), nan=0.0, posinf=1.0, neginf=0.0)
        return np.asarray(np.clip(scaled, 0, 1).mean(axis=0))

    return [(grey(cut[0]), grey(cut[1]), grey(cut[2])) for cut in cuts]
