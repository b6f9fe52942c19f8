"""Which format a path has, and the public functions over all formats; errors are translated here, once."""

import importlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from biom3d.errors import Biom3dError, DataError, OutputError
from biom3d.files import atomic_path
from biom3d.io.axes import native_dtype
from biom3d.io.choice import Pick, Role, split_key, url_of, with_key
from biom3d.io.dicom_files import is_series, is_volume_file, kind_of
from biom3d.io.labels import values_of
from biom3d.io.mapped import forget_pages, is_small, new_array, slabs
from biom3d.io.volume import Header, LazyVolume, Volume

# Suffix -> module of this folder; a suffix that ends another comes after it.
_MODULES = {
    ".ome.tiff": "tiff",
    ".ome.tif": "tiff",
    ".tiff": "tiff",
    ".tif": "tiff",
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".nrrd": "nrrd",
    ".mha": "metaimage",
    ".npy": "numpy_file",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
    ".ome.zarr": "ome_zarr",
    ".zarr": "ome_zarr",
    ".dcm": "dicom",
}
SUFFIXES = tuple(_MODULES)
_HOLDS_MANY = ("tiff", "hdf5", "ome_zarr", "dicom")
# Files that nobody takes for an image; any other that is passed over is told.
_ZARR = (".ome.zarr", ".zarr")
_NO_IMAGES = (
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".xlsx", ".xls", ".ods", ".json", ".jsonl", ".yaml", ".yml", ".toml"),
    *(".xml", ".html", ".pdf", ".log", ".db", ".ini", ".py", ".sh", ".ijm", ".roi", ".sha256", ".md5"),
)
_MANY_CHANNELS = 4  # that many colours and dyes are usual in one plane; more may be slices
_SHOWN = 5  # names in a message
_NAMES = {
    "tiff": "TIFF",
    "nifti": "NIfTI",
    "nrrd": "NRRD",
    "metaimage": "MetaImage",
    "numpy_file": "NumPy .npy",
    "hdf5": "HDF5",
    "ome_zarr": "OME-Zarr",
    "dicom": "DICOM",
}
_MAGIC = {  # first bytes -> what such a file is, to say what a wrongly named file holds
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"II+\0": "a TIFF file",
    b"MM\0+": "a TIFF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy file",
    b"%PDF": "a PDF document",
    b"\\\x01\0\0": "a NIfTI file",
    b"NRRD": "a NRRD file",
    b"ObjectTy": "a MetaImage file",
}


class Format(Protocol):
    """What the module of a format offers."""

    def open_volume(self, path: Path, pick: Pick) -> LazyVolume:
        """Open the array of `path` that is meant lazily; may raise anything, which is translated here."""

    def write_volume(self, path: Path, array: np.ndarray, header: Header) -> None:
        """Write an array (c, z, y, x) of `header.shape`, maybe a memory map, as `header.dtype`."""


def open_volume(path: Path | str, role: Role = "image", like: Header | None = None) -> LazyVolume:
    """Open a volume without reading its voxels; use as a context manager.

    `path` may name an array in the file, `file.h5:/volumes/raw`; else `role` tells which one can be meant. `like` is
    the image of a mask: DICOM-SEG leaves empty slices out, and has as many as the image then.
    `read(z0, z1)` returns the planes as a new array (c, z1 - z0, y, x).

    Raises:
        DataError: the file is missing, unreadable, damaged, of an unknown format, its axes are unknowable, or it
            holds several arrays and none is clearly the one.
    """
    path = Path(path)
    file, key = split_key(path)
    module = _format_of(file)
    if key is not None and module not in _HOLDS_MANY:
        raise DataError(f"'{path}': a {_NAMES[module]} file holds one array; leave ':{key}' out")
    with _reading(file, module):
        _check_is_there(file)
        lazy = cast(Format, importlib.import_module(f"biom3d.io.{module}")).open_volume(file, Pick(role, key, like))

    def read(z0: int, z1: int) -> np.ndarray:
        with _reading(file, module):
            return lazy.read(z0, z1)

    return replace(lazy, read=read)


def read_header(path: Path | str, role: Role = "image", like: Header | None = None) -> Header:
    """Return what is known of a volume without reading its voxels; `role`, `like` and errors as `open_volume`."""
    with open_volume(path, role, like) as lazy:
        return lazy.header


