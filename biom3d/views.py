"""Which planes of a volume an overlay shows, and their pixels: the places, the cuts, the contrast."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from biom3d.figures import Planes, View
from biom3d.io import open_volume
from biom3d.io.mapped import forget_pages

SLAB = 16  # planes of an image in memory
DARK, BRIGHT = 0.5, 99.8  # percentiles that become black and white

Point = tuple[int, int, int]
Profiles = Sequence[np.ndarray]  # of z, y, x


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
        return [_fullest_planes(_profiles(lambda z: pred[z] > 0, pred), "most of the prediction", pred)]
    if len(pred) == 1:
        return [("prediction and truth", _middle(pred))]
    found = _profiles(lambda z: (pred[z] > 0) | (true[z] > 0), pred, true)
    objects = _fullest_planes(found, "most of the objects", pred)
    differ = _profiles(lambda z: pred[z] != true[z], pred, true)
    if not differ[0].any():
        return [(f"{objects[0]}; prediction and truth are equal", objects[1])]
    worst = ("where prediction and truth differ most", _fullest(differ))
    if worst[1] == objects[1]:
        return [(f"{objects[0]}, {worst[0]} too", worst[1])]
    return [objects, worst]


def _fullest_planes(profiles: Profiles, what: str, volume: np.ndarray) -> tuple[str, Point]:
    if not profiles[0].any():
        return "middle of the volume; no object", _middle(volume)
    return f"planes with {what}", _fullest(profiles)


def _middle(volume: np.ndarray) -> Point:
    depth, height, width = volume.shape
    return depth // 2, height // 2, width // 2


def _fullest(profiles: Profiles) -> Point:
    """Return the z, the y and the x plane with the most voxels."""
    z, y, x = (int(profile.argmax()) for profile in profiles)
    return z, y, x


def _profiles(mask: Callable[[int], np.ndarray], *volumes: np.ndarray) -> Profiles:
    """Count the true voxels of each z plane, each y plane and each x plane; `mask(z)` makes a plane of `volumes`."""
    depth, height, width = volumes[0].shape
    counts = tuple(np.zeros(n, np.int64) for n in (depth, height, width))
    for z in range(depth):
        plane = mask(z)
        for volume in volumes:
            forget_pages(volume)
        counts[1][:] += plane.sum(axis=1)
        counts[2][:] += plane.sum(axis=0)
        counts[0][z] = plane.sum()
    return counts


def _cut(volume: np.ndarray, point: Point) -> Planes:
    z, y, x = point
    planes = [np.array(part) for part in (volume[z], volume[:, y], volume[:, :, x].T)]
    forget_pages(volume)
    return planes[0], planes[1], planes[2]


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
