"""Arrays on disk that fill neither the memory of the process that walks through them nor the disk unnoticed."""

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt


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


def forget_pages(array: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back; its values stay in the file, and in the system's cache.

    Otherwise all that was ever touched counts as memory of this process. Other arrays are left alone.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
