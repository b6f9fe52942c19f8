"""OME-Zarr 0.4 (Zarr format 2) and 0.5 (Zarr format 3): level 0 is read; one level is written."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from biom3d.errors import DataError
from biom3d.io.axes import (
    copy_by_slabs,
    from_czyx,
    native_dtype,
    plain_order,
    plan_layout,
    slice_reader,
    stored_axes,
)
from biom3d.io.units import UM_PER_UNIT, canonical_unit, spacing_in_um, spacing_in_unit
from biom3d.io.volume import Header, LazyVolume, Spacing

_CHUNK = {"C": 1, "Z": 32, "Y": 256, "X": 256}
_UNIT_NAMES = {
    "µm": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "inch": "inch",
    "Å": "angstrom",
}
_COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FF0000", "0000FF", "FFFF00")


def open_volume(path: Path) -> LazyVolume:
    """Open level 0 of the image in the folder `path` lazily."""
    group, metadata = _image_group(zarr.open_group(path, mode="r"))
    multiscale = metadata["multiscales"][0]
    array = group[multiscale["datasets"][0]["path"]]
    if not isinstance(array, zarr.Array):
        raise DataError("its metadata names an array that is not there")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale["axes"]]
    letters = "".join(str(axis["name"])[:1].upper() for axis in axes)
    layout = plan_layout(array.shape, letters)
    dtype = native_dtype(array.dtype)
    unit, spacing = _spacing(axes, _scale(multiscale), letters)
    names = tuple(str(one.get("label", "")) for one in metadata.get("omero", {}).get("channels", ()))
    named = len(names) == layout.shape[0] and all(names)
    version = metadata.get("version") or multiscale.get("version") or "0.4"
    extra = {"ome_zarr": str(version)}
    header = Header(layout.shape, dtype, layout.axes, spacing, names if named else (), unit, extra)
    return LazyVolume(header, slice_reader(array, layout, dtype))


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) as an OME-Zarr image: 0.5, or 0.4 where `header` came from such a file."""
    write_image(path, array, header, "0.4" if header.extra.get("ome_zarr") == "0.4" else "0.5")


def write_image(path: Path, array: np.ndarray, header: Header, version: str) -> None:
    """Write an array (c, z, y, x) as an OME-Zarr image of `version` 0.4 or 0.5, slab by slab."""
    axes = plain_order(stored_axes(header.axes, header.shape))
    stored = from_czyx(array, axes)
    chunks = tuple(min(_CHUNK[letter], size) for letter, size in zip(axes, stored.shape, strict=True))
    shared: dict[str, Any] = {"name": "0", "shape": stored.shape, "chunks": chunks, "dtype": header.dtype}
    # Nested folders, as 0.4 asks for; format 3 nests anyway.
    if version == "0.4":
        group = zarr.open_group(path, mode="w", zarr_format=2)
        target = group.create_array(**shared, chunk_key_encoding={"name": "v2", "separator": "/"})
    else:
        group = zarr.open_group(path, mode="w", zarr_format=3)
        target = group.create_array(**shared, dimension_names=list(axes.lower()))
    copy_by_slabs(stored, target, axes, _CHUNK["Z"])
    group.attrs.update(_attributes(axes, header, version))


def _image_group(root: zarr.Group) -> tuple[zarr.Group, dict[str, Any]]:
    """Return the group that holds the image, and its metadata; a converter may have put it one level down."""
    for path in ("", "0"):
        group = root[path] if path in root and path else root
        if isinstance(group, zarr.Group):
            attributes = dict(group.attrs)
            metadata = attributes.get("ome", attributes)
            if isinstance(metadata, dict) and metadata.get("multiscales"):
                if path and "1" in root:
                    raise DataError("holds several images; give the folder of one, for example its '0'")
                return group, metadata
    raise DataError("is not an OME-Zarr image (no 'multiscales' in it); save it as OME-Zarr 0.4 or 0.5")


def _scale(multiscale: dict[str, Any]) -> np.ndarray:
    """Return the scale of level 0: that of the data set times that of the whole image."""
    scale = np.ones(len(multiscale["axes"]))
    for owner in (multiscale["datasets"][0], multiscale):
        for transformation in owner.get("coordinateTransformations") or ():
            if transformation["type"] == "scale":
                scale = scale * np.asarray(transformation["scale"], dtype=float)
    return scale


def _spacing(axes: list[dict[str, Any]], scale: np.ndarray, letters: str) -> tuple[str, Spacing | None]:
    """Return the unit of x and the voxel size in µm; numbers without a unit are µm, all 1 means not known."""
    spatial = {letter: place for place, letter in enumerate(letters) if letter in "ZYX"}
    units = {letter: axes[place].get("unit") for letter, place in spatial.items()}
    if not any(units.values()) and all(scale[place] == 1 for place in spatial.values()):
        return "µm", None
    sizes: dict[str, float | None] = {"Z": None if "Z" in letters else 1.0}
    for letter, place in spatial.items():
        unit = canonical_unit(units[letter] or "µm")
        sizes[letter] = float(scale[place]) * UM_PER_UNIT[unit] if unit else None
    unit = canonical_unit(units.get("X") or "µm") or "µm"
    return unit, spacing_in_um(sizes["Z"], sizes.get("Y"), sizes.get("X"), "µm")


def _attributes(axes: str, header: Header, version: str) -> dict[str, Any]:
    """Return the attributes of the image group, made by the models of the specification."""
    models = _models(version)
    unit = _UNIT_NAMES[header.unit] if header.spacing_um else None
    spacing = spacing_in_unit(header.spacing_um, header.unit) if header.spacing_um else (1.0, 1.0, 1.0)
    sizes = {"C": 1.0, **dict(zip("ZYX", spacing, strict=True))}
    multiscale = models.Multiscale(
        axes=[
            {"name": "c", "type": "channel"}
            if letter == "C"
            else {"name": letter.lower(), "type": "space"} | ({"unit": unit} if unit else {})
            for letter in axes
        ],
        datasets=[models.Dataset.build(path="0", scale=[sizes[letter] for letter in axes], translation=None)],
        **({"version": version} if version == "0.4" else {}),
    )
    content: dict[str, Any] = {"multiscales": [multiscale.model_dump(mode="json", exclude_none=True)]}
    if len(header.channel_names) == header.shape[0]:
        content["omero"] = {"channels": _channels(header)}
    return content if version == "0.4" else {"ome": {"version": version, **content}}


def _models(version: str) -> Any:
    if version == "0.4":
        from ome_zarr_models.v04 import multiscales
    else:
        from ome_zarr_models.v05 import multiscales  # type: ignore[no-redef]
    return multiscales


def _channels(header: Header) -> list[dict[str, Any]]:
    """Return the display settings, the only place of the specification for channel names."""
    info = np.iinfo(header.dtype) if header.dtype.kind in "iu" else None
    low, high = (float(info.min), float(info.max)) if info else (0.0, 1.0)
    window = {"min": low, "max": high, "start": low, "end": high}
    return [
        {"label": name, "color": _COLORS[number % len(_COLORS)], "window": window, "active": True}
        for number, name in enumerate(header.channel_names)
    ]
