import numpy as np
import pytest

from biom3d.data.identity import identify_array, identify_file
from biom3d.data.learned import (
    LearnedVolume,
    TrainingSet,
    describes,
    of_run,
    read_training_set,
    write_training_set,
)
from biom3d.errors import DataError
from biom3d.io import Header, write_volume

ARRAY = np.random.default_rng(0).integers(0, 200, (2, 5, 6, 7)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".npy", ".ome.tif", ".h5", ".ome.zarr"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_volume_is_the_same_in_every_format_and_type(tmp_path, suffix, dtype):
    header = Header(ARRAY.shape, np.dtype(dtype), "CZYX", (1, 1, 1))
    write_volume(tmp_path / f"a{suffix}", ARRAY.astype(dtype), header)
    assert identify_file(tmp_path / f"a{suffix}") == identify_array(ARRAY)


def test_one_other_voxel_is_another_volume():
    other = ARRAY.copy()
    other[1, 4, 5, 6] += 1
    assert identify_array(other) != identify_array(ARRAY)


def test_the_same_voxels_in_another_shape_are_another_volume():
    assert identify_array(ARRAY.reshape(2, 5, 7, 6)) != identify_array(ARRAY)


A, B = LearnedVolume("a", "A", (1, 4, 4, 4), (0,)), LearnedVolume("b", "B", (1, 4, 4, 4), (1,))


def test_a_run_learned_from_all_but_its_own_fold():
    run = TrainingSet((A, B), fold=0)
    assert (run.learned("A"), run.learned("B"), run.learned("C")) == (False, True, False)
    assert (run.knows("A"), run.knows("C")) == (True, False)


def test_a_copy_in_another_fold_was_learned_from():
    assert TrainingSet((A, LearnedVolume("copy", "A", A.shape, (1,))), fold=0).learned("A")


def test_a_fine_tuned_run_learned_all_that_its_start_knew():
    run = of_run(TrainingSet((B,)), 1, TrainingSet((A,), fold=0), is_fine_tuned=True)
    assert (run.learned("A"), run.learned("B"), run.is_complete) == (True, False, True)
    assert of_run(TrainingSet((B,)), 1, None, is_fine_tuned=True).is_complete is False


def test_a_record_survives_the_file(tmp_path):
    record = TrainingSet((A, B), {"C": (1, 2, 3, 4)}, fold=1)
    write_training_set(tmp_path / "r.json", record)
    assert read_training_set(tmp_path / "r.json") == record
    assert read_training_set(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"volumes": [{"name": "a"}]}', '{"volumes": 3}'])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=r"r.json' is damaged"):
        read_training_set(tmp_path / "r.json")


def test_a_record_of_other_files_is_not_believed():
    assert describes(TrainingSet((A, B)), ["a.npy", "b_block1.npy", "b_block2.npy"])
    assert not describes(TrainingSet((A, B)), ["a.npy", "c.npy"])
