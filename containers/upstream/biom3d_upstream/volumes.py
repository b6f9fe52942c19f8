"""What Biom3d 0.1.2 reads right as it is and is linked, what must be converted to TIFF, and labels on the way back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biom3d_upstream.contract import InputError

SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".nii.gz", ".nii", ".npy")
OTHERS = (".hdf5", ".h5", ".ome.zarr", ".zarr")
# Axes, in tifffile's letters, that Biom3d takes for (z, y, x) and (c, z, y, x).
READ_RIGHT = ("YX", "ZYX", "QYX", "IYX", "CZYX", "QQYX")
UM = {"mm": 1e3, "meter": 1e6, "micron": 1.0, "unknown": 1e3}  # NIfTI files without a unit mean mm
SpacingUm = tuple[float, float, float]


@dataclass(frozen=True)
class Volume:
    """An array (c, z, y, x) and its voxel size (z, y, x) in µm, where it is known."""

    array: np.ndarray
    spacing_um: SpacingUm | None


def list_volumes(path: Path) -> list[Path]:
    """Return the volumes of a folder sorted by name, or the one file. Raises InputError where there is none."""
    if not path.exists():
        raise InputError(f"'{path}': no such file or folder; check the path")
    is_folder = path.is_dir() and not path.name.lower().endswith(OTHERS)
    entries = sorted(path.iterdir()) if is_folder else [path]
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    other = next((entry for entry in entries if entry.name.lower().endswith(OTHERS)), None)
    if other:
        raise InputError(
            f"'{other}': the upstream engine reads {', '.join(SUFFIXES)}; save it as TIFF, or use engine biom3d"
        )
    found = [entry for entry in entries if _suffix(entry) and entry.is_file()]
    if not found:
        raise InputError(f"'{path}': no image found there; wanted files that end in {', '.join(SUFFIXES)}")
    return found


def volume_name(path: Path) -> str:
    """Return the base name without the suffix of its format: `a.v1.tif` -> `a.v1`."""
    return path.name[: len(path.name) - len(_suffix(path))]


def match_volumes(first: Path, second: Path, words: tuple[str, str]) -> list[tuple[str, Path, Path]]:
    """Pair the volumes of two folders by name; InputError names those without a partner on either side."""
    left, right = ({volume_name(p): p for p in list_volumes(path)} for path in (first, second))
    if len(left) == 1 and [second] == list(right.values()):
        return [(name, path, second) for name, path in left.items()]
    for word, folder, alone in ((words[1], second, left.keys() - right), (words[0], first, right.keys() - left)):
        if alone:
            names = ", ".join(f"'{name}'" for name in sorted(alone)[:5])
            raise InputError(f"no {word} in '{folder}' for {len(alone)} volume(s): {names}; names must be alike")
    return [(name, path, right[name]) for name, path in left.items()]


def shape_of(path: Path) -> tuple[int, int, int, int]:
    """Return the shape (c, z, y, x) of a volume."""
    if _suffix(path) in (".nii.gz", ".nii", ".npy"):
        return _four(read_volume(path).array.shape)
    import tifffile

    with _reading(path), tifffile.TiffFile(path) as file:
        series = file.series[0]
        return _four(_to_czyx(np.broadcast_to(np.uint8(0), series.shape), series.axes).shape)


def stage_image(source: Path, target: Path, spacing_um: Sequence[float] | None, is_2d: bool) -> bool:
    """Put an image where Biom3d finds it, as `target` (.tif): a link where it reads it right, else a converted copy.

    Returns whether Biom3d will read it with a channel axis.
    """
    if spacing_um is None and _is_read_right(source):
        target.symlink_to(source.resolve())
        return _has_imagej_spacing(source) or shape_of(source)[0] > 1
    volume = read_volume(source)
    given = (spacing_um[0], spacing_um[1], spacing_um[2]) if spacing_um else volume.spacing_um
    given = None if is_2d else given
    array = volume.array.astype(np.float32) if volume.array.dtype.kind == "f" else volume.array
    _write_tiff(target, array, given, is_2d)
    return given is not None or array.shape[0] > 1


def stage_labels(labels: np.ndarray, target: Path, is_2d: bool = False, with_channel: bool = False) -> None:
    """Write labels (z, y, x) as the plain TIFF that Biom3d reads; --ct_norm wants a channel axis where images have it.

    A channel axis and 2D exclude each other.
    """
    import tifffile

    if with_channel and not is_2d:
        tifffile.imwrite(target, labels[None], photometric="minisblack", compression="zlib")
    else:
        _write_tiff(target, labels[None], None, is_2d)


def read_volume(path: Path) -> Volume:
    """Read a volume; InputError names the file and the reason."""
    with _reading(path):
        if _suffix(path) == ".npy":
            array = np.load(path, allow_pickle=False)
            return Volume(_to_czyx(array, {2: "YX", 3: "ZYX", 4: "CZYX"}.get(array.ndim, "?")), None)
        if _suffix(path) in (".nii.gz", ".nii"):
            return _read_nifti(path)
        import tifffile

        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            return Volume(_to_czyx(series.asarray(), series.axes), None)


def read_classes(path: Path, num_classes: int, instances: bool) -> np.ndarray:
    """Read labels (z, y, x) as classes 0..num_classes; InputError where the values are something else.

    With one class a mask of 0 and one other value, such as 255, is taken; with `instances` all above 0 is class 1.
    """
    array = read_volume(path).array
    if array.shape[0] != 1:
        raise InputError(f"'{path}': mask with {array.shape[0]} channels; wanted labels 0, 1, ..., N in one channel")
    values = np.unique(array)
    dtype = np.uint8 if num_classes < 256 else np.uint16
    objects = values[values != 0]
    if not np.isfinite(values).all() or (values != np.rint(values)).any() or (values < 0).any():
        raise InputError(f"'{path}': labels must be whole numbers from 0 on; save the mask as integers")
    if instances or (num_classes == 1 and len(objects) == 1):
        return (array[0] > 0).astype(dtype)
    if len(objects) and objects.max() > num_classes:
        raise InputError(
            f"'{path}': labels up to {objects.max():g}, wanted 0..{num_classes}; set num_classes, or instances where "
            "every value is one object"
        )
    return array[0].astype(dtype)


def write_labels_like(image: Path, labels: np.ndarray, target: Path, spacing_um: Sequence[float] | None) -> None:
    """Write labels (z, y, x) in the format of `image`, with its voxel size where Biom3d would drop it."""
    if _suffix(image) == ".npy":
        np.save(target, labels[0] if np.load(image, mmap_mode="r").ndim == 2 else labels)
    elif _suffix(image) in (".nii.gz", ".nii"):
        _write_nifti(image, labels, target)
    else:
        _write_tiff_labels(image, labels, target, spacing_um)


def _suffix(path: Path) -> str:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a format's library raises into an InputError that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # every library has its own exceptions
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"'{path}' cannot be read ({reason}); copy it again, or save it anew") from error


def _is_read_right(path: Path) -> bool:
    if not _suffix(path).endswith(("tif", "tiff")):
        return False
    import tifffile

    with _reading(path), tifffile.TiffFile(path) as file:
        axes = file.series[0].axes
    return axes in READ_RIGHT or (_has_imagej_spacing(path) and set(axes) <= set("CZYX"))


def _has_imagej_spacing(path: Path) -> bool:
    """Say whether Biom3d takes the axes and the voxel size from ImageJ's description."""
    import tifffile

    with _reading(path), tifffile.TiffFile(path) as file:
        return file.is_imagej and "spacing" in (file.imagej_metadata or {})


