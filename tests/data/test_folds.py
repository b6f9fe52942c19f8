import pytest
from hypothesis import given
from hypothesis import strategies as st

from biom3d.data.folds import assign_folds, read_split, write_folds
from biom3d.errors import DataError

NAMES = [f"v{i}.npy" for i in range(7)]


@given(st.integers(2, 7), st.integers(0, 50))
def test_folds_are_even_and_none_is_empty(folds, seed):
    sizes = [list(assign_folds(NAMES, folds, seed).values()).count(k) for k in range(folds)]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_the_same_seed_gives_the_same_folds():
    assert assign_folds(NAMES, 3, 1) == assign_folds(NAMES, 3, 1)


def test_every_volume_is_validated_once(tmp_path):
    write_folds(tmp_path / "folds.csv", assign_folds(NAMES, 3, 0))
    validated = [name for k in range(3) for name in read_split(tmp_path / "folds.csv", k)[1]]
    assert sorted(validated) == NAMES


def test_a_single_model_keeps_a_fifth_for_validation(tmp_path):
    write_folds(tmp_path / "folds.csv", assign_folds([f"{i}.npy" for i in range(10)], 1, 0))
    training, validation = read_split(tmp_path / "folds.csv", 0)
    assert (len(training), len(validation)) == (8, 2)


def test_the_table_has_the_columns_of_biom3d(tmp_path):
    write_folds(tmp_path / "folds.csv", {"b.npy": 1, "a.npy": 0})
    assert (tmp_path / "folds.csv").read_text() == "filename,hold_out,fold\na.npy,0,0\nb.npy,0,1\n"


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    write_folds(tmp_path / "folds.csv", assign_folds(NAMES, 3, 0))
    with pytest.raises(DataError, match=r"no volumes for fold 5; its folds are \[0, 1, 2\]"):
        read_split(tmp_path / "folds.csv", 5)


def test_a_missing_table_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="run preprocess first"):
        read_split(tmp_path / "folds.csv", 0)
