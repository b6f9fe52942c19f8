import ast
import os
from pathlib import Path

import numpy as np
import pytest
from biom3d_workflow import dicom, volumes

from biom3d.data.pairing import pair_volumes
from biom3d.io import SUFFIXES, dicom_files, list_volumes
from tests.dicom_files import write_series


@pytest.fixture(autouse=True)
def fresh_listing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    volumes.forget()
    Path("d").mkdir()


def test_suffixes_are_those_of_the_engine():
    assert set(volumes.SUFFIXES) == set(SUFFIXES)


def test_the_listing_is_that_of_the_engine():
    for name in ("b.tif", "a.NII.GZ", ".hidden.tif", "notes.txt", "c.npy"):
        Path("d", name).touch()
    Path("d/z.ome.zarr").mkdir()
    Path("d/folder.tif").mkdir()
    assert list(volumes.list_volumes("d")) == [str(path) for path in list_volumes("d")]


def test_images_teach_where_they_have_a_mask_as_the_engine_pairs_them():
    Path("m").mkdir()
    for name in ("d/a.tif", "d/b.v1.nii.gz", "d/c.tif", "m/a.npy", "m/b.v1.ome.tif"):
        Path(name).touch()
    pairs = [str(case.image) for case in pair_volumes(["d"], ["m"]).cases]
    assert list(volumes.list_teaching("d", "m")) == pairs == ["d/a.tif", "d/b.v1.nii.gz"]
    assert volumes.list_teaching("d/c.tif", "m/a.npy") == ("d/c.tif",)


def test_a_zarr_without_mask_does_not_change_the_stamp_of_a_training():
    for name in ("a", "b"):
        Path(f"d/{name}.zarr/0").mkdir(parents=True)
    teaching = ["d/a.zarr"]
    before = volumes.stamp("d", only=teaching)
    os.utime("d/b.zarr/0", ns=(1, 1))
    volumes.forget()
    assert volumes.stamp("d", only=teaching) == before != volumes.stamp("d")


def test_a_single_file_is_its_own_list():
    assert volumes.list_volumes("x/im.tif") == ("x/im.tif",)


@pytest.mark.parametrize("name", ["a b", "[1]", "it's", 'a"b', "ü", "-x", "$HOME", "a;b", "*", "#1"])
def test_odd_names_are_watched_one_by_one(name):
    Path("d", f"{name}.tif").touch()
    assert (volumes.inputs("d"), volumes.stamp("d")) == ([f"d/{name}.tif"], "")


@pytest.mark.parametrize("name", ["{dataset}", "{x", "<results>", "a\nb", "\udcff"])
def test_names_that_snakemake_cannot_hold_are_watched_by_their_folder(name):
    Path("d", "a.tif").touch()
    Path("d", f"{name}.tif").touch()
    assert volumes.inputs("d") == ["d", "d/a.tif"]


def test_a_change_of_a_file_that_snakemake_cannot_name_changes_the_stamp():
    Path("d/{x}.tif").write_text("1")
    before = volumes.stamp("d")
    Path("d/{x}.tif").write_text("22")
    volumes.forget()
    assert before != volumes.stamp("d") != ""


def test_a_chunk_replaced_deep_in_a_zarr_changes_the_stamp():
    chunk = Path("d/z.zarr/0/c/1")
    chunk.parent.mkdir(parents=True)
    chunk.touch()
    before = volumes.stamp("d")
    os.utime(chunk.parent, ns=(1, 1))  # as replacing the chunk by renaming does
    volumes.forget()
    assert before != volumes.stamp("d")


def test_a_link_that_leads_nowhere_is_not_watched():
    Path("d/a.tif").touch()
    Path("d/b.tif").symlink_to("nowhere")
    assert (volumes.inputs("d"), volumes.find_unreadable("d")) == (["d/a.tif"], ["d/b.tif"])


def test_dicom_series_are_listed_as_the_engine_does():
    array = np.zeros((2, 4, 4), np.int16)
    write_series(Path("d/p1"), array)
    for path in Path("d/p1").iterdir():
        path.rename(path.with_suffix(""))
    write_series(Path("d"), array, uid="1.2.3")
    for name in ("b.tif", "notes.txt", "nothing"):
        Path("d", name).touch()
    Path("d/empty").mkdir()
    for folder in ("d", "d/p1", "d/empty"):
        found = list(volumes.list_volumes(folder))
        assert found == ([str(path) for path in list_volumes(folder)] if folder != "d/empty" else [])
    assert volumes.list_volumes("d") == ("d/b.tif", "d/p1")
    assert volumes.list_volumes("d/IM000.dcm") == ()
    assert volumes.is_slice("d/IM000.dcm")


def test_a_changed_slice_changes_the_stamp():
    write_series(Path("d/p1"), np.zeros((2, 4, 4), np.int16))
    before = volumes.stamp("d")
    os.utime("d/p1/IM000.dcm", ns=(1, 1))
    volumes.forget()
    assert (volumes.inputs("d"), before == volumes.stamp("d")) == (["d/p1"], False)


def test_dicom_is_told_as_the_engine_tells_it():
    def functions(path):
        return {node.name: ast.unparse(node) for node in ast.parse(path.read_text()).body if hasattr(node, "name")}

    ours, theirs = functions(Path(dicom.__file__)), functions(Path(dicom_files.__file__))
    same = ("kind_of", "is_volume_file", "is_series", "_may_be")
    assert [ours[name] for name in same] == [theirs[name] for name in same]
    assert (dicom._VOLUMES, dicom._DIRECTORY) == (dicom_files._VOLUMES, dicom_files._DIRECTORY)
