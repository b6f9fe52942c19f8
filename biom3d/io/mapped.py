"""Arrays on disk that fill neither the memory of the process that walks through them nor the disk unnoticed."""

import math
import mmap
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

HELD_BYTES = 256e6  # of an array in memory; a larger one goes to the disk
SLAB_BYTES = 64e6  # about what is worked on at a time of one that lies there


def array_on_disk(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return a new memory-mapped array with its room reserved: a disk that fills later would kill us (SIGBUS).

    Raises:
        OSError: there is no room for it.
    """
    array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def new_array(folder: Path | None, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return a new array: in memory where it is small or there is no `folder`, else on the disk of that folder.

    Its file has no name, so that the room is free again as soon as nobody uses the array.

    Raises:
        OSError: there is no room for it.
    """
    if folder is None or is_small(dtype, shape):
        return np.empty(shape, dtype)
    path = folder / f"{uuid.uuid4().hex[:8]}.npy"
    try:
        return array_on_disk(path, dtype, shape)
    finally:
        path.unlink(missing_ok=True)


def is_small(dtype: npt.DTypeLike, shape: Sequence[int]) -> bool:
    """Say whether an array is one that `new_array` keeps in memory."""
    return math.prod(shape) * np.dtype(dtype).itemsize <= HELD_BYTES


def limits(array: np.ndarray) -> tuple[int, int]:
    """Return the lowest and the highest of whole numbers (z, y, x), maybe mapped, in few planes at a time."""
    low, high = [], []
    for plane in array:
        low.append(int(plane.min()))
        high.append(int(plane.max()))
        forget_pages(array)
    return min(low), max(high)


def slabs(depth: int, plane_bytes: float, least: int = 1) -> Iterator[tuple[int, int]]:
    """Yield first and last + 1 of a few planes at a time, `least` of them or more, until all `depth` were named."""
    step = max(least, int(SLAB_BYTES / plane_bytes))
    for z in range(0, depth, step):
        yield z, min(z + step, depth)


def forget_pages(array: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back; its values stay in the file, and in the system's cache.

    Otherwise all that was ever touched counts as memory of this process. Other arrays are left alone.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