def read_volume(path: Path | str, role: Role = "image", folder: Path | None = None) -> Volume:
    """Read a whole volume (c, z, y, x); `role` and errors as `open_volume`.

    A large one becomes a memory map on the disk of `folder`, where that is given.
    """
    with open_volume(path, role) as lazy:
        return Volume(_read_all(lazy, folder), lazy.header)


def read_labels(path: Path | str, like: Header | None = None, folder: Path | None = None) -> Volume:
    """Read a label volume (1, z, y, x) of integers; floats that hold whole numbers become integers.

    `like` is the header of the image, as for `open_volume`. A large volume becomes a memory map on the disk of
    `folder`, where that is given.

    Raises:
        DataError: as `open_volume`; more than one channel; values that are not whole numbers.
    """
    with open_volume(path, "mask", like) as lazy:
        require_one_channel(path, lazy.header)
        volume = Volume(_read_all(lazy, folder), lazy.header)
    if volume.header.dtype.kind != "f":
        return volume
    labels = _whole_numbers(volume.array, path, folder)
    return Volume(labels, replace(volume.header, dtype=labels.dtype))


def may_hold_labels(path: Path | str) -> bool:
    """Tell whether a file is of a format that holds an image and its labels."""
    return _MODULES.get(_suffix(split_key(path)[0])) in ("hdf5", "ome_zarr")


def require_one_channel(path: Path | str, header: Header) -> None:
    """Raise `DataError` unless a volume can be labels: one channel."""
    if header.shape[0] != 1:
        advice = channels_advice(header) or "; save the labels as one grey-value image"
        raise DataError(
            f"'{path}': a label volume has one channel, this has {header.shape[0]} "
            f"(shape {header.shape} as c, z, y, x){advice}"
        )


def channels_advice(header: Header) -> str:
    """Return what to do where the planes of a volume seem to be stored as the channels of one plane, or nothing."""
    if not header.is_2d or header.shape[0] <= _MANY_CHANNELS:
        return ""
    return (
        "; if these are slices, set them as such (Fiji: Image > Properties, channels 1, "
        f"slices {header.shape[0]}; tifffile: metadata={{'axes': 'ZYX'}})"
    )


