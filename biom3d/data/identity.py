"""Which volume is which, told by its voxels: a copy under another name or in another format is the same."""

import hashlib
from pathlib import Path

import numpy as np

from biom3d.io import LazyVolume, open_volume
from biom3d.io.mapped import forget_pages

VOXELS_AT_ONCE = 1 << 22


class Identity:
    """The digest of a volume whose planes come one after the other."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._digest = hashlib.sha256(repr(tuple(map(int, shape))).encode())

    def update(self, planes: np.ndarray) -> None:
        """Take the next planes (c, z, y, x); how many come at once makes no difference."""
        for z in range(planes.shape[1]):
            # numbers, not their type: a converter may store 8 bits as 16, or as floats; + 0 makes -0 and 0 one
            plane = np.add(planes[:, z], 0, dtype="<f4", casting="unsafe")
            self._digest.update(np.ascontiguousarray(plane).data)

    def text(self) -> str:
        """Return the digest."""
        return self._digest.hexdigest()


def identify_array(array: np.ndarray) -> str:
    """Return the digest of a volume (c, z, y, x), in memory or mapped."""
    identity = Identity(_four(array.shape))
    for z in range(array.shape[1]):
        identity.update(array[:, z : z + 1])
        forget_pages(array)
    return identity.text()


def identify_volume(volume: LazyVolume) -> str:
    """Return the digest of a volume on disk; it is read once, few planes at a time."""
    channels, depth, height, width = volume.header.shape
    identity = Identity(volume.header.shape)
    step = max(1, VOXELS_AT_ONCE // (channels * height * width))
    for z in range(0, depth, step):
        identity.update(volume.read(z, min(z + step, depth)))
    return identity.text()


def identify_file(path: Path) -> str:
    """Return the digest of a file; DataError where it cannot be read."""
    with open_volume(path) as volume:
        return identify_volume(volume)


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    channels, depth, height, width = shape
    return channels, depth, height, width
