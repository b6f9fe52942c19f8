"""What holds for all formats: voxels, types, spacing, axes, names, lazy reading, errors."""

import contextlib
import tracemalloc
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from biom3d.errors import DataError, OutputError
from biom3d.io import open_volume, read_header, read_labels, read_volume, write_labels, write_volume

FILES = [".tif", ".ome.tif", ".nii", ".nii.gz", ".nrrd", ".mha", ".npy", ".h5"]
ALL = [*FILES, ".zarr"]
HOLDS_SPACING = [".tif", ".ome.tif", ".nii.gz", ".nrrd", ".mha", ".h5", ".ome.zarr"]
HOLDS_NAMES = [".tif", ".ome.tif", ".h5", ".ome.zarr"]
TYPES = ["int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("suffix", ALL)
def test_voxels_and_type_survive(tmp_path, make, header, suffix, dtype):
    array = make(1, 5, 12, 14, dtype=dtype)
    write_volume(tmp_path / f"a{suffix}", array, header)
    back = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, array)
    assert (back.array.dtype, back.header.dtype) == (array.dtype, array.dtype)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16"])
@pytest.mark.parametrize("suffix", [".tif", ".npy", ".h5", ".zarr"])
def test_rare_types_survive_where_the_format_has_them(tmp_path, make, header, suffix, dtype):
    array = make(1, 5, 12, 14, dtype=dtype)
    write_volume(tmp_path / f"a{suffix}", array, header)
    back = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, array)
    assert (back.array.dtype, read_header(tmp_path / f"a{suffix}").dtype) == (array.dtype, array.dtype)


@pytest.mark.parametrize("second", HOLDS_SPACING)
@pytest.mark.parametrize("first", HOLDS_SPACING)
def test_spacing_and_axes_survive_from_format_to_format(tmp_path, make, header, first, second):
    write_volume(tmp_path / f"a{first}", make(1, 5, 12, 14), header)
    middle = read_volume(tmp_path / f"a{first}")
    write_volume(tmp_path / f"b{second}", middle.array, middle.header)
    back = read_header(tmp_path / f"b{second}")
    assert back.spacing_um == pytest.approx(header.spacing_um, rel=1e-6)
    assert (back.shape, back.axes) == (header.shape, header.axes)


@pytest.mark.parametrize("suffix", HOLDS_NAMES)
def test_channels_and_their_names_survive(tmp_path, make, header, suffix):
    array = make(2, 5, 12, 14)
    write_volume(tmp_path / f"a{suffix}", array, replace(header, axes="CZYX", channel_names=("DAPI", "é µ")))
    back = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, array)
    assert back.header.channel_names == ("DAPI", "é µ")


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX", "ZYXC"])
@pytest.mark.parametrize("suffix", ALL)
def test_channels_keep_their_voxels_from_any_order(tmp_path, make, header, suffix, axes):
    array = make(2, 5, 12, 14)
    write_volume(tmp_path / f"a{suffix}", array, replace(header, axes=axes))
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, array)


@pytest.mark.parametrize(
    ("suffix", "axes"), [(".tif", "ZCYX"), (".ome.tif", "ZCYX"), (".h5", "ZYXC"), (".zarr", "CZYX")]
)
def test_stored_order_survives(tmp_path, make, header, suffix, axes):
    write_volume(tmp_path / f"a{suffix}", make(2, 5, 12, 14), replace(header, axes=axes))
    assert read_header(tmp_path / f"a{suffix}").axes == axes


@pytest.mark.parametrize("suffix", ALL)
def test_a_2d_image_stays_2d(tmp_path, make, header, suffix):
    array = make(1, 1, 12, 14)
    write_volume(tmp_path / f"a{suffix}", array, replace(header, axes="YX"))
    back = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, array)
    assert back.header.is_2d


@pytest.mark.parametrize("suffix", HOLDS_SPACING)
def test_a_2d_image_keeps_its_spacing_in_plane(tmp_path, make, header, suffix):
    write_volume(tmp_path / f"a{suffix}", make(1, 1, 12, 14), replace(header, axes="YX"))
    spacing = read_header(tmp_path / f"a{suffix}").spacing_um
    assert spacing is not None
    assert spacing[1:] == pytest.approx((0.2, 0.1), rel=1e-6)