def write_volume(path: Path | str, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) atomically, in the format of the suffix of `path`.

    Axes order, spacing, unit and channel names of `header` are kept where the format can hold them; shape
    and type are those of the array.

    Raises:
        DataError: the format cannot hold this array. OutputError: the file cannot be written.
    """
    _write(Path(path), array, replace(header, shape=_four(array.shape), dtype=native_dtype(array.dtype)))


def write_labels(path: Path | str, labels: np.ndarray, header: Header) -> None:
    """Write labels (z, y, x), integers, maybe a memory map, atomically; `header` is that of the image.

    Spacing, unit, 2D-ness and orientation of the image are kept, and viewers are told how to show labels. 64-bit
    integers are stored in the smallest type that holds them, since few programs read 64-bit labels; bool becomes
    uint8. Few planes are in memory at a time.

    Raises:
        DataError, OutputError: as `write_volume`.
    """
    if labels.ndim != 3 or labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be a (z, y, x) array of integers, not {labels.dtype} {labels.shape}")
    dtype = native_dtype(labels.dtype)
    label_header = replace(
        header,
        shape=(1, *labels.shape),
        dtype=_smallest_type(labels) if dtype.itemsize == 8 and labels.size else dtype,
        axes=header.axes.replace("C", ""),
        channel_names=(),
        extra={**header.extra, "is_labels": True, "label_values": values_of(labels), "layer_name": volume_name(path)},
    )
    _write(Path(path), labels[np.newaxis], label_header)


def list_volumes(folder_or_file: Path | str, key: str | None = None) -> list[Path]:
    """Return the volumes of a folder, sorted by name; of a single volume, a list of that one.

    Hidden files, sub-folders that are not .zarr, and files of other kinds are passed over, see `passed_over`. `key`
    names the array that is meant in each of them, unless the path itself does (`folder:raw`, `file.h5:raw`).

    Raises:
        DataError: no such path, nothing to read there, or two files with one `volume_name`.
    """
    path, own = split_key(folder_or_file)
    with _reading(path, None):
        if url_of(path):
            if _suffix(path) not in _ZARR:
                raise DataError("a URL leads to an OME-Zarr image, whose name ends in .zarr; copy others here")
            return [Path(folder_or_file) if own else with_key(path, key)]
        if not path.exists():
            raise DataError(f"'{path}': no such file or folder; check the path")
        if not path.is_dir() or _is_zarr(path):
            _format_of(path)
            return [Path(folder_or_file) if own else with_key(path, key)]
        entries = _entries(path)
        volumes = [entry for entry in entries if _is_volume(entry)]
        if not volumes and is_series(path):
            return [Path(folder_or_file) if own else with_key(path, key)]
    key = own or key
    if not volumes:
        found = f"only {', '.join(repr(entry.name) for entry in entries[:5])}" if entries else "nothing"
        raise DataError(f"'{path}': no image found there, {found}; wanted files that end in {_known()}")
    _check_names(volumes)
    return [with_key(volume, key) for volume in volumes]


def result_name(path: Path | str) -> str:
    """Return the name of the label volume of an image: that of the image, or NIfTI for DICOM, which is not written."""
    file = volume_file(path)
    return f"{volume_name(path)}.nii.gz" if is_dicom(path) else file.name


def is_dicom(path: Path | str) -> bool:
    """Tell whether an image is DICOM."""
    return _format_of(volume_file(path)) == "dicom"


def passed_over(folder: Path | str) -> str | None:
    """Say in one line which images and folders `list_volumes` leaves out, or None where there are none.

    What is plainly no image (text, tables, hidden files) is not worth a word.
    """
    path, _ = split_key(folder)
    if not path.is_dir() or _is_zarr(path):
        return None
    try:
        left = [entry for entry in _entries(path) if not _is_volume(entry)]
        if len(left) == len(_entries(path)) and is_series(path):
            left = [entry for entry in left if entry.is_dir()]  # what else lies in it is told by the series
    except OSError:  # `list_volumes` says so
        return None
    folders = [entry for entry in left if entry.is_dir()]
    files = [entry for entry in left if entry not in folders and entry.suffix.lower() not in _NO_IMAGES]
    if not files and not folders:
        return None
    counts = [_count(files, "file"), _count(folders, "folder")]
    names = ", ".join(f"'{entry.name}'" for entry in [*files, *folders][:_SHOWN])
    more = f" and {len(files) + len(folders) - _SHOWN} more" if len(files) + len(folders) > _SHOWN else ""
    return (
        f"'{path}': {' and '.join(filter(None, counts))} passed over: {names}{more}; read are files of this folder "
        f"that end in {_known()}"
    )


def volume_name(path: Path | str) -> str:
    """Return the base name without the suffix of its format: `a.v1.tif` -> `a.v1`, `x.h5:raw` -> `x`.

    Letters with marks are composed (Unicode NFC): a Mac stores them in two parts, and they look the same.
    """
    name = split_key(path)[0].name
    return unicodedata.normalize("NFC", name[: len(name) - len(_suffix(Path(name)))])


def volume_file(path: Path | str) -> Path:
    """Return the file of a volume, without the name of an array in it."""
    return split_key(path)[0]


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _is_volume(entry: Path) -> bool:
    if entry.is_dir():
        return _is_zarr(entry) or is_series(entry)
    if _suffix(entry) in ("", ".dcm") and entry.suffix.lower() not in _NO_IMAGES:  # names of DICOM files mean nothing
        return is_volume_file(entry)
    return bool(_suffix(entry))


def _count(entries: list[Path], word: str) -> str:
    return f"{len(entries)} {word}{'s' if len(entries) > 1 else ''}" if entries else ""


def _write(path: Path, array: np.ndarray, header: Header) -> None:
    if split_key(path)[1] is not None:
        raise DataError(f"'{path}': a new file gets one array; leave out what follows the file's name")
    module = _format_of(path)
    if 0 in array.shape:
        raise DataError(f"'{path}': no voxels to write, shape {array.shape} as c, z, y, x")
    with atomic_path(path) as temporary, _writing(path, module):
        cast(Format, importlib.import_module(f"biom3d.io.{module}")).write_volume(temporary, array, header)


def _read_all(lazy: LazyVolume, folder: Path | None) -> np.ndarray:
    header = lazy.header
    channels, depth, height, width = header.shape
    if folder is None or is_small(header.dtype, header.shape):
        return lazy.read(0, depth)
    array = new_array(folder, header.dtype, header.shape)
    for z0, z1 in slabs(depth, channels * height * width * header.dtype.itemsize):
        array[:, z0:z1] = lazy.read(z0, z1)
        forget_pages(array)
    return array


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and _suffix(path) in _ZARR


def _known() -> str:
    return ", ".join(SUFFIXES)


def _format_of(path: Path) -> str:
    suffix = _suffix(path)
    if suffix in ("", ".dcm") and (is_series(path) if path.is_dir() else kind_of(path) is not None):
        return "dicom"
    if not suffix:
        raise DataError(f"'{path}': not a known image format; wanted a name that ends in {_known()}")
    return _MODULES[suffix]


def _check_is_there(path: Path) -> None:
    if path.is_dir() and not _is_zarr(path) and not is_series(path):
        raise DataError(f"'{path}': is a folder; wanted a file")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"'{path}': the file is empty (0 bytes); copy it again from its source")
    if _is_zarr(path):
        list(path.iterdir())  # a folder without read permission must not look like one without metadata


def _check_names(volumes: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in volumes:
        other = seen.setdefault(volume_name(path), path)
        if other is not path:
            raise DataError(
                f"'{path.parent}': '{other.name}' and '{path.name}' would both be called "
                f"'{volume_name(path)}'; rename or remove one of them"
            )


@contextmanager
def _reading(path: Path, module: str | None) -> Iterator[None]:
    """Turn whatever a format's library raises into a `DataError` that names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(_with_path(path, str(error))) from error
    except (Biom3dError, MemoryError):
        raise
    except PermissionError as error:
        raise DataError(f"'{path}': no permission to read it; ask its owner for read access") from error
    except Exception as error:  # every library has its own exceptions, and damaged files find all of them
        if url_of(path):
            raise DataError(f"'{path}': {_remote_reason(error, path)}") from error
        if not path.exists():
            raise DataError(f"'{path}': no such file or folder; check the path") from error
        wanted = f"a {_NAMES[module]} volume" if module else "a readable folder"
        raise DataError(
            f"'{path}': cannot be read as {wanted} ({_reason(error)}); found {_content(path)}; "
            "if it opens elsewhere save it again, else copy it again from its source"
        ) from error