def _to_czyx(array: np.ndarray, axes: str) -> np.ndarray:
    """Return a view (c, z, y, x) of an array whose axes have tifffile's letters; InputError where they are others."""
    if axes.count("S") == 1 and "C" not in axes:
        axes = axes.replace("S", "C")
    for letter in "QI":  # not named: planes first, then channels
        while letter in axes:
            place = axes.rindex(letter)
            axes = axes[:place] + ("C" if "Z" in axes else "Z") + axes[place + 1 :]
    single = [i for i, letter in enumerate(axes) if letter not in "CZYX" and array.shape[i] == 1]
    array = array.squeeze(tuple(single))
    axes = "".join(letter for i, letter in enumerate(axes) if i not in single)
    if len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes) <= set("CZYX"):
        raise InputError(f"shape {array.shape} with axes {axes}; wanted one volume, z y x or c z y x")
    array = array.transpose([axes.index(letter) for letter in "CZYX" if letter in axes])
    return np.expand_dims(array, tuple(i for i, letter in enumerate("CZYX") if letter not in axes))


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    c, z, y, x = shape
    return c, z, y, x


def _write_tiff(target: Path, array: np.ndarray, spacing_um: SpacingUm | None, is_2d: bool) -> None:
    """Write an array (c, z, y, x): with a voxel size as ImageJ TIFF, which is where Biom3d looks for one."""
    import tifffile

    if array.dtype.kind in "iu" and array.dtype.itemsize > 2:
        array = array.astype(np.float32)  # all that ImageJ and Biom3d's own arrays hold
    if spacing_um is None:
        stored = array[:, 0] if is_2d else array
        stored = stored[0] if len(stored) == 1 else stored
        tifffile.imwrite(target, stored, photometric="minisblack", compression="zlib", compressionargs={"level": 1})
        return
    array = array if array.dtype in (np.uint8, np.uint16, np.float32) else array.astype(np.float32)
    metadata = {"axes": "ZCYX", "spacing": spacing_um[0], "unit": "micron"}
    resolution = (1 / spacing_um[2], 1 / spacing_um[1])
    tifffile.imwrite(target, array.swapaxes(0, 1), imagej=True, resolution=resolution, metadata=metadata)