@pytest.mark.parametrize("unit", ["nm", "mm"])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr"])
def test_the_unit_of_the_file_survives(tmp_path, make, header, suffix, unit):
    write_volume(tmp_path / f"a{suffix}", make(1, 5, 12, 14), replace(header, unit=unit))
    back = read_header(tmp_path / f"a{suffix}")
    assert (back.unit, back.spacing_um) == (unit, pytest.approx(header.spacing_um, rel=1e-6))


@pytest.mark.parametrize("suffix", ALL)
def test_unknown_spacing_stays_unknown_or_says_1_mm(tmp_path, make, header, suffix):
    write_volume(tmp_path / f"a{suffix}", make(1, 5, 12, 14), replace(header, spacing_um=None))
    known = (1000.0, 1000.0, 1000.0) if ".nii" in suffix else None  # NIfTI cannot leave it out
    assert read_header(tmp_path / f"a{suffix}").spacing_um == known


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", [*ALL, "-raw.tif"])
def test_any_slab_equals_that_part_of_the_volume(tmp_path, make, header, suffix, channels):
    array = make(channels, 5, 12, 14, dtype="float32" if "raw" in suffix else "uint16")
    write_volume(tmp_path / f"a{suffix}", array, replace(header, axes="CZYX"[2 - channels :]))
    with open_volume(tmp_path / f"a{suffix}") as lazy:
        for z0, z1 in combinations(range(6), 2):
            np.testing.assert_array_equal(lazy.read(z0, z1), array[:, z0:z1])


@pytest.mark.parametrize("suffix", ALL)
def test_voxels_come_as_own_contiguous_memory(tmp_path, make, header, suffix):
    write_volume(tmp_path / f"a{suffix}", make(2, 5, 12, 14), replace(header, axes="ZCYX"))
    array = read_volume(tmp_path / f"a{suffix}").array
    array += 1  # a view of a read-only memory map would refuse
    assert array.flags.c_contiguous
    assert not isinstance(array, np.memmap)


@pytest.mark.parametrize("suffix", [*FILES, ".ome.zarr"])
def test_labels_survive_with_spacing(tmp_path, make, header, suffix):
    labels = make(5, 12, 14)
    write_labels(tmp_path / f"a{suffix}", labels, replace(header, axes="CZYX", channel_names=("a", "b")))
    back = read_labels(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array[0], labels)
    expected = None if suffix == ".npy" else pytest.approx(header.spacing_um, rel=1e-6)
    assert (back.header.axes, back.header.spacing_um) == ("ZYX", expected)


@pytest.mark.parametrize("suffix", ALL)
def test_64_bit_labels_are_stored_in_the_smallest_type(tmp_path, make, header, suffix):
    write_labels(tmp_path / f"a{suffix}", make(5, 12, 14, dtype="int64") * 100, header)
    back = read_labels(tmp_path / f"a{suffix}")
    assert back.array.dtype == np.uint16
    assert back.array.max() == 9900


@pytest.mark.parametrize("suffix", ALL)
def test_bool_labels_become_uint8(tmp_path, make, header, suffix):
    write_labels(tmp_path / f"a{suffix}", make(5, 12, 14) > 50, header)
    back = read_labels(tmp_path / f"a{suffix}")
    assert (back.array.dtype, back.array.max()) == (np.uint8, 1)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy", ".h5"])
def test_labels_of_a_memory_map_are_written_in_little_memory(tmp_path, header, suffix):
    labels = np.memmap(tmp_path / "labels", np.uint8, "w+", shape=(128, 128, 128))
    labels[:] = 1
    write_labels(tmp_path / f"warm{suffix}", labels[:2], header)  # imports are not what is measured
    tracemalloc.start()
    write_labels(tmp_path / f"a{suffix}", labels, header)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.nbytes / 3


@pytest.mark.parametrize("suffix", [".tif", "-raw.tif", ".npy", ".h5", ".nii", ".zarr"])
def test_one_plane_is_read_in_little_memory(tmp_path, header, suffix):
    array = np.ones((1, 128, 128, 128), np.float32 if "raw" in suffix else np.uint16)
    write_volume(tmp_path / f"a{suffix}", array, header)
    read_header(tmp_path / f"a{suffix}")  # imports are not what is measured
    tracemalloc.start()
    with open_volume(tmp_path / f"a{suffix}") as lazy:
        lazy.read(100, 101)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 3


