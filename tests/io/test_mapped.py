import numpy as np

from biom3d.io.mapped import forget_pages


def test_values_written_to_a_map_outlive_its_pages(tmp_path):
    labels = np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.uint8, (4, 64, 64))
    labels[2] = 7
    forget_pages(labels)
    assert (labels[2] == 7).all()
    assert not labels[1].any()


def test_an_array_in_memory_is_left_alone():
    array = np.arange(5)
    forget_pages(array[1:])
    assert array.tolist() == [0, 1, 2, 3, 4]
