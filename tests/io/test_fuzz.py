"""Damaged files of every format: the right voxels, or one line that names the file; never anything else."""

import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr

from biom3d.errors import DataError
from biom3d.io import Header, read_volume, write_volume
from tests.dicom_files import write_series

SHAPE = (4, 12, 10)
ARRAY = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
HEADER = Header((1, *SHAPE), np.dtype(np.uint8), "ZYX", (0.3, 0.2, 0.1))
OURS = [".tif", ".ome.tif", ".nii", ".nii.gz", ".nrrd", ".mha", ".npy", ".h5", ".zarr"]
THEIRS = ["tiled.tif", "big.tif", "two.nii.gz", "raw.nrrd", "raw.mha", "two.h5", "four.zarr"]
NAMES = [*(f"a{suffix}" for suffix in OURS), *THEIRS, "series"]
CASES = 125  # damaged files of each of the 17 kinds: more than 2000
# What holds a sum or is so packed that no changed voxel passes.
SUMMED = ("a.nii.gz", "two.nii.gz", "a.nrrd", "a.mha", "a.zarr")


def theirs(folder: Path) -> dict[str, Path]:
    """Files of other programs' kinds, by name."""
    tifffile.imwrite(folder / "tiled.tif", ARRAY, tile=(16, 16), compression="lzw", photometric="minisblack")
    tifffile.imwrite(folder / "big.tif", ARRAY, bigtiff=True, byteorder=">", photometric="minisblack")
    nibabel.save(nibabel.Nifti2Image(ARRAY.T, np.diag([0.1, 0.2, 0.3, 1])), folder / "two.nii.gz")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY), folder / "raw.nrrd")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY), folder / "raw.mha")
    with h5py.File(folder / "two.h5", "w") as file:
        file["raw"], file["label"] = ARRAY, ARRAY > 100
    group = zarr.open_group(folder / "four.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=ARRAY, chunks=(2, 12, 10))
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [0.3, 0.2, 0.1]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return {name: folder / name for name in THEIRS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    for suffix in OURS:
        write_volume(folder / f"a{suffix}", ARRAY[None], HEADER)
    write_series(folder / "series", ARRAY.astype(np.int16))
    files = {f"a{suffix}": folder / f"a{suffix}" for suffix in OURS} | theirs(folder) | {"series": folder / "series"}
    for path in files.values():
        np.testing.assert_array_equal(read_volume(path).array[0], ARRAY)
    return files


def damages(content: bytes, count: int, rng: np.random.Generator) -> Iterator[tuple[bytes, bool]]:
    """Yield copies with 1 to 8 bytes changed, most near the start where the header is, or (True) the end cut off."""
    for number in range(count):
        if number % 5 == 0:
            yield content[: int(rng.integers(0, len(content)))], True
            continue
        out = bytearray(content)
        reach = len(out) if number % 5 == 1 else min(len(out), 400)
        for place in rng.integers(0, reach, int(rng.integers(1, 9))):
            out[place] = int(rng.integers(0, 256))
        yield bytes(out), False


def parts_of(path: Path) -> list[Path]:
    return sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_rightly_or_refused_in_one_line(whole, name):
    rng = np.random.default_rng(len(name))
    parts = parts_of(whole[name])
    began = time.monotonic()
    for number, part in enumerate(parts):
        content = part.read_bytes()
        share = CASES // len(parts) + (number < CASES % len(parts))
        for changed, is_cut in damages(content, share, rng):
            part.write_bytes(changed)
            assert_right_or_refused(whole[name], is_cut)
        part.write_bytes(content)
    assert time.monotonic() - began < 300  # none hangs; 2 s are usual


def assert_right_or_refused(path: Path, is_cut: bool) -> None:
    """A cut is always noticed; another value of a voxel cannot be, where nothing is a sum of it."""
    said, volume = None, None
    try:
        volume = read_volume(path)
    except DataError as error:
        said = str(error)
    if volume is None:
        assert str(path) in said
        assert "\n" not in said
        return
    if is_cut or path.name in SUMMED:
        np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.array.shape == volume.header.shape
    if path.suffix == ".tif":  # a page whose tags are damaged is another picture, which a TIFF may hold
        assert volume.array.size <= ARRAY.size
    else:
        assert volume.array.shape == (1, *SHAPE)
    assert volume.array.dtype == volume.header.dtype
