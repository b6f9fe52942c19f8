"""NumPy .npy files: an array without axes, spacing or names; memory-mapped."""

from pathlib import Path

import numpy as np

from biom3d.errors import DataError
from biom3d.io.attached import damaged
from biom3d.io.axes import (
    from_czyx,
    guess_axes,
    native_dtype,
    plain_order,
    plan_layout,
    planes,
    slice_reader,
    stored_axes,
)
from biom3d.io.choice import Pick
from biom3d.io.volume import Header, LazyVolume


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open `path` lazily; a pickle is refused, never run."""
    source = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(source, np.ndarray):
        source.close()
        raise DataError("holds several arrays (.npz); wanted one array, saved with numpy.save")
    start = getattr(source, "offset", path.stat().st_size - source.nbytes)
    if path.stat().st_size > start + source.nbytes:
        raise damaged(f"{path.stat().st_size - start} bytes of voxels found, its header says {source.nbytes}")
    dtype = native_dtype(source.dtype)
    layout = plan_layout(source.shape, guess_axes(source.shape))
    return LazyVolume(Header(layout.shape, dtype, layout.axes), slice_reader(source, layout, dtype))


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) as ZYX, YX or CZYX: the orders that can be told apart on reading."""
    axes = plain_order(stored_axes(header.axes, header.shape))
    stored = from_czyx(array, axes)
    if not _is_read_as(stored.shape, axes):
        raise DataError(
            f"a .npy file names no axes, and shape {stored.shape} as {axes} would be read wrongly; "
            "write .ome.tif, .h5 or .zarr"
        )
    # Not a memory map: on a full disk that dies by a signal, where write() raises an error.
    with open(path, "wb") as file:
        description = {"descr": header.dtype.str, "fortran_order": False, "shape": stored.shape}
        np.lib.format.write_array_header_1_0(file, description)
        for plane in planes(stored, header.dtype):
            file.write(plane.data)


def _is_read_as(shape: tuple[int, ...], axes: str) -> bool:
    try:
        return guess_axes(shape) == axes
    except DataError:
        return False
