"""NIfTI .nii and .nii.gz: stored as x, y, z, channel; spacing in the header's unit; affine kept."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from biom3d.errors import DataError
from biom3d.io.axes import (
    Layout,
    from_czyx,
    native_dtype,
    plain_order,
    plan_layout,
    slice_reader,
    stored_axes,
)
from biom3d.io.choice import Pick
from biom3d.io.units import spacing_in_um, spacing_in_unit
from biom3d.io.volume import Header, LazyVolume, Remark, Spacing

_UNIT_NAMES = {"µm": "micron", "mm": "mm", "m": "meter"}  # all that NIfTI knows
_UNITS = {name: unit for unit, name in _UNIT_NAMES.items()}


def open_volume(path: Path, pick: Pick) -> LazyVolume:
    """Open `path` lazily. The fourth axis is taken as channels, as most segmentation data sets mean it."""
    # Opened here, so that slabs of a .nii.gz go on from where the last one ended, and its checksum is read.
    file = gzip.open(path) if path.name.lower().endswith(".gz") else None  # noqa: SIM115
    try:
        image = _load(path, file)
        source = _Reversed(image.dataobj)
        layout = _layout(source.shape)
        unit, spacing = _spacing(image.header)
    except BaseException:
        if file:
            file.close()
        raise
    extra, remarks = _orientation(image, spacing, unit)
    remarks = (*remarks, *(_too_long(path, image.dataobj) if file is None else ()))
    header = Header(layout.shape, source.dtype, layout.axes, spacing, unit=unit, extra=extra, remarks=remarks)
    read = slice_reader(source, layout, source.dtype)
    return LazyVolume(header, _checked(read, file, layout.shape[1]), file.close if file else lambda: None)


def write_volume(path: Path, array: np.ndarray, header: Header) -> None:
    """Write an array (c, z, y, x) as x, y, z[, c], with the affine of the image where it has one."""
    dtype = np.dtype(np.float32) if header.dtype == np.float16 else header.dtype  # NIfTI has no float16
    axes = plain_order(stored_axes(header.axes, header.shape)).replace("CY", "CZY")  # z always comes before c
    stored = np.asarray(from_czyx(array, axes).transpose(), dtype)
    unit = header.unit if header.unit in _UNIT_NAMES else "mm"
    is_of_file = "nifti" in header.extra and _has_spacing_of_file(header, unit)
    affine = np.array(header.extra["affine"], float) if is_of_file else _affine(header, unit)
    image = nibabel.Nifti1Image(stored, affine, dtype=dtype)  # 64-bit integers ask for an explicit type
    image.header.set_xyzt_units(_UNIT_NAMES[unit] if header.spacing_um else "unknown")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    if is_of_file:
        # Both transforms as the image has them, and the voxel size beside them: readers differ in which they take.
        for name, value in header.extra["nifti"].items():
            image.header[name] = value
    if header.extra.get("is_labels"):
        image.header["cal_max"] = max(header.extra.get("label_values", ()), default=1)
        image.header.set_intent("label", name="labels")
    nibabel.save(image, path)


def _load(path: Path, file: gzip.GzipFile | None) -> Any:
    """Return the image of a plain (memory-mapped) or an opened, compressed file."""
    if file is None:
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise DataError("is not a NIfTI file")
        return image
    version_2 = 540 in (int.from_bytes(start := file.read(4), "little"), int.from_bytes(start, "big"))
    file.seek(0)
    return (nibabel.Nifti2Image if version_2 else nibabel.Nifti1Image).from_stream(file)


def _checked(
    read: Callable[[int, int], np.ndarray], file: gzip.GzipFile | None, depth: int
) -> Callable[[int, int], np.ndarray]:
    """Return `read`, which after the last plane also reads the checksum at the end of a compressed file."""

    def read_and_check(z0: int, z1: int) -> np.ndarray:
        block = read(z0, z1)
        while file and z1 == depth and file.read(1 << 20):
            pass
        return block

    return read_and_check


def _too_long(path: Path, voxels: Any) -> tuple[Remark, ...]:
    """Return a remark where a plain file goes on after its last voxel: a damaged header says less than there is."""
    wanted = int(np.prod(voxels.shape, dtype=np.float64)) * voxels.dtype.itemsize
    more = path.stat().st_size - voxels.offset - wanted
    if more <= 0:
        return ()
    return (Remark("warning", f"its header says {wanted} bytes of voxels, {more} bytes follow: is its shape right?"),)


class _Reversed:
    """The voxels of a NIfTI file seen as (c, z, y, x), and scaled values as float32."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.shape = tuple(reversed(proxy.shape))
        self.dtype = native_dtype(proxy.dtype)
        if (proxy.slope, proxy.inter) != (1, 0):
            # nibabel scales to float64; float32 holds what 8 and 16 bit integers can say.
            self.dtype = np.result_type(self.dtype, np.float32)

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        return np.asarray(self._proxy[index[::-1]]).transpose()


