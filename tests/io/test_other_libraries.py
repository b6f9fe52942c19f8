"""Any axes, type, unit, byte order, compression: what other libraries write is read, what is written they read."""

import tempfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import ome_types
import SimpleITK
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05.image import ImageAttrs
from PIL import Image

from biom3d.io import Header, read_volume, write_volume
from tests.dicom_files import itk_read, write_series

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]
PER_UM = {"µm": 1.0, "nm": 1e3, "mm": 1e-3}  # how many units a micrometre is
ZARR_NAMES = {"µm": "micrometer", "nm": "nanometer", "mm": "millimeter"}
SPACING = (0.3, 0.2, 0.1)
SIZES = {"C": 2, "Z": 3, "Y": 7, "X": 6}
AXES = st.sampled_from(["YX", "ZYX", "CZYX", "ZCYX", "CYX"])
orders = st.sampled_from("<>")
dtypes = st.sampled_from(TYPES)
units = st.sampled_from(list(PER_UM))
quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def voxels(axes: str, dtype: str) -> np.ndarray:
    shape = [SIZES[letter] for letter in axes]
    return np.random.default_rng(len(axes)).integers(0, 100, shape).astype(dtype)


def as_czyx(array: np.ndarray, axes: str) -> np.ndarray:
    present = [axes.index(letter) for letter in "CZYX" if letter in axes]
    missing = tuple(place for place, letter in enumerate("CZYX") if letter not in axes)
    return np.expand_dims(array.transpose(present), missing)


def assert_read(path: Path, array: np.ndarray, axes: str, has_spacing: bool = True) -> None:
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, as_czyx(array, axes))
    assert volume.array.dtype == array.dtype.newbyteorder("=")
    if has_spacing:
        found = volume.header.spacing_um
        assert found is not None
        places = slice(0 if "Z" in axes else 1, 3)
        np.testing.assert_allclose(found[places], SPACING[places], rtol=1e-5)


def folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@quick
@given(AXES, dtypes, units, orders, st.sampled_from([None, "zlib", "lzw", "zstd", "packbits"]), st.booleans())
def test_ome_tiff(axes, dtype, unit, order, packing, tiled):
    sizes = dict(zip("ZYX", SPACING, strict=True))
    said = {f"PhysicalSize{axis}": size * PER_UM[unit] for axis, size in sizes.items()}
    said |= {f"PhysicalSize{axis}Unit": unit for axis in sizes}
    array = voxels(axes, dtype)
    with folder() as place:
        path = Path(place) / "a.ome.tif"
        options = {"byteorder": order, "compression": packing, "tile": (16, 16) if tiled else None}
        tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes, **said}, **options)
        assert_read(path, array, axes)


@quick
@given(st.sampled_from(["YX", "ZYX", "ZCYX", "CYX"]), st.sampled_from(["u1", "u2", "f4"]), units, orders)
def test_imagej_tiff(axes, dtype, unit, order):
    array, (z, y, x) = voxels(axes, dtype), (size * PER_UM[unit] for size in SPACING)
    with folder() as place:
        path = Path(place) / "a.tif"
        said = {"axes": axes, "unit": unit.replace("µ", "\\u00B5"), "spacing": z}
        tifffile.imwrite(path, array, imagej=True, resolution=(1 / x, 1 / y), byteorder=order, metadata=said)
        assert_read(path, array, axes)


@quick
@given(st.sampled_from([2, 3, 4]), dtypes, st.sampled_from(["micron", "mm"]), orders, st.booleans())
def test_nifti(dimensions, dtype, unit, order, packed):
    axes = ["YX", "ZYX", "CZYX"][dimensions - 2]
    array = voxels(axes, dtype)
    kind = nibabel.Nifti1Header(endianness=order)
    image = nibabel.Nifti1Image(
        array.T, np.diag([*(np.array(SPACING[::-1]) * {"micron": 1, "mm": 1e-3}[unit]), 1]), kind
    )
    image.header.set_xyzt_units(unit)
    image.set_data_dtype(dtype)
    with folder() as place:
        path = Path(place) / ("a.nii.gz" if packed else "a.nii")
        nibabel.save(image, path)
        volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, as_czyx(array, axes))
    np.testing.assert_allclose(volume.header.spacing_um[1:], SPACING[1:], rtol=1e-5)


@quick
@given(AXES, dtypes, orders, st.sampled_from([None, "gzip", "lzf"]), st.booleans())
def test_hdf5(axes, dtype, order, packing, chunked):
    array = voxels(axes, dtype).astype(f"{order}{dtype}")
    with folder() as place:
        path = Path(place) / "a.h5"
        with h5py.File(path, "w") as file:
            chunks = array.shape if chunked or packing else None
            data = file.create_dataset("volume", data=array, compression=packing, chunks=chunks)
            data.attrs["element_size_um"] = SPACING
            for dimension, letter in zip(data.dims, axes.lower(), strict=True):
                dimension.label = letter
        assert_read(path, array, axes)


