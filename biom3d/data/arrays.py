"""What a preprocessed volume is written as: arrays on disk, made and cut few planes at a time."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biom3d.data.normalise import Scaling
from biom3d.data.resample import resample_label_planes, resample_planes
from biom3d.io.mapped import array_on_disk, forget_pages, slabs

HALO = 4  # planes at least at a time where z is resampled: each such block reads about as many more
COPIES = 4  # of a block, while it is resampled


def fill_image(out: np.ndarray, image: np.ndarray, scaling: Scaling) -> None:
    """Fill `out` (c, z, y, x) float32 with an image (c, z, y, x), scaled and resampled to the shape of `out`."""
    native, shape = image.shape[1:], out.shape[1:]
    for z0, z1 in _blocks(native, shape, len(out) * 4):

        def read(first: int, last: int) -> np.ndarray:
            return scaling.apply(image[:, first:last])

        out[:, z0:z1] = resample_planes(read, native, shape, (z0, z1))
        forget_pages(out)
        forget_pages(image)


def fill_labels(out: np.ndarray, labels: np.ndarray) -> None:
    """Fill `out` (z, y, x) with labels (z, y, x) resampled to its shape."""
    for z0, z1 in _blocks(labels.shape, out.shape, 4):
        out[z0:z1] = resample_label_planes(labels, out.shape, (z0, z1))
        forget_pages(out)
        forget_pages(labels)


def write_part(path: Path, array: np.ndarray, part: tuple[slice, ...]) -> None:
    """Write a part of an array (c, z, y, x) to `path` as .npy."""
    cut = array[part]
    out = array_on_disk(path, cut.dtype, cut.shape)
    for z0, z1 in slabs(cut.shape[1], max(1, cut[:, :1].nbytes)):
        out[:, z0:z1] = cut[:, z0:z1]
        forget_pages(out)
        forget_pages(array)


def digest_of(name: str, *arrays: np.ndarray) -> bytes:
    """Return a hash of a name and arrays (c, z, y, x)."""
    digest = hashlib.sha256(os.fsencode(name))
    for array in arrays:
        for channel in array:
            for z0, z1 in slabs(len(channel), channel[:1].nbytes):
                digest.update(np.ascontiguousarray(channel[z0:z1]).data)
                forget_pages(array)
    return digest.digest()


def work_bytes(native: Sequence[int], shape: Sequence[int], channels: int) -> float:
    """Return what filling an image of `shape` (z, y, x) from one of shape `native` takes in memory, about."""
    planes = max(last - first for first, last in _blocks(native, shape, channels * 4))
    if native[0] != shape[0]:
        planes = max(planes, round(planes * native[0] / shape[0])) + HALO
    copies = 1 if tuple(native) == tuple(shape) else COPIES
    plane = max(shape[1] * shape[2], native[1] * native[2])
    return copies * channels * 4.0 * plane * min(planes, max(native[0], shape[0]))


def _blocks(native: Sequence[int], shape: Sequence[int], voxel_bytes: int) -> list[tuple[int, int]]:
    """Return the planes of `shape` (z, y, x) to make at a time; where z stays, no more are read than made."""
    plane = max(shape[1] * shape[2], native[1] * native[2]) * voxel_bytes
    return list(slabs(shape[0], plane, HALO if native[0] != shape[0] else 1))
