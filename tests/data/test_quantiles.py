import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from biom3d.data.quantiles import order_statistics, percentiles

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "int64", "uint64"]


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_place_of_the_sorted_numbers_is_found(dtype, data):
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else {}
    shape = st.integers(1, 40)
    numbers = data.draw(arrays(dtype, shape, elements=dict(finite) or None))
    cut = data.draw(st.integers(0, len(numbers)))
    found = order_statistics(lambda: [numbers[:cut], numbers[cut:]], range(len(numbers)))
    assert [found[rank] for rank in range(len(numbers))] == np.sort(numbers).astype(np.float64).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 100, 4097])
def test_percentiles_are_those_of_numpy_to_the_bit(dtype, size):
    numbers = np.random.default_rng(size).normal(100, 30, size).astype(dtype)
    wanted = (0, 1, 12.5, 50, 99, 100)
    found = percentiles(lambda: np.array_split(numbers, 3), size, wanted)
    np.testing.assert_array_equal(found, np.percentile(numbers.astype(np.float64), wanted))
