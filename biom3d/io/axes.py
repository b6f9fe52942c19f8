"""Axes: what each stored dimension means, and how to bring any order to (c, z, y, x)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from biom3d.errors import DataError
from biom3d.io.mapped import forget_pages

DROPPED = "-"  # a dimension of length 1 that is none of c, z, y, x
UNKNOWN = "QI"  # what tifffile calls a dimension that the file does not name
_KEPT_AXES = [list("XY"), list("XYZ"), list("CXY"), list("CXYZ")]


@dataclass(frozen=True)
class Layout:
    """What each stored dimension is: `roles` has one letter a dimension, of C, Z, Y, X, or - (left out)."""

    roles: str
    stored_shape: tuple[int, ...]

    @property
    def axes(self) -> str:
        """The stored order, only the letters that we keep."""
        return self.roles.replace(DROPPED, "")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (c, z, y, x)."""
        size = dict(zip(self.roles, self.stored_shape, strict=True))
        return (size.get("C", 1), size.get("Z", 1), size["Y"], size["X"])

    def index(self, z0: int, z1: int) -> tuple[int | slice, ...]:
        """Return the index into the stored array that selects the planes z0 <= z < z1."""
        return tuple(0 if role == DROPPED else slice(z0, z1) if role == "Z" else slice(None) for role in self.roles)

    def to_czyx(self, array: np.ndarray) -> np.ndarray:
        """Return a view (c, z, y, x) of an array whose dimensions are `axes`."""
        return to_czyx(array, self.axes)


def to_czyx(array: np.ndarray, axes: str) -> np.ndarray:
    """Return a view (c, z, y, x) of an array whose dimensions are the letters of `axes`."""
    present = [axes.index(letter) for letter in "CZYX" if letter in axes]
    ordered = array.transpose(present)
    missing = tuple(place for place, letter in enumerate("CZYX") if letter not in axes)
    return np.expand_dims(ordered, missing)


def from_czyx(array: np.ndarray, axes: str) -> np.ndarray:
    """Return a view in the order `axes` of an array (c, z, y, x); letters left out must have length 1."""
    index = tuple(slice(None) if letter in axes else 0 for letter in "CZYX")
    kept = "".join(letter for letter in "CZYX" if letter in axes)
    return array[index].transpose([kept.index(letter) for letter in axes])


def plain_order(axes: str) -> str:
    """Return the letters of `axes` in the order C, Z, Y, X."""
    return "".join(letter for letter in "CZYX" if letter in axes)


def stored_axes(axes: str, shape: tuple[int, int, int, int]) -> str:
    """Return `axes` with the letters added that an array of `shape` (c, z, y, x) needs."""
    if "Z" not in axes and shape[1] > 1:
        axes = axes.replace("Y", "ZY", 1)
    if "C" not in axes and shape[0] > 1:
        axes = "C" + axes
    return axes


