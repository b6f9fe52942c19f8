import json

import h5py
import numpy as np
import pytest

from biom3d.errors import DataError
from biom3d.io import read_header, read_volume, write_labels, write_volume


def save(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file[name] = array


@pytest.mark.parametrize("name", ["anything", "exported_data", "group/inner"])
def test_the_only_data_set_is_read(tmp_path, make, name):
    save(tmp_path / "a.h5", **{name: make(5, 12, 14)})
    assert read_header(tmp_path / "a.h5").extra["dataset"] == name


@pytest.mark.parametrize("name", ["raw", "volume"])
def test_a_usual_name_is_preferred(tmp_path, make, name):
    save(tmp_path / "a.h5", other=make(9, 12, 14), **{name: make(5, 12, 14)})
    assert read_header(tmp_path / "a.h5").extra["dataset"] == name


def test_one_that_is_far_larger_than_the_others_is_read(tmp_path, make):
    save(tmp_path / "a.h5", a=make(4, 3, 7), b=make(5, 12, 14), table=make(9000))
    assert read_header(tmp_path / "a.h5").array == "b"


def test_two_that_may_be_meant_are_refused_with_the_list(tmp_path, make):
    save(tmp_path / "a.h5", a=make(4, 12, 14), b=make(5, 12, 14), table=make(9000))
    with pytest.raises(DataError, match=r"a.h5.*does not say which.*'a' \(4 x 12 x 14, uint16\), 'b'.*--img_key"):
        read_header(tmp_path / "a.h5")


def test_a_file_without_volume_is_refused(tmp_path, make):
    save(tmp_path / "a.h5", table=make(9))
    with pytest.raises(DataError, match=r"a.h5.*no data set of 2 to 5 dimensions"):
        read_header(tmp_path / "a.h5")


@pytest.mark.parametrize("sizes", [(0.3, 0.2, 0.1), (1.0, 0.3, 0.2, 0.1)])
def test_element_size_gives_the_voxel_size(tmp_path, make, sizes):
    save(tmp_path / "a.h5", raw=make(2, 5, 12, 14))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"].attrs["element_size_um"] = sizes
    assert read_header(tmp_path / "a.h5").spacing_um == (0.3, 0.2, 0.1)


def test_ilastik_names_its_axes(tmp_path, make):
    save(tmp_path / "a.h5", exported_data=make(1, 5, 12, 14, 2))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        tags = {"axes": [{"key": key, "typeFlags": 2, "resolution": 0, "description": ""} for key in "tzyxc"]}
        file["exported_data"].attrs["axistags"] = json.dumps(tags)
    header = read_header(tmp_path / "a.h5")
    assert (header.axes, header.shape) == ("ZYXC", (2, 5, 12, 14))


def test_dimension_labels_name_the_axes(tmp_path, make):
    save(tmp_path / "a.h5", raw=make(5, 2, 12, 14))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for dimension, label in zip(file["raw"].dims, "zcyx", strict=True):
            dimension.label = label
    assert read_header(tmp_path / "a.h5").axes == "ZCYX"


def test_images_are_written_as_raw_and_labels_as_label(tmp_path, make, header):
    write_volume(tmp_path / "a.h5", make(1, 5, 12, 14), header)
    write_labels(tmp_path / "b.h5", make(5, 12, 14), read_header(tmp_path / "a.h5"))
    found = [read_header(tmp_path / name).extra["dataset"] for name in ("a.h5", "b.h5")]
    assert found == ["raw", "label"]


def test_a_link_to_another_file_is_not_followed(tmp_path, make):
    save(tmp_path / "other.h5", raw=make(9, 12, 14))
    save(tmp_path / "a.h5", small=make(5, 12, 14))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"] = h5py.ExternalLink("other.h5", "raw")
    assert read_volume(tmp_path / "a.h5").array.shape == (1, 5, 12, 14)


def test_big_endian_comes_as_native(tmp_path, make):
    array = make(5, 12, 14)
    save(tmp_path / "a.h5", raw=array.astype(">u2"))
    back = read_volume(tmp_path / "a.h5").array
    np.testing.assert_array_equal(back[0], array)
    assert back.dtype.isnative
