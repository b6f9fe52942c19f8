"""Memory maps that do not fill the memory of the process that walks through them."""

import mmap

import numpy as np


def forget_pages(array: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back; its values stay in the file, and in the system's cache.

    Otherwise all that was ever touched counts as memory of this process. Other arrays are left alone.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