@contextmanager
def _writing(path: Path, module: str) -> Iterator[None]:
    """Turn what a format's library raises into our errors; `OSError` is left to `atomic_path`."""
    try:
        yield
    except DataError as error:
        raise DataError(_with_path(path, str(error))) from error
    except (Biom3dError, OSError, MemoryError):
        raise
    except Exception as error:  # as above
        raise OutputError(f"cannot write '{path}' as {_NAMES[module]}: {_reason(error)}") from error


def _with_path(path: Path, message: str) -> str:
    return message if message.startswith("'") else f"'{path}': {message}"


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0][:200]}" if lines else type(error).__name__


def _remote_reason(error: Exception, path: Path) -> str:
    from biom3d.io.urls import explain

    return explain(error, path) or f"cannot be read as an OME-Zarr image ({_reason(error)}); check the URL"


def _content(path: Path) -> str:
    """Say what a file holds, judged by its first bytes and its size."""
    if path.is_dir():
        return "a folder"
    try:
        with open(path, "rb") as file:
            start = file.read(8)
        size = path.stat().st_size
    except OSError:
        return "a file that cannot be opened"
    kind = next((text for magic, text in _MAGIC.items() if start.startswith(magic)), "another kind of file")
    return f"what begins like {kind}, {size} bytes"


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(shape) != 4:
        raise TypeError(f"array must be (c, z, y, x), not of shape {shape}")
    return (shape[0], shape[1], shape[2], shape[3])


def _smallest_type(labels: np.ndarray) -> np.dtype:
    low = min(int(plane.min()) for plane in labels)
    high = max(int(plane.max()) for plane in labels)
    return np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))


def _whole_numbers(array: np.ndarray, path: Path | str, folder: Path | None) -> np.ndarray:
    """Return floats that hold whole numbers as the smallest integers; plane by plane, to spare memory."""
    low, high = np.inf, -np.inf
    for z, plane in enumerate(array[0]):
        wrong = plane != np.rint(plane)  # NaN differs from itself; infinity is caught below
        wrong |= np.isinf(plane)
        if wrong.any():
            y, x = (int(i) for i in np.argwhere(wrong)[0])
            raise DataError(
                f"'{path}': labels must be whole numbers, found {plane[y, x]} at z={z}, y={y}, x={x} "
                f"(file type {array.dtype}); save the labels as integers"
            )
        low, high = min(low, plane.min()), max(high, plane.max())
        forget_pages(array)
    labels = new_array(folder, np.result_type(np.min_scalar_type(int(low)), np.min_scalar_type(int(high))), array.shape)
    for z, plane in enumerate(array[0]):
        labels[0, z] = plane
        forget_pages(array)
        forget_pages(labels)
    return labels
