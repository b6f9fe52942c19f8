"""TIFF, OME-TIFF and ImageJ TIFF through tifffile; memory-mapped where stored raw, else page by page."""

import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

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
from biom3d.io.choice import Candidate, Pick, choose
from biom3d.io.labels import lookup_table
from biom3d.io.units import (
    UM_PER_UNIT,
    canonical_unit,
    length_in_um,
    place_in_um,
    spacing_in_um,
    spacing_in_unit,
    unknown_units,
)
from biom3d.io.volume import Header, LazyVolume, Remark, Spacing

# What tifffile only logs when it then returns fewer planes, or zeros, or other axes than the file promises.
_DAMAGE = re.compile(
    r"corrupted|invalid page offset|invalid data type|invalid value offset|missing|zeroed|out of range|failed to re"
    r"|suspicious|expected \d+ frames|incorrect Strip|do(es)? not match|OME series raised"
)
_NEEDED_TAGS = {256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 322, 323, 324, 325, 339}
_MUCH = 3  # an image that is this many times as large as any other is the one that is meant
_MOST_PACKED = 50_000  # no compression of TIFF makes data smaller by more
_LARGEST_CLASSIC = 2**32 - 2**25  # bytes; above, TIFF needs 64-bit offsets, which ImageJ's own format lacks
_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_ASCII_UNITS = {"µm": "micron", "Å": "angstrom"}  # the others are ASCII


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open the image of `path` that is meant, see `choice`; damage that tifffile only logs is an error here."""
    with _logged_damage_is_error():
        file, renamed = _open_file(path)
        try:
            return _open(file, pick, renamed)
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


def _open_file(path: Path) -> tuple[tifffile.TiffFile, tuple[Remark, ...]]:
    """Open a TIFF file; an OME-TIFF that got another name is read without the old one, which its XML still has."""
    file = tifffile.TiffFile(path)
    try:
        description = _safe_description(file)
        old = re.findall(r"<(?:\w+:)?UUID[^>]*FileName=\"([^\"]*)\"", description) if file.is_ome else []
        has_root = re.search(r"<(\w+:)?OME[^>]*\sUUID=", description)
        if not old or has_root or unescape(old[0]).lower() == path.name.lower():
            return file, ()
    except BaseException:
        file.close()
        raise
    file.close()
    own = re.sub(r"<(?:\w+:)?UUID[^>]*>[^<]*</(?:\w+:)?UUID>", "", description)
    remark = Remark("note", f"was called '{unescape(old[0])}' when it was written; its own planes are read")
    return tifffile.TiffFile(path, omexml=own), (remark,)


def _open(file: tifffile.TiffFile, pick: Pick, remarks: tuple[Remark, ...]) -> LazyVolume:
    number, series, more = _choose_series(file, pick)
    layout = plan_layout(series.shape, series.axes)
    dtype = native_dtype(series.dtype)
    _check_whole(file, series)
    facts = _metadata(file, number, layout)
    header = Header(
        layout.shape,
        dtype,
        layout.axes,
        facts.spacing_um,
        facts.names if len(facts.names) == layout.shape[0] else (),
        facts.unit,
        facts.extra,
        facts.origin_um,
        str(number) if len(file.series) > 1 else "",
        (*remarks, *more, *facts.remarks),
    )
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


def _safe_description(file: tifffile.TiffFile) -> str:
    """Refuse entities before any parser sees them, and OME-TIFF with planes or metadata in other files."""
    description = file.pages.first.description
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", description, re.IGNORECASE):
        raise DataError("its XML description defines entities (DOCTYPE), which no microscope writes; refused")
    if file.is_ome:
        others = len(set(re.findall(r"<(?:\w+:)?UUID[^>]*>\s*([^<\s]+)", description))) > 1
        if others or re.search(r"<(\w+:)?BinaryOnly", description):
            raise DataError("is one part of a multi-file OME-TIFF; save the whole image as one file")
    return description


def _choose_series(file: tifffile.TiffFile, pick: Pick) -> tuple[int, tifffile.TiffPageSeries, tuple[Remark, ...]]:
    """Return the image that is meant, its number, and what was left out; single planes of one size are a stack."""
    series = file.series
    if not series:
        raise _damaged("no image in it")
    if pick.key is None and _are_slices(file):
        return 0, *_stack(series)
    found = [_candidate(number, one) for number, one in enumerate(series)]
    if pick.key is not None or len(found) == 1:
        chosen, remarks = choose(found, pick) if len(found) > 1 or pick.key != "0" else (found[0], ())
        return int(chosen.key), series[int(chosen.key)], remarks
    order = sorted(found, key=lambda one: one.size, reverse=True)
    if order[1].size * _MUCH > order[0].size:
        chosen, remarks = choose(found, pick, "images")
        return int(chosen.key), series[int(chosen.key)], remarks
    left = [one for one in order[1:] if not _is_preview(series[int(one.key)], series[int(order[0].key)])]
    remarks = ()
    if left:
        text = f"{', '.join(one.text for one in left)} in the same file is left out; FILE:{left[0].key} is that image"
        remarks = (Remark("warning", text),)
    return int(order[0].key), series[int(order[0].key)], remarks


def _candidate(number: int, series: tifffile.TiffPageSeries) -> Candidate:
    shape = tuple(size for size in series.shape if size != 1)
    title = series.name if series.name and series.kind == "ome" else ""
    return Candidate(str(number), shape, series.dtype, title)


def _is_preview(one: tifffile.TiffPageSeries, image: tifffile.TiffPageSeries) -> bool:
    """Tell a picture of the label or of the whole slide from a field of view: it is in colours, or flat and smaller."""
    pixels, whole = (page.imagewidth * page.imagelength for page in (one.keyframe, image.keyframe))
    return "S" in one.axes or (one.ndim == 2 and image.ndim > 2 and pixels < whole)


def _are_slices(file: tifffile.TiffFile) -> bool:
    """Tell a stack that was written page by page, which tifffile takes for many images; Fiji shows a stack."""
    kinds = {(one.shape, one.dtype, one.kind in ("shaped", "generic", "uniform")) for one in file.series}
    shape, _, is_plain = next(iter(kinds))
    return len(file.series) > 1 and len(kinds) == 1 and is_plain and len(shape) == 2


def _stack(series: list[tifffile.TiffPageSeries]) -> tuple[tifffile.TiffPageSeries, tuple[Remark, ...]]:
    first = series[0]
    pages = [one.pages[0] for one in series]
    stack = tifffile.TiffPageSeries(
        pages, (len(pages), *first.shape), first.dtype, "ZYX", kind="shaped", parent=first.keyframe.parent
    )
    text = f"{len(pages)} single pictures of one size, written one by one, are read as one stack, z in that order"
    return stack, (Remark("note", text),)


def _check_whole(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Raise a `DataError` unless every plane is there and lies within the file."""
    size = file.filehandle.size
    _check_count(file, series)
    if series.dataoffset is not None:
        end = series.dataoffset + series.size * series.dtype.itemsize
        if end > size:
            raise _damaged(f"{end} bytes wanted, {size} found")
        return
    bits = min(series.keyframe.bitspersample, 8 * series.dtype.itemsize)
    part = int(np.prod(series.keyframe.chunks, dtype=np.float64)) * series.dtype.itemsize
    planes = max(len(series.pages), series.size // max(1, series.keyframe.size))  # of a cut file not all are found
    for number, page in enumerate(series.pages, start=1):
        if page is None:
            raise _damaged(f"plane {number} of {planes} is missing")
        if len(page.dataoffsets) < int(np.prod(page.chunked)):
            raise _damaged(f"plane {number} of {planes} lacks some of its parts")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > size:
                raise _damaged(f"plane {number} of {planes} ends after the end of the file")
            if count == 0:
                raise _damaged(f"plane {number} of {planes} has a part without data")
        if series.keyframe.compression == 1 and sum(page.databytecounts) * 8 < series.keyframe.size * bits:
            raise _damaged(f"plane {number} of {planes} has less data than pixels")
        if part > _MOST_PACKED * max(page.databytecounts):
            raise _damaged(f"plane {number} of {planes} has parts of {part} bytes, packed in almost none")


def _check_count(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Compare the planes with what ImageJ or tifffile wrote of them into the first page; pages may have been lost."""
    text = file.pages.first.description or ""
    said = re.search(r"(?:^|[\n|])images=(\d+)", text)
    if said and file.is_imagej and math.prod(series.shape[:-2]) < int(said[1]):
        raise _damaged(f"{said[1]} planes announced, {math.prod(series.shape[:-2])} found")
    shape = re.match(r'\{"shape": \[([\d, ]+)\]', text)
    if shape and len(file.series) == 1 and math.prod(map(int, shape[1].split(","))) > math.prod(series.shape):
        raise _damaged(f"a shape of [{shape[1]}] announced, {list(series.shape)} found")


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


@dataclass(frozen=True)
class Facts:
    """What the description of an image says."""

    unit: str = "µm"
    spacing_um: Spacing | None = None
    names: tuple[str, ...] = ()
    origin_um: Spacing | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()


def _metadata(file: tifffile.TiffFile, number: int, layout: Layout) -> Facts:
    """Return what the file says of image `number`."""
    depth = 1.0 if "Z" not in layout.axes else None  # a 2D image has no z size to miss
    kind = file.series[number].kind
    if kind == "ome":
        return _ome_metadata(file.ome_metadata or "", number, depth)
    if kind == "imagej":
        return _imagej_metadata(file, layout)
    if kind == "shaped" and file.shaped_metadata:
        return _json_metadata(file, file.shaped_metadata[number], depth)
    return Facts()  # the resolution tag alone is not a voxel size: 72 dpi, and never z


def _ome_metadata(xml: str, number: int, depth: float | None) -> Facts:
    tree = ElementTree.fromstring(xml)  # noqa: S314 - entities were refused before anything parsed it
    images = [node for node in tree if _tag(node) == "Image"]
    pixels = next(node for node in images[number] if _tag(node) == "Pixels")
    names = tuple(node.get("Name", "") for node in pixels if _tag(node) == "Channel")
    said = {axis: size for axis in "ZYX" if (size := pixels.get(f"PhysicalSize{axis}"))}
    units = {axis: pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"}
    z, y, x = (length_in_um(said.get(axis), units[axis]) for axis in "ZYX")
    place = _ome_position(pixels)
    places = [length_in_um(place.get(f"Position{axis}"), place.get(f"Position{axis}Unit")) for axis in "ZYX"]
    return Facts(
        canonical_unit(units["X"]) or "µm",
        spacing_in_um(z or depth, y, x, "µm"),
        names if all(names) else (),
        place_in_um(places),
        {"ome_position": place} if place else {},
        unknown_units(units[axis] for axis in said),
    )


def _ome_position(pixels: ElementTree.Element) -> dict[str, str]:
    """Return the stage position of the first plane as the file has it."""
    planes = [node for node in pixels if _tag(node) == "Plane"]
    first = next((p for p in planes if all(p.get(f"The{axis}", "0") == "0" for axis in "ZCT")), None)
    return {} if first is None else {key: value for key, value in first.items() if key.startswith("Position")}


def _imagej_metadata(file: tifffile.TiffFile, layout: Layout) -> Facts:
    metadata: dict[str, Any] = file.imagej_metadata or {}
    names = [_unescaped(metadata.get(key, metadata.get("unit", ""))) for key in ("zunit", "yunit", "unit")]
    y, x = _pixel_size(file)
    # ImageJ leaves `spacing` out when it is 1 (FileSaver.getDescriptionString), and reads it so.
    z, y, x = (length_in_um(one, name) for one, name in zip((metadata.get("spacing", 1.0), y, x), names, strict=True))
    spacing = spacing_in_um(z, y, x, "µm")
    places = [metadata.get(f"{axis}origin") for axis in "zyx"]  # where zero is, in pixels; left out where that is 0
    origin = None
    if spacing and any(place is not None for place in places):
        origin = place_in_um([-float(place or 0) * size for place, size in zip(places, spacing, strict=True)])
    labels = [str(label) for label in metadata.get("Labels", ())]
    channels = layout.shape[0]
    named = channels > 1 and labels == labels[:channels] * layout.shape[1]
    unit = canonical_unit(names[2]) or "µm"
    return Facts(unit, spacing, tuple(labels[:channels]) if named else (), origin, {}, unknown_units(names))


def _unescaped(text: Any) -> str:
    """Return the text with ImageJ's escapes (backslash, u, four digits) read; letters stay as they are."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), str(text))


def _json_metadata(file: tifffile.TiffFile, metadata: dict[str, Any], depth: float | None) -> Facts:
    said = str(metadata.get("unit", ""))
    unit = canonical_unit(said)
    y, x = _pixel_size(file)
    if file.pages.first.resolutionunit == 3 and unit:  # centimetres; inches are only tifffile's default
        y, x = (size * 1e4 / UM_PER_UNIT[unit] if size else None for size in (y, x))
    spacing = spacing_in_um(metadata.get("spacing", depth), y, x, unit)
    names = metadata.get("channel_names", ())
    origin = metadata.get("origin_um")
    return Facts(
        unit or "µm",
        spacing,
        tuple(map(str, names)) if isinstance(names, list) else (),
        place_in_um(origin) if isinstance(origin, list) else None,
        {},
        unknown_units([said]),
    )


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
        return axes, _ome_description(header, names) | _ome_planes(header, axes), {"ome": True, "bigtiff": big}
    labels = {"Labels": list(names) * header.shape[1]} if header.shape[0] > 1 and names else {}
    options: dict[str, Any] = {"imagej": True} if flavour == "imagej" else {"bigtiff": big}
    metadata: dict[str, Any] = labels if flavour == "imagej" else {"channel_names": list(names)}
    if flavour == "imagej" and header.extra.get("is_labels"):  # else Fiji shows classes 1 and 2 of 255 as black
        highest = max(header.extra.get("label_values", ()), default=1)
        metadata |= {"min": 0.0, "max": float(highest), "LUTs": [lookup_table()]}
    if header.spacing_um:
        z, y, x = spacing_in_unit(header.spacing_um, header.unit)
        metadata |= {"spacing": z, "unit": _ASCII_UNITS.get(header.unit, header.unit)}
        options |= {"resolution": (1 / x, 1 / y), "resolutionunit": "NONE"}
    if header.origin_um and flavour == "plain":
        metadata["origin_um"] = list(header.origin_um)
    elif header.origin_um and header.spacing_um:
        pairs = zip("zyx", header.origin_um, header.spacing_um, strict=True)
        metadata |= {f"{axis}origin": round(-place / size, 6) for axis, place, size in pairs}
    return axes, metadata, options


def _ome_description(header: Header, names: tuple[str, ...]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"Channel": {"Name": list(names)}} if names else {}
    if header.spacing_um:
        unit = "in" if header.unit == "inch" else header.unit
        sizes = spacing_in_unit(header.spacing_um, header.unit)
        for axis, size in zip("ZYX", sizes, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    return metadata


def _ome_planes(header: Header, axes: str) -> dict[str, Any]:
    """Return where each plane lies, in the words of the image's own file where that was OME-TIFF."""
    place = dict(header.extra.get("ome_position", {}))
    if not place and header.origin_um:
        for axis, um in zip("ZYX", header.origin_um, strict=True):
            place |= {f"Position{axis}": um, f"Position{axis}Unit": "µm"}
    if not place:
        return {}
    order = [letter for letter in axes if letter in "CZ"]
    counts = [dict(zip("CZ", header.shape, strict=False))[letter] for letter in order]
    depths = [dict(zip(order, index, strict=True)).get("Z", 0) for index in np.ndindex(*counts)]
    planes: dict[str, list[Any]] = {key: [value] * len(depths) for key, value in place.items()}
    step = header.spacing_um[0] if header.spacing_um else None
    per_unit = UM_PER_UNIT.get(canonical_unit(place.get("PositionZUnit")) or "")
    if "PositionZ" in place and step and per_unit:
        planes["PositionZ"] = [float(place["PositionZ"]) + depth * step / per_unit for depth in depths]
    return {"Plane": planes}
