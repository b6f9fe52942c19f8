"""TIFF, OME-TIFF and ImageJ TIFF through tifffile; memory-mapped where stored raw, else page by page."""

import itertools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from biom3d.errors import DataError
from biom3d.io.axes import (
    Layout,
    from_czyx,
    native_dtype,
    plain_order,
    plan_layout,
    planes,
    slice_reader,
    stored_axes,
)
from biom3d.io.units import UM_PER_UNIT, canonical_unit, spacing_in_um, spacing_in_unit
from biom3d.io.volume import Header, LazyVolume, Spacing

# What tifffile only logs when it then returns fewer planes, or zeros, or other axes than the file promises.
_DAMAGE = re.compile(
    r"corrupted|invalid page offset|invalid value offset|missing|zeroed|out of range|failed to re|suspicious"
    r"|expected \d+ frames|incorrect Strip|do(es)? not match|OME series raised"
)
_NEEDED_TAGS = {256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 322, 323, 324, 325, 339}
_LARGEST_CLASSIC = 2**32 - 2**25  # bytes; above, TIFF needs 64-bit offsets, which ImageJ's own format lacks
_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_ASCII_UNITS = {"µm": "micron", "Å": "angstrom"}  # the others are ASCII


def open_volume(path: Path) -> LazyVolume:
    """Open `path` lazily; damage that tifffile only logs is an error here."""
    with _logged_damage_is_error():
        file = tifffile.TiffFile(path)
        try:
            return _open(file)
        except BaseException:
            file.close()
            raise


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) plane by plane; integers are compressed with zlib, floats are not.

    `.ome.tif` is OME-TIFF. `.tif` is ImageJ's TIFF where that can hold the type and size (8 and 16 bit
    unsigned, float32, < 4 GB), else OME-XML where that can (other integers up to 32 bit, float64), else plain
    TIFF with a JSON description.
    """
    axes, metadata, options = _describe(_flavour(path, header), header)
    stored = from_czyx(array, axes)
    tifffile.imwrite(
        path,
        planes(stored, header.dtype),
        shape=stored.shape,
        dtype=header.dtype,
        photometric="minisblack",
        compression="zlib" if header.dtype.kind in "iu" else None,
        metadata={"axes": axes, **metadata},
        **options,
    )


# Reading


def _open(file: tifffile.TiffFile) -> LazyVolume:
    _refuse_dangerous_xml(file)
    number, series = _choose_series(file)
    layout = plan_layout(series.shape, series.axes)
    dtype = native_dtype(series.dtype)
    _check_whole(file, series)
    unit, spacing, names = _metadata(file, number, layout)
    header = Header(layout.shape, dtype, layout.axes, spacing, names if len(names) == layout.shape[0] else (), unit)
    if series.dataoffset is not None:
        stored = series.dtype.newbyteorder(file.byteorder)
        source = np.memmap(file.filehandle.path, stored, "r", series.dataoffset, series.shape)
        file.close()
        return LazyVolume(header, slice_reader(source, layout, dtype))
    return LazyVolume(header, _page_reader(series, layout, dtype), file.close)


@contextmanager
def _logged_damage_is_error() -> Iterator[None]:
    """Raise a `DataError` for a message of tifffile that means damage; keep all others off the screen."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    for message in messages:
        tag = re.search(r"TiffTag (\d+)", message)
        if _DAMAGE.search(message) and (tag is None or int(tag[1]) in _NEEDED_TAGS):
            raise _damaged(re.sub(r"<.*?> ", "", message)[:150])


def _damaged(reason: str) -> DataError:
    return DataError(f"the file is damaged or cut off ({reason}); copy it again from its source")


def _refuse_dangerous_xml(file: tifffile.TiffFile) -> None:
    """Refuse entities before any parser sees them, and OME-TIFF with planes or metadata in other files."""
    description = file.pages.first.description
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", description, re.IGNORECASE):
        raise DataError("its XML description defines entities (DOCTYPE), which no microscope writes; refused")
    if file.is_ome:
        others = len(set(re.findall(r"<(?:\w+:)?UUID[^>]*>\s*([^<\s]+)", description))) > 1
        if others or re.search(r"<(\w+:)?BinaryOnly", description):
            raise DataError("is one part of a multi-file OME-TIFF; save the whole image as one file")


