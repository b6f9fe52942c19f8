"""Voxels behind a text header in the same file (NRRD, MetaImage): mapped where raw, unpacked whole where compressed."""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biom3d.errors import DataError
from biom3d.io.units import UM_PER_UNIT, spacing_in_um
from biom3d.io.volume import Header, Spacing

LPS = np.diag([-1.0, -1.0, 1.0])  # from the axes of DICOM and ITK (left, posterior, superior) to those of NIfTI
_LINE_ENDS = b"\r\n"  # may follow raw voxels
_MOST = 1100  # zlib and gzip make data smaller by 1032 at the most
_LONGEST_HEADER = 1 << 20  # bytes


def read_lines(path: Path, is_last: Callable[[str], bool]) -> tuple[list[str], int]:
    """Return the lines of the header up to the one that is its last, and where the voxels begin."""
    lines: list[str] = []
    with open(path, "rb") as file:
        while line := file.readline(_LONGEST_HEADER):
            lines.append(line.decode("utf-8", "replace").strip())
            if is_last(lines[-1]):
                return lines, file.tell()
            if file.tell() > _LONGEST_HEADER:
                break
    raise ValueError("its header has no end")


def damaged(reason: str) -> DataError:
    """Return the error for a file that is not what its header says."""
    return DataError(f"the file is damaged or cut off ({reason}); copy it again from its source")


def numbers(text: str, count: int | None = None) -> list[float]:
    """Read numbers between blanks; ValueError unless there are `count` of them, all finite."""
    found = [float(word) for word in text.split()]
    if (count is not None and len(found) != count) or not all(map(math.isfinite, found)):
        raise ValueError(f"'{text[:60]}' where {count} numbers were expected")
    return found


def open_voxels(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype, packed: bool) -> Any:
    """Return the voxels, array-like: a memory map of raw ones, and compressed ones when they are asked for.

    Raises DataError where the file has fewer than `shape` says.
    """
    wanted, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - start
    if wanted <= 0 or min(shape) < 1:
        raise damaged(f"a shape of {shape}")
    if wanted > (there * _MOST if packed else there):
        raise damaged(f"{wanted} bytes of voxels wanted, {there} found")
    if not packed and there - wanted > len(_LINE_ENDS):
        raise damaged(f"{there} bytes of voxels found, its header says {wanted}")
    if packed:
        return _Packed(path, start, shape, dtype)
    return np.memmap(path, dtype, "r", start, shape)


class _Packed:
    """Compressed voxels: unpacked whole at the first look, since what lies before a plane must be unpacked anyway."""

    def __init__(self, path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path, self.start, self.shape, self.dtype = path, start, shape, dtype
        self._voxels: np.ndarray | None = None

    def __getitem__(self, index: Any) -> np.ndarray:
        if self._voxels is None:
            self._voxels = self._unpack()
        return np.array(self._voxels[index])

    def _unpack(self) -> np.ndarray:
        size = math.prod(self.shape) * self.dtype.itemsize
        with open(self.path, "rb") as file:
            file.seek(self.start)
            unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib and gzip alike
            content = unpacker.decompress(file.read(), size + 1)
        if len(content) != size or not unpacker.eof:
            raise damaged(f"{size} bytes of voxels wanted, {len(content)} unpacked")
        return np.frombuffer(content, self.dtype).reshape(self.shape)


def pack(planes: Iterator[np.ndarray], is_gzip: bool) -> Iterator[bytes]:
    """Yield the compressed bytes of planes, one after the other."""
    packer = zlib.compressobj(6, wbits=zlib.MAX_WBITS | 16 if is_gzip else zlib.MAX_WBITS)
    for plane in planes:
        yield packer.compress(plane.data)
    yield packer.flush()


def affine_from(directions: np.ndarray, origin: Sequence[float], to_ras: np.ndarray) -> list[list[float]]:
    """Return the affine (x, y, z; axes of NIfTI) of directions (columns, with their lengths) and an origin."""
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ directions
    affine[:3, 3] = to_ras @ np.asarray(origin, float)
    return affine.tolist()


def spacing_of(directions: np.ndarray, unit: str) -> Spacing | None:
    """Return the voxel size (z, y, x) in µm of directions, the columns for x, y, z."""
    x, y, z = (round(float(size), 9) for size in np.linalg.norm(directions, axis=0))
    return spacing_in_um(z, y, x, unit)


def lps_geometry(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Return directions (columns x, y, z, with their lengths) and origin in mm, in the axes of ITK."""
    z, y, x = (size / UM_PER_UNIT["mm"] for size in header.spacing_um or (1000.0, 1000.0, 1000.0))
    wanted = np.array([x, y, z])
    if "affine" not in header.extra:
        origin = [place / UM_PER_UNIT["mm"] for place in reversed(header.origin_um or (0.0, 0.0, 0.0))]
        return np.diag(wanted), np.array(origin)
    affine = np.asarray(header.extra["affine"], float) * (UM_PER_UNIT[header.unit] / UM_PER_UNIT["mm"])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / sizes * wanted if sizes.all() else np.diag(wanted)
    return LPS @ directions, LPS @ affine[:3, 3]
