"""What viewers are told of label volumes, read back by other programs' libraries."""

import json

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image_label import ImageLabel

from biom3d.io import Header, read_labels, write_labels
from biom3d.io.labels import MAX_NAMED, lookup_table, values_of

SHAPE = (6, 16, 16)


def labels_of(*values, dtype=np.uint8):
    labels = np.zeros(SHAPE, dtype)
    labels.reshape(-1)[: len(values)] = values
    return labels


def header(**more):
    return Header((1, *SHAPE), np.dtype("uint16"), "ZYX", (2.0, 1.0, 1.0), **more)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int64"])
def test_values_are_found(dtype):
    assert values_of(labels_of(7, 3, 3, dtype=dtype)) == (3, 7)


def test_no_object_has_no_values():
    assert values_of(np.zeros(SHAPE, bool)) == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("values", "highest"), [((1, 2), 2), ((), 1)])
def test_imagej_shows_classes_in_colours(tmp_path, dtype, values, highest):
    write_labels(tmp_path / "a.tif", labels_of(*values, dtype=dtype), header())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        told = file.imagej_metadata
    assert (told["min"], told["max"]) == (0, highest)
    assert np.array_equal(np.reshape(told["LUTs"], (3, 256)), lookup_table())
    assert read_labels(tmp_path / "a.tif").header.spacing_um == (2.0, 1.0, 1.0)


def test_the_colours_of_imagej_differ():
    table = lookup_table().T
    assert not table[0].any()
    assert len({tuple(colour) for colour in table.tolist()}) > 200
    assert all(np.abs(table[i].astype(int) - table[i + 1]).sum() > 100 for i in range(1, 255))


def test_nifti_says_that_it_holds_labels_and_their_range(tmp_path):
    write_labels(tmp_path / "a.nii.gz", labels_of(1, 5), header())
    told = nibabel.load(tmp_path / "a.nii.gz").header
    assert (told["cal_min"], told["cal_max"], told.get_intent()[0]) == (0, 5, "label")


@pytest.mark.parametrize("values", [(1, 4), (), tuple(range(1, MAX_NAMED + 2))])
def test_a_prediction_as_ome_zarr_is_a_label_image(tmp_path, values):
    write_labels(tmp_path / "a.ome.zarr", labels_of(*values), header())
    told = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert told["multiscales"][0]["name"] == "a"
    named = told["image-label"].get("properties", [])
    assert [one["label-value"] for one in named] == (list(values) if 0 < len(values) <= MAX_NAMED else [])
    assert ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
