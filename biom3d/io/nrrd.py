"""NRRD .nrrd: a text header and voxels in one file, raw or gzip; spacing, place and direction are kept."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from biom3d.errors import DataError
from biom3d.io.attached import (
    LPS,
    affine_from,
    damaged,
    lps_geometry,
    numbers,
    open_voxels,
    pack,
    read_lines,
    spacing_of,
)
from biom3d.io.axes import (
    from_czyx,
    native_dtype,
    plain_order,
    plan_layout,
    planes,
    slice_reader,
    stored_axes,
)
from biom3d.io.choice import Pick
from biom3d.io.units import canonical_unit, spacing_in_um, unknown_units
from biom3d.io.volume import Header, LazyVolume

_TYPES = {  # all names that the format has for them
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}
_PACKED = {"raw": False, "gzip": True, "gz": True}
_CHANNELS = ("list", "vector", "rgb-color", "rgba-color", "hsv-color", "point", "complex", "2-vector", "3-vector")


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open `path` lazily; an axis that is no place in space (kinds, space directions) is the channel."""
    lines, start = read_lines(path, lambda line: line == "")
    if not lines[0].startswith("NRRD"):
        raise DataError("is not a NRRD file")
    fields = _fields(lines[1:])
    if "data file" in fields or "datafile" in fields:
        raise DataError("keeps its voxels in another file; save it as one .nrrd file")
    sizes = [int(size) for size in numbers(_wanted(fields, "sizes"), int(_wanted(fields, "dimension")))]
    code, encoding = _wanted(fields, "type").lower(), _wanted(fields, "encoding").lower()
    if code not in _CODES or encoding not in _PACKED:
        raise DataError(f"holds {code} in encoding {encoding}; wanted numbers, raw or gzip")
    order = ">" if fields.get("endian", "").lower() == "big" else "<"
    start += int(fields.get("byte skip", fields.get("byteskip", "0")))
    stored = np.dtype(f"{order}{_CODES[code]}")
    voxels = open_voxels(path, start, tuple(reversed(sizes)), stored, _PACKED[encoding])
    layout = plan_layout(voxels.shape, _axes(fields, len(sizes)))
    header = _geometry(fields, Header(layout.shape, native_dtype(stored), layout.axes, unit="mm"))
    return LazyVolume(header, slice_reader(voxels, layout, header.dtype))


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x), compressed by gzip, with spacing, place and direction."""
    dtype = np.dtype(np.float32) if header.dtype == np.float16 else header.dtype  # NRRD has no float16
    axes = plain_order(stored_axes(header.axes, header.shape))
    stored = from_czyx(array, axes)
    lines = [
        "NRRD0004",
        f"type: {_TYPES[dtype.str[1:]][-1]}",
        f"dimension: {len(axes)}",
        f"sizes: {' '.join(map(str, reversed(stored.shape)))}",
        "encoding: gzip",
        "endian: little",
    ]
    kinds = ["list" if letter == "C" else "domain" for letter in reversed(axes)]
    lines.append(f"kinds: {' '.join(kinds)}")
    if header.spacing_um and "Z" in axes:
        directions, origin = lps_geometry(header)
        vectors = [_vector(directions[:, place]) for place in range(3)] + ["none"] * axes.count("C")
        lines += ["space: left-posterior-superior", f"space directions: {' '.join(vectors)}"]
        lines += ['space units: "mm" "mm" "mm"', f"space origin: {_vector(origin)}"]
    elif header.spacing_um:
        sizes = [f"{size / 1000:.17g}" for size in (header.spacing_um[2], header.spacing_um[1])]
        lines.append(f"spacings: {' '.join(sizes + ['nan'] * axes.count('C'))}")
    with open(path, "wb") as file:
        file.write("\n".join([*lines, "", ""]).encode())
        for part in pack(planes(stored, dtype.newbyteorder("<")), is_gzip=True):
            file.write(part)


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#") and ":=" not in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _wanted(fields: dict[str, str], name: str) -> str:
    if name not in fields:
        raise damaged(f"its header has no '{name}'")
    return fields[name]


def _axes(fields: dict[str, str], count: int) -> str:
    """Return the letters of the stored axes, slowest first."""
    kinds = fields.get("kinds", "").lower().split()
    vectors = _vectors(fields.get("space directions", ""))
    channels = [
        place
        for place in range(count)
        if (len(kinds) == count and kinds[place] in _CHANNELS) or (len(vectors) == count and vectors[place] is None)
    ]
    space = count - len(channels)
    if len(channels) > 1 or space not in (2, 3):
        return "Q" * max(count - 3, 0) + "ZYX"[-count:]
    letters = iter("XYZ")
    return "".join("C" if place in channels else next(letters) for place in range(count))[::-1]


def _vectors(text: str) -> list[list[float] | None]:
    words = re.findall(r"\([^)]*\)|none", text)
    return [None if word == "none" else numbers(word.strip("()").replace(",", " ")) for word in words]


def _vector(values: np.ndarray) -> str:
    return f"({','.join(f'{value:.17g}' for value in values)})"


def _geometry(fields: dict[str, str], header: Header) -> Header:
    """Return the header with unit, spacing, and where the volume lies; without a unit it is mm, as ITK takes it."""
    vectors = [one for one in _vectors(fields.get("space directions", "")) if one is not None]
    words = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))
    unit = next((canonical_unit(word) for word in words if canonical_unit(word)), None) or "mm"
    header = replace(header, unit=unit, remarks=unknown_units(words))
    if len(vectors) == 3 and all(len(one) == 3 for one in vectors):
        directions = np.array(vectors).T
        origin = numbers(fields.get("space origin", "(0,0,0)").strip("()").replace(",", " "), 3)
        affine = affine_from(directions, origin, _to_ras(fields.get("space", "")))
        extra = {"affine": affine} if fields.get("space") else {}
        return replace(header, spacing_um=spacing_of(directions, unit), extra=extra)
    sizes = [float(word) for word in fields.get("spacings", "").split() if word.lower() != "nan"]
    if len(vectors) == 2:
        sizes = [round(math.hypot(*one), 9) for one in vectors]
    if len(sizes) == 2 and header.is_2d:
        return replace(header, spacing_um=spacing_in_um(1.0, sizes[1], sizes[0], unit))
    if len(sizes) == 3:
        return replace(header, spacing_um=spacing_in_um(sizes[2], sizes[1], sizes[0], unit))
    return header


def _to_ras(space: str) -> np.ndarray:
    """Return the map from a named space to right, anterior, superior."""
    words = {"ras": "right-anterior-superior", "lps": "left-posterior-superior", "las": "left-anterior-superior"}
    names = words.get(space.lower(), space.lower()).split("-")
    signs = {"left": -1.0, "posterior": -1.0, "inferior": -1.0}
    return np.diag([signs.get(name, 1.0) for name in names[:3]]) if len(names) >= 3 else LPS