def planes(stored: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the planes (last two dimensions) of `stored` as `dtype`: a memory map is never loaded whole."""
    for index in np.ndindex(stored.shape[:-2]):
        yield np.ascontiguousarray(stored[index], dtype=dtype)
        forget_pages(stored)


def copy_by_slabs(stored: np.ndarray, target: Any, axes: str, depth: int) -> None:
    """Copy `stored`, whose dimensions are `axes`, into an array on disk, `depth` planes at a time."""
    if "Z" not in axes:
        target[...] = stored.astype(target.dtype, copy=False)
        return
    for z0 in range(0, stored.shape[axes.index("Z")], depth):
        index = tuple(slice(z0, z0 + depth) if letter == "Z" else slice(None) for letter in axes)
        target[index] = stored[index].astype(target.dtype, copy=False)


def plan_layout(shape: tuple[int, ...], axes: str) -> Layout:
    """Decide what each dimension is, from the letters that the file gives.

    Args:
        shape: the stored shape.
        axes: one letter a dimension: T, C, Z, Y, X, S (samples of a colour picture), Q or I where the file
            does not say, others only with length 1. Metadata wins; without it `guess_axes` decides.

    Raises:
        DataError: several time points, colour samples and channels at once, or axes that cannot be known.
    """
    if 0 in shape:
        raise DataError(f"holds no voxels: its shape is {shape}")
    roles = _drop_single(shape, axes)
    roles = _merge_samples(shape, roles)
    unknown = [place for place, letter in enumerate(roles) if letter in UNKNOWN]
    if unknown:
        roles = _name_unknown(shape, roles, unknown)
    if sorted(roles.replace(DROPPED, "")) not in _KEPT_AXES:
        raise _cannot_know(shape, axes)
    return Layout(roles, tuple(shape))


def guess_axes(shape: tuple[int, ...]) -> str:
    """Return the axes of an array that comes without any: YX, ZYX, CZYX or ZYXC.

    Of four dimensions the channel axis is the first one if that is the smallest, else the last one if that is
    the smallest. Leading dimensions of length 1 beyond four are marked `-`.

    Raises:
        DataError: fewer than 2 or more than 4 dimensions, or no way to tell the channel axis.
    """
    extra = len(shape) - 4
    if extra > 0 and all(size == 1 for size in shape[:extra]):
        return DROPPED * extra + guess_axes(shape[extra:])
    if len(shape) in (2, 3):
        return "ZYX"[-len(shape) :]
    if len(shape) == 4:
        if shape[0] == 1 or shape[0] < min(shape[1:]):
            return "CZYX"
        if shape[3] < min(shape[:3]):
            return "ZYXC"
    raise _cannot_know(shape, "unknown")


def _drop_single(shape: tuple[int, ...], axes: str) -> str:
    """Mark time and other named axes of length 1 as dropped; several time points are an error."""
    roles = ""
    for letter, size in zip(axes, shape, strict=True):
        if letter == "T" and size > 1:
            raise DataError(
                f"has {size} time points (axes {axes}, shape {shape}), wanted one; save one file per time "
                "point, or, if these are slices, set them as such (Fiji: Image > Properties, frames 1)"
            )
        roles += DROPPED if letter == "T" or (size == 1 and letter not in "CZYXS" + UNKNOWN) else letter
    return roles


def _merge_samples(shape: tuple[int, ...], roles: str) -> str:
    """Take the samples of a colour picture as channels."""
    if "S" not in roles:
        return roles
    if "C" in roles:
        if shape[roles.index("C")] > 1 and shape[roles.index("S")] > 1:
            raise DataError(
                f"has channels and colour samples (axes {roles}, shape {shape}); save it with one channel axis"
            )
        single = "C" if shape[roles.index("C")] == 1 else "S"
        roles = roles.replace(single, DROPPED)
    return roles.replace("S", "C")


def _name_unknown(shape: tuple[int, ...], roles: str, unknown: list[int]) -> str:
    """Give the dimensions that the file does not name a meaning."""
    letters = list(roles)
    if "C" not in roles and "Z" not in roles and len(unknown) >= 2:
        places = [place for place, letter in enumerate(roles) if letter != DROPPED]
        for place, letter in zip(places, guess_axes(tuple(shape[p] for p in places)), strict=True):
            letters[place] = letter
        return "".join(letters)
    wanted = [letter for letter in "ZC" if letter not in roles]
    for place in reversed(unknown):
        if wanted:
            letters[place] = wanted.pop(0)
        elif shape[place] == 1:
            letters[place] = DROPPED
        else:
            raise _cannot_know(shape, roles)
    return "".join(letters)


def _cannot_know(shape: tuple[int, ...], axes: str) -> DataError:
    return DataError(
        f"has shape {shape} and axes {axes}: cannot tell which axis is the channel, z, y or x; "
        "wanted 2D (Y, X), 3D (Z, Y, X) or 4D with the channel as the first (or the last) and smallest axis; "
        "save it in a format that names its axes (ImageJ TIFF, OME-TIFF, OME-Zarr)"
    )


def native_dtype(dtype: Any) -> np.dtype:
    """Return the type in which voxels of `dtype` are handed out: native byte order, bool as uint8.

    Raises:
        DataError: not an integer or float of up to 64 bits.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"holds values of type {dtype}; wanted integers or floats of up to 64 bits")
    return dtype.newbyteorder("=")


def slice_reader(source: Any, layout: Layout, dtype: np.dtype) -> Callable[[int, int], np.ndarray]:
    """Return `read(z0, z1)` for an array-like on disk: memory map, HDF5 data set, Zarr array, NIfTI."""

    def read(z0: int, z1: int) -> np.ndarray:
        block = layout.to_czyx(np.asanyarray(source[layout.index(z0, z1)]))
        # A view of a memory map would keep the file open and change with it, so those are copied; others only
        # where their order or type asks for it.
        is_mapped = isinstance(block, np.memmap)
        out = np.array(block, dtype=dtype, order="C", copy=True if is_mapped else None, subok=False)
        if is_mapped:
            forget_pages(block)
        return out

    return read