def _choose_series(file: tifffile.TiffFile) -> tuple[int, tifffile.TiffPageSeries]:
    """Return the only image and its number, or the one beside which the others are mere thumbnails."""
    series = sorted(enumerate(file.series), key=lambda pair: pair[1].size, reverse=True)
    if not series:
        raise _damaged("no image in it")
    if len(series) > 1 and series[1][1].size * 3 > series[0][1].size:
        shapes = ", ".join(str(one.shape) for one in file.series[:5])
        raise DataError(f"holds {len(series)} images (shapes {shapes}); wanted one; save each as a file")
    return series[0]


def _check_whole(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Raise a `DataError` unless every plane is there and lies within the file."""
    size = file.filehandle.size
    if series.dataoffset is not None:
        end = series.dataoffset + series.size * series.dtype.itemsize
        if end > size:
            raise _damaged(f"{end} bytes wanted, {size} found")
        return
    for number, page in enumerate(series.pages):
        if page is None:
            raise _damaged(f"plane {number} of {len(series.pages)} is missing")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > size:
                raise _damaged(f"plane {number} of {len(series.pages)} ends after the end of the file")
            if count == 0:
                raise _damaged(f"plane {number} of {len(series.pages)} has a part without data")


def _page_reader(series: tifffile.TiffPageSeries, layout: Layout, dtype: np.dtype) -> Callable[[int, int], np.ndarray]:
    """Return `read(z0, z1)` that decodes only the pages asked for."""
    first = series.ndim - series.keyframe.ndim
    outer = series.shape[:first]
    if "Z" not in layout.roles[:first] or int(np.prod(outer)) != len(series.pages):
        # The planes share one page: a colour picture, one plane, or a volumetric TIFF.
        return lambda z0, z1: slice_reader(_decoded(series), layout, dtype)(z0, z1)
    depth = layout.roles.index("Z")
    inner = series.shape[first:]

    def read(z0: int, z1: int) -> np.ndarray:
        shape = (*outer[:depth], z1 - z0, *outer[depth + 1 :])
        block = np.empty((*shape, *inner), dtype)
        with _logged_damage_is_error():
            for place in itertools.product(*map(range, shape)):
                stored = (*place[:depth], place[depth] + z0, *place[depth + 1 :])
                page = series.pages[int(np.ravel_multi_index(stored, outer))]
                block[place] = page.asarray().reshape(inner)  # type: ignore[union-attr]
        dropped = tuple(0 if role == "-" else slice(None) for role in layout.roles)
        return np.ascontiguousarray(layout.to_czyx(block[dropped]))

    return read


def _decoded(series: tifffile.TiffPageSeries) -> np.ndarray:
    with _logged_damage_is_error():
        return series.asarray()


# Metadata

Metadata = tuple[str, Spacing | None, tuple[str, ...]]  # unit, voxel size in µm, channel names


def _metadata(file: tifffile.TiffFile, number: int, layout: Layout) -> Metadata:
    """Return unit, spacing and channel names of image `number` of the file."""
    depth = 1.0 if "Z" not in layout.axes else None  # a 2D image has no z size to miss
    kind = file.series[number].kind
    if kind == "ome":
        return _ome_metadata(file.ome_metadata or "", number, depth)
    if kind == "imagej":
        return _imagej_metadata(file, layout)
    if kind == "shaped" and file.shaped_metadata:
        return _json_metadata(file, file.shaped_metadata[number], depth)
    return "µm", None, ()  # the resolution tag alone is not a voxel size: 72 dpi, and never z


def _ome_metadata(xml: str, number: int, depth: float | None) -> Metadata:
    tree = ElementTree.fromstring(xml)  # noqa: S314 - entities were refused before anything parsed it
    images = [node for node in tree if _tag(node) == "Image"]
    pixels = next(node for node in images[number] if _tag(node) == "Pixels")
    names = tuple(node.get("Name", "") for node in pixels if _tag(node) == "Channel")
    sizes = {}
    for axis in "ZYX":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        um = spacing_in_um(float(size), 1, 1, unit) if size else None
        sizes[axis] = um[0] if um else (depth if axis == "Z" else None)
    unit = canonical_unit(pixels.get("PhysicalSizeXUnit", "µm")) or "µm"
    spacing = spacing_in_um(sizes["Z"], sizes["Y"], sizes["X"], "µm")
    return unit, spacing, names if all(names) else ()


def _imagej_metadata(file: tifffile.TiffFile, layout: Layout) -> Metadata:
    metadata: dict[str, Any] = file.imagej_metadata or {}
    unit = canonical_unit(str(metadata.get("unit", "")).encode().decode("unicode_escape", "replace"))
    y, x = _pixel_size(file)
    # ImageJ leaves `spacing` out when it is 1 (FileSaver.getDescriptionString), and reads it so.
    spacing = spacing_in_um(metadata.get("spacing", 1.0), y, x, unit)
    labels = [str(label) for label in metadata.get("Labels", ())]
    channels = layout.shape[0]
    named = channels > 1 and labels == labels[:channels] * layout.shape[1]
    return unit or "µm", spacing, tuple(labels[:channels]) if named else ()


def _json_metadata(file: tifffile.TiffFile, metadata: dict[str, Any], depth: float | None) -> Metadata:
    unit = canonical_unit(str(metadata.get("unit", "")))
    y, x = _pixel_size(file)
    if file.pages.first.resolutionunit == 3 and unit:  # centimetres; inches are only tifffile's default
        y, x = (size * 1e4 / UM_PER_UNIT[unit] if size else None for size in (y, x))
    spacing = spacing_in_um(metadata.get("spacing", depth), y, x, unit)
    names = metadata.get("channel_names", ())
    return unit or "µm", spacing, tuple(map(str, names)) if isinstance(names, list) else ()


def _pixel_size(file: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Return the size of a pixel (y, x) in the unit of the description: one over the resolution tags."""
    sizes: list[float | None] = []
    for code in (283, 282):
        value = file.pages.first.tags.valueof(code)
        sizes.append(value[1] / value[0] if value and value[0] else None)
    return sizes[0], sizes[1]


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


# Writing


def _flavour(path: Path, header: Header) -> str:
    nbytes = int(np.prod(header.shape)) * header.dtype.itemsize
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        if header.dtype.name not in _OME_TYPES:
            raise DataError(f"OME-TIFF cannot hold {header.dtype}; write .tif, or convert to {', '.join(_OME_TYPES)}")
        return "ome"
    if header.dtype.name in _IMAGEJ_TYPES and nbytes < _LARGEST_CLASSIC:
        return "imagej"
    return "ome" if header.dtype.name in _OME_TYPES else "plain"


def _describe(flavour: str, header: Header) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the axes to write, the metadata, and the options of the flavour."""
    axes = stored_axes(header.axes, header.shape)
    if flavour == "imagej":
        axes = "".join(letter for letter in "ZCYX" if letter in axes)  # the order ImageJ asks for
    elif not axes.endswith("YX"):
        axes = plain_order(axes)  # pages are planes
    names = header.channel_names if len(header.channel_names) == header.shape[0] else ()
    big = int(np.prod(header.shape)) * header.dtype.itemsize >= _LARGEST_CLASSIC
    if flavour == "ome":
        return axes, _ome_description(header, names), {"ome": True, "bigtiff": big}
    labels = {"Labels": list(names) * header.shape[1]} if header.shape[0] > 1 and names else {}
    options: dict[str, Any] = {"imagej": True} if flavour == "imagej" else {"bigtiff": big}
    metadata: dict[str, Any] = labels if flavour == "imagej" else {"channel_names": list(names)}
    if header.spacing_um:
        z, y, x = spacing_in_unit(header.spacing_um, header.unit)
        metadata |= {"spacing": z, "unit": _ASCII_UNITS.get(header.unit, header.unit)}
        options |= {"resolution": (1 / x, 1 / y), "resolutionunit": "NONE"}
    return axes, metadata, options


def _ome_description(header: Header, names: tuple[str, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"Channel": {"Name": list(names)}} if names else {}
    if header.spacing_um:
        unit = "in" if header.unit == "inch" else header.unit
        sizes = spacing_in_unit(header.spacing_um, header.unit)
        for axis, size in zip("ZYX", sizes, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    return metadata
