import subprocess
import sys

import numpy as np
import pytest

from biom3d.errors import DataError
from biom3d.io import SUFFIXES, list_volumes, read_volume, volume_name, write_volume


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.v1.tif", "a.v1"), ("x.ome.tif", "x"), ("x.OME.TIFF", "x"), ("x.nii.gz", "x"), ("d/x.ome.zarr", "x")],
)
def test_the_name_of_a_volume_has_no_suffix(file, name):
    assert volume_name(file) == name


def test_every_suffix_is_known_by_its_own_name():
    assert [volume_name(f"a{suffix}") for suffix in SUFFIXES] == ["a"] * len(SUFFIXES)


def test_volumes_are_listed_sorted_and_others_passed_over(tmp_path, make, header):
    for name in ("b.tif", "a.NPY", "._a.tif", ".tmp-1-c.tif", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    write_volume(tmp_path / "c.zarr", make(1, 5, 12, 14), header)
    (tmp_path / "folder.tif").mkdir()
    assert [path.name for path in list_volumes(tmp_path)] == ["a.NPY", "b.tif", "c.zarr"]


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_single_volume_is_a_list_of_one(tmp_path, make, header, name):
    write_volume(tmp_path / name, make(1, 5, 12, 14), header)
    assert list_volumes(tmp_path / name) == [tmp_path / name]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone': no such file or folder; check the path"):
        list_volumes(tmp_path / "gone")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no image found there, nothing; wanted files that end in .*\.tif"):
        list_volumes(tmp_path)


def test_a_folder_of_other_files_is_refused_and_says_what_it_holds(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"no image found there, only 'a.png'; wanted"):
        list_volumes(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.tif").touch()
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(DataError, match=r"'a.nii.gz' and 'a.tif' would both be called 'a'; rename"):
        list_volumes(tmp_path)


def test_a_folder_without_permission_is_refused(tmp_path, unprivileged):
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "a.tif").touch()
    (tmp_path / "d").chmod(0)
    with unprivileged(), pytest.raises(DataError, match="no permission to read it"):
        list_volumes(tmp_path / "d")
    (tmp_path / "d").chmod(0o700)


@pytest.mark.parametrize("call", [list_volumes, read_volume])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, call):
    (tmp_path / "a.czi").touch()
    with pytest.raises(DataError, match=r"a.czi': not a known image format; wanted .*\.tif"):
        call(tmp_path / "a.czi")


def test_an_unknown_suffix_cannot_be_written(tmp_path, header):
    with pytest.raises(DataError, match=r"a.png': not a known image format"):
        write_volume(tmp_path / "a.png", np.zeros((1, 5, 12, 14)), header)


def test_importing_io_loads_no_format():
    code = "import sys, biom3d.io; print([m for m in ('tifffile', 'zarr', 'h5py', 'nibabel') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
