"""OME-Zarr 0.4 (Zarr format 2) and 0.5 (Zarr format 3): level 0 is read; one level is written."""

import itertools
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from biom3d.errors import DataError
from biom3d.io.axes import (
    Layout,
    copy_by_slabs,
    from_czyx,
    native_dtype,
    plain_order,
    plan_layout,
    slice_reader,
    stored_axes,
)
from biom3d.io.choice import Pick, url_of
from biom3d.io.labels import describe_for_zarr
from biom3d.io.units import (
    canonical_unit,
    length_in_um,
    place_in_um,
    spacing_in_um,
    spacing_in_unit,
    unknown_units,
)
from biom3d.io.volume import Header, LazyVolume, Remark, Spacing

_CHUNK = {"C": 1, "Z": 32, "Y": 256, "X": 256}
_UNIT_NAMES = {
    "µm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "inch": "inch",
    "Å": "angstrom",
}
_PACKING = ZstdCodec(level=0, checksum=True)  # Zarr's own, with a sum by which a changed voxel is found
_COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FF0000", "0000FF", "FFFF00")


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open level 0 of the image, or of the labels, that are meant in the folder `path`."""
    if url_of(path) is None:
        return _open_in(path, path, pick)
    from biom3d.io.urls import open_store

    store = open_store(path)
    try:
        return replace(_open_in(store, None, pick), close=store.forget)
    except BaseException:
        store.forget()
        raise


def _open_in(source: Any, files: Path | None, pick: Pick) -> LazyVolume:
    """Open what is meant in a folder or a store; chunks are looked at as `files`, unless they lie elsewhere."""
    root = _open_root(source)
    name, group, metadata, remarks = _choose_group(root, pick)
    multiscale = metadata["multiscales"][0]
    array = group[multiscale["datasets"][0]["path"]]
    if not isinstance(array, zarr.Array):
        raise DataError("its metadata names an array that is not there")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale["axes"]]
    letters = "".join(str(axis["name"])[:1].upper() for axis in axes)
    layout = plan_layout(array.shape, letters)
    dtype = native_dtype(array.dtype)
    scale, shift = _transform(multiscale)
    unit, spacing, origin, odd = _geometry(axes, scale, shift, letters)
    names = tuple(str(one.get("label", "")) for one in metadata.get("omero", {}).get("channels", ()))
    named = len(names) == layout.shape[0] and all(names)
    version = metadata.get("version") or multiscale.get("version") or "0.4"
    folder = files / name / str(multiscale["datasets"][0]["path"]) if files else None
    header = Header(
        layout.shape,
        dtype,
        layout.axes,
        spacing,
        names if named else (),
        unit,
        {"ome_zarr": str(version)},
        origin,
        name,
        (*remarks, *odd, *(_missing_chunks(array, folder) if folder and pick.role == "image" else ())),
    )
    read = slice_reader(array, layout, dtype)
    return LazyVolume(header, _checking_chunks(read, array, folder, layout) if folder else read)


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) as an OME-Zarr image: 0.5, or 0.4 where `header` came from such a file."""
    write_image(path, array, header, "0.4" if header.extra.get("ome_zarr") == "0.4" else "0.5")


def write_image(path: Path, array: np.ndarray, header: Header, version: str) -> None:
    """Write an array (c, z, y, x) as an OME-Zarr image of `version` 0.4 or 0.5, slab by slab."""
    target, axes = create_image(path, header, version)
    copy_by_slabs(from_czyx(array, axes), target, axes, _CHUNK["Z"])


def create_image(path: Path, header: Header, version: str) -> tuple[Any, str]:
    """Make an OME-Zarr image without voxels; return its array of level 0 and the axes of that, such as CZYX."""
    axes = plain_order(stored_axes(header.axes, header.shape))
    shape = [dict(zip("CZYX", header.shape, strict=True))[letter] for letter in axes]
    chunks = tuple(min(_CHUNK[letter], size) for letter, size in zip(axes, shape, strict=True))
    shared: dict[str, Any] = {"name": "0", "shape": shape, "chunks": chunks, "dtype": header.dtype}
    # A chunk of zeros is a file too, so that one which is not there was lost.
    shared["config"] = {"write_empty_chunks": True}
    # Nested folders, as 0.4 asks for; format 3 nests anyway.
    if version == "0.4":
        group = zarr.open_group(path, mode="w", zarr_format=2)
        target = group.create_array(**shared, chunk_key_encoding={"name": "v2", "separator": "/"})
    else:
        group = zarr.open_group(path, mode="w", zarr_format=3)
        target = group.create_array(**shared, dimension_names=list(axes.lower()), compressors=_PACKING)
    group.attrs.update(_attributes(axes, header, version))
    return target, axes