def _read_nifti(path: Path) -> Volume:
    import nibabel

    image: Any = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    if array.ndim == 4:
        array = array.transpose(3, 2, 1, 0)
    elif array.ndim in (2, 3):
        array = array.reshape(*array.shape[:2], -1).transpose(2, 1, 0)[None]
    else:
        raise InputError(f"NIfTI with {array.ndim} dimensions; wanted one volume")
    x, y, z = ([*(float(size) for size in image.header.get_zooms()[:3]), 1.0])[:3]
    factor = UM.get(image.header.get_xyzt_units()[0], 1e3)
    return Volume(array, (z * factor, y * factor, x * factor))


def _write_nifti(image: Path, labels: np.ndarray, target: Path) -> None:
    import nibabel

    source: Any = nibabel.load(image)
    header = source.header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    array = labels.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(array[..., 0] if source.ndim == 2 else array, source.affine, header), target)


def _write_tiff_labels(image: Path, labels: np.ndarray, target: Path, spacing_um: Sequence[float] | None) -> None:
    import tifffile

    with tifffile.TiffFile(image) as file:
        known = file.imagej_metadata or {}
        tags: Any = file.pages[0].tags  # type: ignore[union-attr]
        resolution: Any = None
        with suppress(KeyError):
            resolution = (tags["XResolution"].value, tags["YResolution"].value)
        is_plane = "Z" not in file.series[0].axes and labels.shape[0] == 1
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    metadata: dict[str, Any] = {"axes": "YX" if is_plane else "ZYX"}
    if spacing_um:
        metadata |= {"spacing": spacing_um[0], "unit": "micron"}
        options |= {"resolution": (1 / spacing_um[2], 1 / spacing_um[1]), "imagej": True}
    elif "spacing" in known and resolution:
        metadata |= {key: known[key] for key in ("spacing", "unit") if key in known}
        options |= {"resolution": resolution, "imagej": True}
    if target.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options.pop("imagej", None)
        metadata.pop("spacing", None)
        metadata.pop("unit", None)
    tifffile.imwrite(target, labels[0] if is_plane else labels, metadata=metadata, **options)
