import numpy as np
import pytest

from biom3d.errors import DataError
from biom3d.io import read_header, read_volume, write_volume


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a.npy"):
        read_volume(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shape", [(12,), (5, 2, 12, 14), (2, 5, 3, 12, 14)])
def test_shapes_that_can_mean_anything_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(DataError, match=r"a.npy.*cannot tell which axis"):
        read_header(tmp_path / "a.npy")


def test_an_array_without_voxels_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 12, 14)))
    with pytest.raises(DataError, match=r"a.npy.*no voxels: its shape is \(0, 12, 14\)"):
        read_header(tmp_path / "a.npy")


def test_fortran_order_is_read(tmp_path, make):
    array = np.asfortranarray(make(5, 12, 14))
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.npy").array[0], array)


def test_several_arrays_under_this_name_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a.npy.*several arrays"):
        read_header(tmp_path / "a.npy")


def test_structured_values_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 12, 14), dtype=[("a", "i4")]))
    with pytest.raises(DataError, match=r"a.npy.*wanted integers or floats"):
        read_header(tmp_path / "a.npy")


def test_what_would_be_read_wrongly_is_not_written(tmp_path, make, header):
    with pytest.raises(DataError, match=r"a.npy.*would be read wrongly; write .ome.tif"):
        write_volume(tmp_path / "a.npy", make(8, 5, 12, 14), header)