def test_float_labels_that_are_whole_become_integers(tmp_path, header):
    write_volume(tmp_path / "a.tif", np.full((1, 5, 12, 14), 3, np.float32), header)
    labels = read_labels(tmp_path / "a.tif")
    assert (labels.array.dtype, labels.header.dtype, labels.array.max()) == (np.uint8, np.uint8, 3)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_float_labels_that_are_not_whole_are_refused_with_their_place(tmp_path, header, value):
    array = np.zeros((1, 5, 12, 14), np.float32)
    array[0, 1, 2, 3] = value
    write_volume(tmp_path / "a.tif", array, header)
    with pytest.raises(DataError, match=rf"a.tif.* whole numbers, found {value} at z=1, y=2, x=3"):
        read_labels(tmp_path / "a.tif")


def test_labels_with_two_channels_are_refused(tmp_path, make, header):
    write_volume(tmp_path / "a.tif", make(2, 5, 12, 14), replace(header, axes="CZYX"))
    with pytest.raises(DataError, match=r"a.tif.*one channel, this has 2"):
        read_labels(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", FILES)
def test_a_cut_file_is_refused_or_whole(tmp_path, make, header, suffix):
    array = make(1, 5, 12, 14)
    path = tmp_path / f"a{suffix}"
    write_volume(path, array, header)
    content = path.read_bytes()
    for size in np.linspace(1, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:size])
        assert_refused_or(path, array)


@pytest.mark.parametrize("suffix", FILES)
def test_a_damaged_byte_gives_no_other_exception(tmp_path, make, header, suffix):
    path = tmp_path / f"a{suffix}"
    write_volume(path, make(1, 5, 12, 14), header)
    content = path.read_bytes()
    for place in np.random.default_rng(1).integers(0, len(content), 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        assert_refused_or(path, None)


def assert_refused_or(path: Path, array: np.ndarray | None) -> None:
    with contextlib.suppress(DataError):
        found = read_volume(path).array
        np.testing.assert_array_equal(found, found if array is None else array)


@pytest.mark.parametrize("suffix", FILES)
def test_an_empty_file_is_refused(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(DataError, match=rf"a{suffix}.*empty \(0 bytes\); copy it again"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", FILES)
def test_a_file_of_another_kind_is_refused_and_named(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    with pytest.raises(DataError, match=rf"a{suffix}.*begins like a PNG picture, 508 bytes"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", ALL)
def test_a_missing_file_is_refused(tmp_path, suffix):
    with pytest.raises(DataError, match=rf"gone{suffix}': no such file"):
        read_volume(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("suffix", FILES)
def test_a_folder_where_a_file_is_wanted_is_refused(tmp_path, suffix):
    (tmp_path / f"a{suffix}").mkdir()
    with pytest.raises(DataError, match=rf"a{suffix}': is a folder; wanted a file"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", ALL)
def test_a_file_without_permission_is_refused(tmp_path, make, header, suffix, unprivileged):
    path = tmp_path / f"a{suffix}"
    write_volume(path, make(1, 5, 12, 14), header)
    read_volume(path)
    path.chmod(0)
    with unprivileged(), pytest.raises(DataError, match=rf"a{suffix}': no permission to read it"):
        read_volume(path)
    path.chmod(0o700)


@pytest.mark.parametrize("suffix", ALL)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, make, header, suffix):
    write_volume(tmp_path / f"a{suffix}", make(1, 5, 12, 14), header)
    with pytest.raises(DataError):
        write_volume(tmp_path / f"a{suffix}", make(1, 0, 12, 14), header)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    assert read_header(tmp_path / f"a{suffix}").shape == (1, 5, 12, 14)


def test_writing_below_a_file_is_an_output_error(tmp_path, make, header):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_volume(tmp_path / "file" / "a.tif", make(1, 5, 12, 14), header)


@pytest.mark.parametrize("name", ["with space", "ünï µ", "br[ack]et", "quo\"te's", "a.v1"])
def test_any_name_works(tmp_path, make, header, name):
    for suffix in ALL:
        write_volume(tmp_path / f"{name}{suffix}", make(1, 5, 12, 14), header)
        assert read_volume(tmp_path / f"{name}{suffix}").array.shape == (1, 5, 12, 14)