def _layout(shape: tuple[int, ...]) -> Layout:
    """Name the dimensions of `shape`, which is stored order reversed: (vector, time, z, y, x)."""
    if len(shape) == 5 and shape[1] == 1:
        return plan_layout(shape, "CTZYX")
    if len(shape) > 5:
        return plan_layout(shape, "Q" * (len(shape) - 4) + "CZYX")
    return plan_layout(shape, "QCZYX"[-len(shape) :])


def _spacing(header: Any) -> tuple[str, Spacing | None]:
    """Return unit and voxel size in µm; a file that names no unit means mm, as all its readers do."""
    unit = _UNITS.get(header.get_xyzt_units()[0], "mm")
    # 7 digits are what the float32 of the header holds: 0.26, not 0.25999999046.
    zooms = [float(f"{zoom:.7g}") for zoom in header.get_zooms()[:3]]
    z = zooms[2] if len(zooms) == 3 else 1.0
    return unit, spacing_in_um(z, zooms[1], zooms[0], unit)


_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


def _orientation(image: Any, spacing_um: Spacing | None, unit: str) -> tuple[dict[str, Any], tuple[Remark, ...]]:
    """Return where the image lies, the fields of its header that say so, and a remark where they contradict."""
    fields = {name: np.asarray(image.header[name]).tolist() for name in _FIELDS}
    extra = {
        "affine": image.affine.tolist(),
        "sform_code": int(image.header["sform_code"]),
        "qform_code": int(image.header["qform_code"]),
        "nifti": {**fields, "pixdim": np.asarray(image.header["pixdim"]).tolist()},
        "file_spacing_um": spacing_um,
    }
    x, y, z = np.linalg.norm(image.affine[:3, :3], axis=0)
    if not spacing_um or np.allclose((z, y, x), spacing_in_unit(spacing_um, unit), rtol=1e-3):
        return extra, ()
    sizes = " and ".join(
        " x ".join(f"{size:.4g}" for size in sizes) for sizes in (spacing_in_unit(spacing_um, unit), (z, y, x))
    )
    text = (
        f"header (pixdim) and affine give two voxel sizes, {sizes} {unit} (z, y, x); the first is used; results keep "
        "both; if it is wrong give --spacing Z Y X in µm"
    )
    return extra, (Remark("warning", text),)


def _has_spacing_of_file(header: Header, unit: str) -> bool:
    """Tell whether the voxel size is still that of the file, and the transforms therefore too."""
    own = header.extra.get("file_spacing_um")
    if own is None or header.spacing_um is None:
        return own is None and header.spacing_um is None and unit == "mm"
    return unit == header.unit and bool(np.allclose(own, header.spacing_um, rtol=1e-6))


def _affine(header: Header, unit: str) -> np.ndarray:
    """Return the affine of the image, scaled where the spacing was overridden; else a diagonal one."""
    z, y, x = spacing_in_unit(header.spacing_um, unit) if header.spacing_um else (1.0, 1.0, 1.0)
    if "affine" not in header.extra:
        return np.diag([x, y, z, 1.0])
    affine = np.array(header.extra["affine"], dtype=float)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = np.array([x, y, z])
    if header.spacing_um and sizes.all() and not np.allclose(sizes, wanted, rtol=1e-4):
        affine[:3, :3] *= wanted / sizes
    return affine