def _open_root(source: Any) -> zarr.Group:
    node = zarr.open(source, mode="r")
    if isinstance(node, zarr.Group):
        return node
    raise DataError(
        f"is a Zarr array of shape {node.shape} without OME-Zarr metadata, which would name axes and voxel size; "
        "save it as OME-Zarr 0.4 or 0.5"
    )


Found = tuple[str, zarr.Group, dict[str, Any], tuple[Remark, ...]]  # name in the file, group, its metadata, remarks


def _choose_group(root: zarr.Group, pick: Pick) -> Found:
    """Return the group that is meant: the one named, for a mask the only labels beside the image, else the image."""
    if pick.key is not None:
        return _named_group(root, pick.key)
    name, group, metadata = _image_group(root)
    labels = {f"{name}/labels/{one}".strip("/"): one for one in _labels_of(group)}
    if not labels or pick.role == "image":
        return name, group, metadata, ()
    if len(labels) > 1:
        raise DataError(
            f"holds {len(labels)} label images: {', '.join(map(repr, labels))}; name one of them after the file and a "
            "colon (FILE:ARRAY), or for all files by --msk_key ARRAY (in the table: column mask_key)"
        )
    (key,) = labels
    text = f"'{key}' is taken as the mask, not the image beside it"
    return (*_named_group(root, key)[:3], (Remark("note", text),))


def _named_group(root: zarr.Group, key: str) -> Found:
    for name in (key, f"labels/{key}"):
        group = root.get(name)
        if isinstance(group, zarr.Array):  # a level of an image: its first one is the image
            parent, _, level = name.rpartition("/")
            group = root[parent] if parent else root
            if isinstance(group, zarr.Group) and _is_first_level(group, level):
                name = parent
            else:
                raise DataError(f"'{name}' in it is an array; name the image that it belongs to")
        metadata = _metadata(group) if isinstance(group, zarr.Group) else {}
        if isinstance(group, zarr.Group) and metadata.get("multiscales"):
            return name, group, metadata, ()
    there = [name for name in ("", "0") if _metadata_at(root, name)]
    base = root[there[0]] if there and there[0] else root
    found = [f"labels/{one}" for one in (_labels_of(base) if isinstance(base, zarr.Group) else ())]
    raise DataError(f"no image '{key}' in it; it holds {', '.join(map(repr, found)) or 'no labels'}")


def _is_first_level(group: zarr.Group, level: str) -> bool:
    scales = _metadata(group).get("multiscales") or [{"datasets": [{}]}]
    return bool(scales[0]["datasets"][0].get("path") == level)


def _metadata(group: zarr.Group) -> dict[str, Any]:
    attributes = dict(group.attrs)
    metadata = attributes.get("ome", attributes)
    return metadata if isinstance(metadata, dict) else {}


def _metadata_at(root: zarr.Group, name: str) -> dict[str, Any]:
    group = root.get(name) if name else root
    metadata = _metadata(group) if isinstance(group, zarr.Group) else {}
    return metadata if metadata.get("multiscales") else {}


def _labels_of(group: zarr.Group) -> list[str]:
    """Return the names of the label images beside an image."""
    labels = group.get("labels")
    if not isinstance(labels, zarr.Group):
        return []
    listed = _metadata(labels).get("labels")
    names = [str(name) for name in listed] if isinstance(listed, list) else _names(labels.group_keys)
    return [name for name in names if _metadata_at(labels, name)]


def _names(keys: Callable[[], Iterable[str]]) -> list[str]:
    """Return the names of what a group holds, sorted; none where they cannot be listed, as over https://."""
    try:
        return sorted(keys())
    except OSError:
        raise
    except Exception:  # of the store, which knows no listing
        return []


def _image_group(root: zarr.Group) -> tuple[str, zarr.Group, dict[str, Any]]:
    """Return the group that holds the image, and its metadata; a converter may have put it one level down."""
    for name in ("", "0"):
        metadata = _metadata_at(root, name)
        if metadata:
            if name and "1" in root:
                raise DataError("holds several images; name one of them after the file and a colon, such as FILE:0")
            group = root[name] if name else root
            assert isinstance(group, zarr.Group)
            return name, group, metadata
    arrays = ", ".join(f"'{name}'" for name in _names(root.array_keys))
    raise DataError(
        f"is not an OME-Zarr image (no 'multiscales' in it{f', only arrays {arrays}' if arrays else ''}); "
        "save it as OME-Zarr 0.4 or 0.5"
    )


