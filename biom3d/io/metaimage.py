"""MetaImage .mha (ITK): a text header and voxels in one file; spacing, place and direction are kept."""

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
from biom3d.io.units import spacing_in_um
from biom3d.io.volume import Header, LazyVolume

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NAMES = {code: name for name, code in _TYPES.items()}


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open `path` lazily; lengths are mm, as ITK takes them."""
    lines, start = read_lines(path, lambda line: line.lower().startswith("elementdatafile"))
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    if fields["elementdatafile"].upper() != "LOCAL":
        raise DataError("keeps its voxels in another file; save it as one .mha file")
    count = int(_wanted(fields, "ndims"))
    sizes = [int(size) for size in numbers(_wanted(fields, "dimsize"), count)]
    channels = int(fields.get("elementnumberofchannels", "1"))
    kind = _wanted(fields, "elementtype").upper()
    if kind not in _TYPES or count not in (2, 3) or fields.get("binarydata", "True").lower() == "false":
        raise DataError(f"holds {kind} in {count} dimensions; wanted binary numbers in 2 or 3 dimensions")
    big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "False")).lower() == "true"
    stored = np.dtype(f"{'>' if big else '<'}{_TYPES[kind]}")
    shape = (*reversed(sizes), *([channels] if channels > 1 else []))
    packed = fields.get("compresseddata", "False").lower() == "true"
    voxels = open_voxels(path, start, shape, stored, packed)
    layout = plan_layout(shape, "ZYX"[-count:] + ("C" if channels > 1 else ""))
    spacing, extra = _geometry(fields, count)
    header = Header(layout.shape, native_dtype(stored), layout.axes, spacing, unit="mm", extra=extra)
    return LazyVolume(header, slice_reader(voxels, layout, header.dtype))


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x), compressed, with spacing, place and direction; channels lie beside each other."""
    dtype = np.dtype(np.float32) if header.dtype == np.float16 else header.dtype  # MetaImage has no float16
    axes = plain_order(stored_axes(header.axes, header.shape)).replace("C", "")
    is_many = header.shape[0] > 1
    stored = from_czyx(array, axes + ("C" if is_many else ""))
    count = len(axes)
    directions, origin = lps_geometry(header)
    sizes = np.linalg.norm(directions, axis=0)
    lines = [
        "ObjectType = Image",
        f"NDims = {count}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"TransformMatrix = {_words((directions / sizes)[:count, :count].T.ravel())}",
        f"Offset = {_words(origin[:count])}",
        *([f"ElementSpacing = {_words(sizes[:count])}"] if header.spacing_um else []),
        f"DimSize = {' '.join(map(str, reversed(stored.shape[:count])))}",
        *([f"ElementNumberOfChannels = {header.shape[0]}"] if is_many else []),
        f"ElementType = {_NAMES[dtype.str[1:]]}",
        "ElementDataFile = LOCAL\n",
    ]
    with open(path, "wb") as file:
        parts = list(pack(planes(stored, dtype.newbyteorder("<")), is_gzip=False))
        lines.insert(5, f"CompressedDataSize = {sum(map(len, parts))}")
        file.write("\n".join(lines).encode())
        file.writelines(parts)


def _wanted(fields: dict[str, str], name: str) -> str:
    if name not in fields:
        raise damaged(f"its header has no '{name}'")
    return fields[name]


def _words(values: np.ndarray) -> str:
    return " ".join(f"{value:.17g}" for value in values)


def _geometry(fields: dict[str, str], count: int) -> tuple[tuple[float, float, float] | None, dict[str, object]]:
    """Return the voxel size in µm, and where the volume lies."""
    said = fields.get("elementspacing", fields.get("elementsize"))
    if said is None:
        return None, {}
    sizes = numbers(said, count)
    if count == 2:
        return spacing_in_um(1.0, sizes[1], sizes[0], "mm"), {}
    matrix = fields.get("transformmatrix", fields.get("rotation", fields.get("orientation", "1 0 0 0 1 0 0 0 1")))
    directions = np.reshape(numbers(matrix, 9), (3, 3)).T * sizes
    origin = numbers(fields.get("offset", fields.get("origin", fields.get("position", "0 0 0"))), 3)
    return spacing_of(directions, "mm"), {"affine": affine_from(directions, origin, LPS)}
