"""Which array of a file is taken: names, types, keys, and what is refused."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from biom3d.errors import DataError
from biom3d.io import list_volumes, passed_over, read_header, volume_file, volume_name, write_volume
from biom3d.io.choice import split_key


def save(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, dtype in datasets.items():
            file.create_dataset(name.replace("__", "/"), (5, 12, 14), dtype)


def chosen(path, role):
    return read_header(path, role).array


@pytest.mark.parametrize(
    ("arrays", "image", "mask"),
    [
        ({"raw": "u2", "label": "u2"}, "raw", "label"),  # PlantSeg
        ({"volumes__raw": "u1", "volumes__labels__neuron_ids": "u8"}, "volumes/raw", "volumes/labels/neuron_ids"),
        ({"image": "f4", "gt": "u1"}, "image", "gt"),
        ({"data": "u2", "segmentation": "i4"}, "data", "segmentation"),
        ({"a": "u1", "b": "u8"}, "a", "b"),  # only the types tell
        ({"z_stack": "u2", "a_mask": "bool"}, "z_stack", "a_mask"),
        ({"raw": "u2", "label": "u2", "label_old": "u2"}, "raw", "label"),
        ({"raw": "u2", "raw_mask": "u1", "labels__probability": "f4"}, "raw", "raw_mask"),
    ],
)
def test_the_role_decides(tmp_path, arrays, image, mask):
    save(tmp_path / "a.h5", **arrays)
    assert (chosen(tmp_path / "a.h5", "image"), chosen(tmp_path / "a.h5", "mask")) == (image, mask)


def test_a_choice_is_told_with_what_else_there_is(tmp_path):
    save(tmp_path / "a.h5", raw="u2", label="u2")
    (remark,) = read_header(tmp_path / "a.h5", "mask").remarks
    assert (remark.kind, remark.text) == ("note", "'label' is taken as the mask; also in the file: 'raw'")


def test_the_only_array_is_taken_without_a_word(tmp_path):
    save(tmp_path / "a.h5", raw="u2")
    header = read_header(tmp_path / "a.h5", "mask")
    assert (header.array, header.remarks) == ("raw", ())


@pytest.mark.parametrize(
    ("arrays", "role"),
    [
        ({"volumes__labels__neuron_ids": "u8", "volumes__labels__clefts": "u8", "volumes__raw": "u1"}, "mask"),
        ({"one": "u2", "two": "u2"}, "image"),
        ({"raw": "u2", "image": "f4"}, "mask"),
        ({"t0__raw": "u2", "t1__raw": "u2"}, "image"),
    ],
)
def test_what_is_not_sure_is_refused_with_the_list_and_the_way_out(tmp_path, arrays, role):
    save(tmp_path / "a.h5", **arrays)
    with pytest.raises(DataError) as error:
        read_header(tmp_path / "a.h5", role)
    option, column = {"image": ("--img_key", "image_key"), "mask": ("--msk_key", "mask_key")}[role]
    assert all(text in str(error.value) for text in ("a.h5", "FILE:ARRAY", option, column))
    assert all(name.replace("__", "/") in str(error.value) for name in arrays if role == "image" or "label" in name)


def test_levels_of_one_picture_are_no_choice(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for level, size in enumerate((16, 8, 4)):
            file.create_dataset(f"raw/s{level}", (size, size, size), "u2")
    assert chosen(tmp_path / "a.h5", "image") == "raw/s0"


@pytest.mark.parametrize("key", ["volumes/raw", "/volumes/raw", "raw"])
def test_a_key_after_a_colon_names_the_array(tmp_path, key):
    save(tmp_path / "a.h5", volumes__raw="u2", volumes__other="u4", other="u2")
    assert chosen(f"{tmp_path}/a.h5:{key}", "mask") == "volumes/raw"


def test_a_key_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    save(tmp_path / "a.h5", raw="u2", label="u1")
    with pytest.raises(DataError, match=r"a.h5': no array 'rew' in it; it holds 'label' .*, 'raw' "):
        read_header(f"{tmp_path}/a.h5:rew")


def test_a_key_for_a_format_of_one_array_is_refused(tmp_path, make, header):
    write_volume(tmp_path / "a.npy", make(1, 5, 12, 14), header)
    with pytest.raises(DataError, match=r"a.npy:x': a NumPy .npy file holds one array; leave ':x' out"):
        read_header(tmp_path / "a.npy:x")


def test_a_file_whose_name_has_a_colon_is_itself(tmp_path):
    save(tmp_path / "a.h5:b.h5", raw="u2", label="u2")
    assert split_key(tmp_path / "a.h5:b.h5") == (tmp_path / "a.h5:b.h5", None)
    assert chosen(tmp_path / "a.h5:b.h5", "image") == "raw"


def test_a_volume_with_a_key_is_named_after_its_file(tmp_path):
    save(tmp_path / "a.v1.h5", raw="u2")
    path = tmp_path / "a.v1.h5:volumes/raw"
    assert (volume_name(path), volume_file(path)) == ("a.v1", tmp_path / "a.v1.h5")
    assert list_volumes(path) == [path]


def test_a_key_for_a_folder_is_that_of_each_volume(tmp_path):
    save(tmp_path / "a.h5", raw="u2", label="u2")
    assert [read_header(path).array for path in list_volumes(tmp_path, "label")] == ["label"]


def test_a_key_after_a_folder_is_that_of_each_volume(tmp_path):
    (tmp_path / "cases").mkdir()
    save(tmp_path / "cases" / "a.h5", raw="u2", label="u2")
    (path,) = list_volumes(f"{tmp_path}/cases:label")
    assert (read_header(path).array, volume_name(path)) == ("label", "a")


def test_a_new_file_gets_no_key(tmp_path, make, header):
    with pytest.raises(DataError, match="a new file gets one array"):
        write_volume(tmp_path / "a.h5:raw", make(1, 5, 12, 14), header)


# OME-Zarr


SPACE = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]


def put_image(group, version):
    array = group.create_array("0", shape=(5, 12, 14), dtype="u2")
    array[...] = 1
    scales = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.3, 0.2, 0.1]}]}]
    content = {"multiscales": [{"version": version, "axes": SPACE, "datasets": scales}]}
    group.attrs.update(content if version == "0.4" else {"ome": {"version": version, **content}})


def zarr_with_labels(path, *labels, version="0.4", listed=True):
    root = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    put_image(root, version)
    group = root.create_group("labels")
    if listed:
        group.attrs.update({"labels": list(labels)} if version == "0.4" else {"ome": {"labels": list(labels)}})
    for name in labels:
        put_image(group.create_group(name), version)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("listed", [True, False])
def test_the_only_labels_beside_an_image_are_its_mask(tmp_path, version, listed):
    path = zarr_with_labels(tmp_path / "a.ome.zarr", "nuclei", version=version, listed=listed)
    assert (chosen(path, "image"), chosen(path, "mask")) == ("", "labels/nuclei")


def test_several_labels_are_refused_with_their_names(tmp_path):
    path = zarr_with_labels(tmp_path / "a.ome.zarr", "cells", "nuclei")
    with pytest.raises(DataError, match=r"2 label images: 'labels/cells', 'labels/nuclei'; .*--msk_key.*mask_key"):
        read_header(path, "mask")


@pytest.mark.parametrize("key", [":labels/nuclei", "/labels/nuclei", ":nuclei", ":/labels/nuclei/", "/labels/nuclei/0"])
def test_labels_can_be_named(tmp_path, key):
    path = zarr_with_labels(tmp_path / "a.ome.zarr", "cells", "nuclei")
    assert chosen(f"{path}{key}", "image") == "labels/nuclei"
    assert volume_name(f"{path}{key}") == "a"


def test_labels_that_are_not_there_are_refused_with_those_that_are(tmp_path):
    path = zarr_with_labels(tmp_path / "a.ome.zarr", "cells", "nuclei")
    with pytest.raises(DataError, match=r"no image 'nuclej' in it; it holds 'labels/cells', 'labels/nuclei'"):
        read_header(f"{path}:nuclej", "mask")


def test_labels_of_a_converted_image_are_found(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    zarr_with_labels(tmp_path / "a.zarr" / "0", "nuclei")
    assert chosen(tmp_path / "a.zarr", "mask") == "0/labels/nuclei"


def test_one_of_several_converted_images_can_be_named(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for name in "01":
        zarr_with_labels(tmp_path / "a.zarr" / name, "nuclei")
    with pytest.raises(DataError, match=r"several images; name one of them .*FILE:0"):
        read_header(tmp_path / "a.zarr")
    assert chosen(f"{tmp_path}/a.zarr:1", "image") == "1"
    assert chosen(f"{tmp_path}/a.zarr:1/labels/nuclei", "mask") == "1/labels/nuclei"


@pytest.mark.parametrize(("kind", "says"), [("array", "Zarr array of shape"), ("group", "only arrays 'raw'")])
def test_a_zarr_without_metadata_says_what_it_is(tmp_path, kind, says):
    if kind == "array":
        zarr.save(str(tmp_path / "a.zarr"), np.zeros((5, 12, 14)))
    else:
        zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("raw", data=np.zeros((5, 12, 14)))
    with pytest.raises(DataError, match=rf"a.zarr.*{says}.*save it as OME-Zarr"):
        read_header(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_of_an_image_are_told(tmp_path, version):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    put_image(group, "0.4" if version == 2 else "0.5")
    folder = tmp_path / "a.zarr" / "0"
    assert read_header(tmp_path / "a.zarr").remarks == ()
    chunk = next(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "zarr")))
    chunk.unlink()
    (remark,) = read_header(tmp_path / "a.zarr").remarks
    assert (remark.kind, remark.text) == ("warning", "1 of 1 chunks are not there and count as 0: is the copy whole?")
    assert read_header(tmp_path / "a.zarr", "mask").remarks == ()  # writers leave out chunks of background


def test_shards_are_counted_as_files(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    put_image(group, "0.5")
    del group["0"]
    array = group.create_array("0", shape=(4, 12, 14), dtype="u2", chunks=(1, 12, 14), shards=(2, 12, 14))
    array[...] = 1
    assert read_header(tmp_path / "a.zarr").remarks == ()
    (tmp_path / "a.zarr" / "0" / "c" / "1" / "0" / "0").unlink()
    assert read_header(tmp_path / "a.zarr").remarks[0].text.startswith("1 of 2 chunks are not there")


def test_every_chunk_that_is_written_is_a_file(tmp_path, header):
    write_volume(tmp_path / "a.zarr", np.zeros((1, 5, 12, 14), np.uint8), header)
    assert read_header(tmp_path / "a.zarr").remarks == ()


# TIFF


def write_series(path, *arrays, **options):
    with tifffile.TiffWriter(path) as file:
        for array in arrays:
            file.write(array, photometric="minisblack", **options)


@pytest.mark.parametrize("how", ["loop", "zlib", "append"])
def test_a_stack_written_page_by_page_is_a_stack(tmp_path, make, how):
    array = make(5, 12, 14)
    if how == "append":
        for plane in array:
            tifffile.imwrite(tmp_path / "a.tif", plane, append=True)
    else:
        write_series(tmp_path / "a.tif", *array, compression="zlib" if how == "zlib" else None)
    volume = read_header(tmp_path / "a.tif")
    assert (volume.shape, volume.axes, volume.remarks[0].kind) == ((1, 5, 12, 14), "ZYX", "note")


def test_a_stack_written_page_by_page_has_its_voxels(tmp_path, make):
    from biom3d.io import read_volume

    array = make(5, 12, 14)
    write_series(tmp_path / "a.tif", *array)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[0], array)


def test_a_smaller_field_is_told_and_can_be_named(tmp_path, make):
    write_series(tmp_path / "a.ome.tif", make(20, 12, 14), make(5, 12, 14), metadata={"axes": "ZYX"})
    header = read_header(tmp_path / "a.ome.tif")
    assert header.shape == (1, 20, 12, 14)
    assert (header.remarks[0].kind, "(5 x 12 x 14, uint16)" in header.remarks[0].text) == ("warning", True)
    assert read_header(f"{tmp_path}/a.ome.tif:1").shape == (1, 5, 12, 14)


def test_a_flat_preview_is_left_out_without_a_word(tmp_path, make):
    write_series(tmp_path / "a.tif", make(6, 7), make(5, 12, 14))
    assert read_header(tmp_path / "a.tif").remarks == ()


# What is passed over


def test_other_images_and_folders_are_told(tmp_path):
    for name in ("a.tif", "B.TIF", "c.czi", "d.png", "README.md", "list.csv", ".hidden.czi"):
        (tmp_path / name).touch()
    (tmp_path / "day2").mkdir()
    told = passed_over(tmp_path)
    assert told is not None
    assert "2 files and 1 folder passed over: 'c.czi', 'd.png', 'day2'; read are" in told


def test_a_folder_of_volumes_alone_needs_no_word(tmp_path):
    for name in ("a.tif", "notes.txt"):
        (tmp_path / name).touch()
    assert passed_over(tmp_path) is None