def _transform(multiscale: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and translation of level 0: first those of the data set, then those of the whole image."""
    scale, shift = np.ones(len(multiscale["axes"])), np.zeros(len(multiscale["axes"]))
    for owner in (multiscale["datasets"][0], multiscale):
        for transformation in owner.get("coordinateTransformations") or ():
            if transformation["type"] == "scale":
                factor = np.asarray(transformation["scale"], dtype=float)
                scale, shift = scale * factor, shift * factor
            elif transformation["type"] == "translation":
                shift = shift + np.asarray(transformation["translation"], dtype=float)
    return scale, shift


def _geometry(
    axes: list[dict[str, Any]], scale: np.ndarray, shift: np.ndarray, letters: str
) -> tuple[str, Spacing | None, Spacing | None, tuple[Remark, ...]]:
    """Return the unit of x, voxel size and origin in µm; numbers without a unit are µm, all 1 means not known."""
    spatial = {letter: place for place, letter in enumerate(letters) if letter in "ZYX"}
    units = {letter: axes[place].get("unit") for letter, place in spatial.items()}
    if not any(units.values()) and all(scale[place] == 1 for place in spatial.values()):
        return "µm", None, None, ()
    sizes = {letter: length_in_um(scale[place], units[letter] or "µm") for letter, place in spatial.items()}
    sizes.setdefault("Z", 1.0)
    spacing = spacing_in_um(sizes["Z"], sizes.get("Y"), sizes.get("X"), "µm")
    places = {letter: length_in_um(shift[place], units[letter] or "µm") for letter, place in spatial.items()}
    origin = place_in_um([places.get(letter) for letter in "ZYX"]) if shift.any() else None
    unit = canonical_unit(units.get("X") or "µm") or "µm"
    return unit, spacing, origin, unknown_units(units.values())


def _checking_chunks(
    read: Callable[[int, int], np.ndarray], array: zarr.Array, folder: Path, layout: Layout
) -> Callable[[int, int], np.ndarray]:
    """Return `read`, which first looks whether a chunk was cut off: Blosc unpacks what is there and says nothing."""
    if "blosc" not in str(array.metadata).lower() or "sharding" in str(array.metadata).lower():
        return read
    step = array.chunks[layout.roles.index("Z")] if "Z" in layout.roles else 1

    def read_whole(z0: int, z1: int) -> np.ndarray:
        counts = [range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
        if "Z" in layout.roles:
            counts[layout.roles.index("Z")] = range(z0 // step, -(-z1 // step))
        for place in itertools.product(*counts):
            _refuse_cut_chunk(folder / array.metadata.encode_chunk_key(place))
        return read(z0, z1)

    return read_whole


def _refuse_cut_chunk(path: Path) -> None:
    """Compare the size of a chunk with the one in its Blosc header."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
        size = path.stat().st_size
    except FileNotFoundError:  # allowed, see `_missing_chunks`
        return
    if size < 16 or int.from_bytes(start[12:16], "little") > size:
        raise DataError(f"chunk '{path.name}' is cut off; copy the folder again from its source")


def _missing_chunks(array: Any, folder: Path) -> tuple[Remark, ...]:
    """Say how many chunks of an image are not there: Zarr allows it and reads them as one value.

    Counted in the folder: Zarr's own `nchunks_initialized` takes minutes for ten thousands of chunks.
    """
    sides = array.shards or array.chunks
    wanted = math.prod(-(-size // side) for size, side in zip(array.shape, sides, strict=True))
    there = sum(_count_chunks(files) for _, _, files in os.walk(folder))
    if there >= wanted:
        return ()
    value = np.asarray(array.fill_value if array.fill_value is not None else 0).item()
    text = f"{wanted - there} of {wanted} chunks are not there and count as {value}: is the copy whole?"
    return (Remark("warning", text),)


def _count_chunks(files: list[str]) -> int:
    return sum(not name.startswith(".") and name != "zarr.json" for name in files)


def _attributes(axes: str, header: Header, version: str) -> dict[str, Any]:
    """Return the attributes of the image group, made by the models of the specification."""
    models = _models(version)
    unit = _UNIT_NAMES[header.unit] if header.spacing_um else None
    spacing = spacing_in_unit(header.spacing_um, header.unit) if header.spacing_um else (1.0, 1.0, 1.0)
    sizes = {"C": 1.0, **dict(zip("ZYX", spacing, strict=True))}
    places = dict(zip("ZYX", spacing_in_unit(header.origin_um, header.unit), strict=True)) if header.origin_um else {}
    shift = [places.get(letter, 0.0) for letter in axes] if places and unit else None
    multiscale = models.Multiscale(
        axes=[
            {"name": "c", "type": "channel"}
            if letter == "C"
            else {"name": letter.lower(), "type": "space"} | ({"unit": unit} if unit else {})
            for letter in axes
        ],
        datasets=[models.Dataset.build(path="0", scale=[sizes[letter] for letter in axes], translation=shift)],
        name=header.extra.get("layer_name"),
        **({"version": version} if version == "0.4" else {}),
    )
    content: dict[str, Any] = {"multiscales": [multiscale.model_dump(mode="json", exclude_none=True)]}
    if header.extra.get("is_labels"):
        content["image-label"] = describe_for_zarr(header.extra.get("label_values", ()), version)
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
