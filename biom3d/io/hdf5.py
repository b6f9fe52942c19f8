"""HDF5 .h5 and .hdf5 as ilastik and PlantSeg write them: one data set, element_size_um, axis names."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from biom3d.errors import DataError
from biom3d.io.axes import (
    copy_by_slabs,
    from_czyx,
    guess_axes,
    native_dtype,
    plan_layout,
    slice_reader,
    stored_axes,
)
from biom3d.io.choice import Candidate, Pick, choose
from biom3d.io.units import place_in_um, spacing_in_um
from biom3d.io.volume import Header, LazyVolume, Remark, Spacing

_SLAB = 16  # planes in a chunk


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open the data set of `path` that is meant, see `choice`; only numbers of 2 to 5 dimensions count."""
    file = h5py.File(path, "r")
    try:
        dataset, remarks = _choose(file, pick)
        axes = _axes(dataset)
        layout = plan_layout(dataset.shape, axes or guess_axes(dataset.shape))
        dtype = native_dtype(dataset.dtype)
        name = dataset.name.lstrip("/")
        names = tuple(map(str, dataset.attrs.get("channel_names", ())))
        header = Header(
            layout.shape,
            dtype,
            layout.axes,
            _spacing(dataset.attrs.get("element_size_um"), layout.roles),
            names if len(names) == layout.shape[0] else (),
            extra={"dataset": name},
            origin_um=place_in_um(dataset.attrs.get("origin_um", (None,))),
            array=name,
            remarks=remarks,
        )
    except BaseException:
        file.close()
        raise
    return LazyVolume(header, slice_reader(dataset, layout, dtype), file.close)


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) in its stored order as data set `raw`, or `label` for labels."""
    axes = stored_axes(header.axes, header.shape)
    stored = from_czyx(array, axes)
    name = "label" if header.extra.get("is_labels") else header.extra.get("dataset", "raw")
    sizes = {"C": 1, "Z": _SLAB, "Y": 256, "X": 256}
    chunks = tuple(min(sizes[letter], size) for letter, size in zip(axes, stored.shape, strict=True))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(name, stored.shape, header.dtype, chunks=chunks, compression="gzip", shuffle=True)
        copy_by_slabs(stored, dataset, axes, _SLAB)
        tags = [{"key": letter.lower(), "typeFlags": 1 if letter == "C" else 2} for letter in axes]
        dataset.attrs["axistags"] = json.dumps({"axes": tags})
        if header.spacing_um:
            dataset.attrs["element_size_um"] = header.spacing_um
        if header.origin_um:
            dataset.attrs["origin_um"] = header.origin_um
        if header.channel_names:
            dataset.attrs["channel_names"] = list(header.channel_names)


def _choose(file: h5py.File, pick: Pick) -> tuple[h5py.Dataset, tuple[Remark, ...]]:
    found: list[Candidate] = []

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and 2 <= node.ndim <= 5 and node.dtype.kind in "biuf":
            found.append(Candidate(name, tuple(size for size in node.shape if size != 1), node.dtype))

    file.visititems(collect)
    if not found:
        raise DataError("holds no data set of 2 to 5 dimensions; wanted one called raw, volume or label")
    chosen, remarks = choose(found, pick)
    return file[chosen.key], remarks


def _axes(dataset: h5py.Dataset) -> str | None:
    """Return the axes that the data set names: ilastik's axistags, or HDF5's own dimension labels."""
    tags = dataset.attrs.get("axistags")
    if tags is not None:
        axes = "".join(str(tag["key"]).upper()[:1] for tag in json.loads(tags)["axes"])
    else:
        axes = "".join(dimension.label.upper()[:1] for dimension in dataset.dims)
    return axes if len(axes) == dataset.ndim else None


def _spacing(sizes: Any, roles: str) -> Spacing | None:
    """Return the voxel size from `element_size_um`: z, y, x, or one number a dimension."""
    values = [float(size) for size in np.atleast_1d(sizes)] if sizes is not None else []
    letters = "ZYX"[-len(values) :] if len(values) in (2, 3) else roles
    if len(values) != len(letters):
        return None
    size = dict(zip(letters, values, strict=True))
    depth = None if "Z" in roles else 1.0
    return spacing_in_um(size.get("Z", depth), size.get("Y"), size.get("X"), "µm")