@quick
@given(AXES, dtypes, units, orders, st.sampled_from([2, 3]), st.booleans())
def test_ome_zarr(axes, dtype, unit, order, version, packed):
    array = voxels(axes, dtype).astype(f"{order}{dtype}")
    size = dict(zip("ZYX", SPACING, strict=True))
    scale = [size[letter] * PER_UM[unit] if letter != "C" else 1.0 for letter in axes]
    named = [
        {"name": "c", "type": "channel"} if a == "C" else {"name": a.lower(), "type": "space", "unit": ZARR_NAMES[unit]}
        for a in axes
    ]
    datasets = [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    content = {"multiscales": [{"version": "0.4", "axes": named, "datasets": datasets}]}
    with folder() as place:
        path = Path(place) / "a.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=version)
        chunks = tuple(-(-side // 2) for side in array.shape)
        more = {} if packed else {"compressors": None}
        group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=chunks, **more)[...] = array
        group.attrs.update(content if version == 2 else {"ome": {"version": "0.5", **content}})
        assert_read(path, array, axes)


@quick
@given(st.sampled_from(["u1", "u2", "f4"]), st.sampled_from(["raw", "tiff_lzw", "tiff_deflate"]))
def test_pages_of_pillow(dtype, packing):
    array = voxels("ZYX", dtype)
    pages = [Image.fromarray(plane) for plane in array]
    with folder() as place:
        path = Path(place) / "a.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=packing)
        assert_read(path, array, "ZYX", has_spacing=False)


@quick
@given(st.sampled_from(["u1", "u2", "f4"]), st.sampled_from([".tif", ".ome.tif", ".nii.gz", ".nrrd", ".mha"]))
def test_what_is_written_is_read_by_itk(dtype, suffix):
    array = voxels("ZYX", dtype)
    with folder() as place:
        path = Path(place) / f"a{suffix}"
        write_volume(path, array[None], Header((1, *array.shape), array.dtype, "ZYX", (2000.0, 700.0, 500.0), (), "mm"))
        image = SimpleITK.ReadImage(path)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), array)
        if "tif" not in suffix:  # ITK reads no z spacing of TIFF
            np.testing.assert_allclose(image.GetSpacing(), (0.5, 0.7, 2.0), rtol=1e-5)


@quick
@given(st.sampled_from(["ZYX", "CZYX", "ZCYX"]), dtypes, units)
def test_what_is_written_is_valid_ome_and_says_the_same(axes, dtype, unit):
    array = as_czyx(voxels(axes, dtype), axes)
    header = Header(array.shape, array.dtype, axes, SPACING, (), unit, origin_um=(1.0, 2.0, 3.0))
    with folder() as place:
        write_volume(Path(place) / "a.ome.tif", array, header)
        with tifffile.TiffFile(Path(place) / "a.ome.tif") as file:
            pixels = ome_types.from_xml(file.ome_metadata).images[0].pixels
        assert (pixels.physical_size_x_unit.value, pixels.planes[0].position_x_unit.value) == (unit, "µm")
        np.testing.assert_allclose(pixels.physical_size_x / PER_UM[unit], SPACING[2])
        assert pixels.planes[0].position_x == 3.0
        write_volume(Path(place) / "a.zarr", array, header)
        attributes = dict(zarr.open_group(Path(place) / "a.zarr", mode="r").attrs)
        first = ImageAttrs.model_validate(attributes["ome"]).multiscales[0].datasets[0]
        steps = [step.model_dump() for step in first.coordinateTransformations]
    np.testing.assert_allclose(steps[0]["scale"][-1] / PER_UM[unit], SPACING[2])
    np.testing.assert_allclose(steps[1]["translation"][-1] / PER_UM[unit], 3.0)


@quick
@given(st.sampled_from([".nrrd", ".mha"]), st.sampled_from(["YX", "ZYX", "ZYXC"]), dtypes, st.booleans())
def test_what_itk_writes_is_read(suffix, axes, dtype, packed):
    array = voxels(axes, dtype)
    image = SimpleITK.GetImageFromArray(array, isVector="C" in axes)
    image.SetSpacing([size / 1000 for size in reversed(SPACING)][: image.GetDimension()])
    with folder() as place:
        SimpleITK.WriteImage(image, str(Path(place) / f"a{suffix}"), useCompression=packed)
        assert_read(Path(place) / f"a{suffix}", array, axes)


@quick
@given(
    st.sampled_from(["i2", "u2", "u1"]),
    st.integers(2, 6),
    st.tuples(*[st.floats(-1, 1) for _ in range(3)]).filter(lambda axis: np.linalg.norm(axis) > 0.1),
    st.floats(0, 3),
    st.tuples(*[st.floats(0.3, 5) for _ in range(3)]),
)
def test_dicom_lies_where_itk_sees_it(dtype, depth, axis, angle, spacing):
    array = np.random.default_rng(depth).integers(0, 100, (depth, 7, 6)).astype(dtype)
    rotation = SimpleITK.VersorTransform(axis, angle).GetMatrix()
    sizes = tuple(round(size, 3) for size in spacing)
    with folder() as place:
        write_series(Path(place), array, rotation, spacing=sizes)
        theirs, ours = itk_read(Path(place)), read_volume(Path(place))
        np.testing.assert_array_equal(ours.array[0], SimpleITK.GetArrayFromImage(theirs))
        np.testing.assert_allclose(ours.header.spacing_um, [1000 * size for size in reversed(sizes)], rtol=1e-3)
        affine = np.array(ours.header.extra["affine"])
        for index in ((0, 0, 0), (5, 0, 0), (0, 6, 0), (0, 0, depth - 1)):
            here = np.diag([-1, -1, 1]) @ (affine @ [*index, 1])[:3]
            np.testing.assert_allclose(here, theirs.TransformIndexToPhysicalPoint(index), atol=2e-3)
