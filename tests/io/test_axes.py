import numpy as np
import pytest

from biom3d.errors import DataError
from biom3d.io.axes import from_czyx, guess_axes, plan_layout, to_czyx


@pytest.mark.parametrize(
    ("shape", "axes", "roles"),
    [
        ((12, 14), "YX", "YX"),
        ((5, 12, 14), "QYX", "ZYX"),
        ((5, 12, 14), "IYX", "ZYX"),
        ((1, 5, 12, 14), "QQYX", "CZYX"),
        ((1, 1, 12, 14), "QQYX", "CZYX"),
        ((1, 1, 5, 12, 14), "QQQYX", "-CZYX"),
        ((5, 12, 14, 3), "IYXS", "ZYXC"),
        ((3, 12, 14), "SYX", "CYX"),
        ((5, 2, 12, 14), "ZCYX", "ZCYX"),
        ((5, 2, 12, 14), "ZQYX", "ZCYX"),
        ((2, 5, 12, 14), "CQYX", "CZYX"),
        ((1, 5, 12, 14), "TZYX", "-ZYX"),
        ((1, 2, 5, 12, 14), "TCZYX", "-CZYX"),
        ((5, 1, 12, 14, 3), "ZCYXS", "Z-YXC"),
        ((1, 5, 12, 14), "HZYX", "-ZYX"),
    ],
)
def test_each_dimension_gets_its_role(shape, axes, roles):
    assert plan_layout(shape, axes).roles == roles


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 12, 14), "TYX"),
        ((2, 12, 14, 3), "CYXS"),
        ((4, 12, 14), "HYX"),
        ((5, 2, 12, 14), "QQYX"),
        ((2, 3, 5, 12, 14), "QQQYX"),
        ((12, 14), "ZY"),
        ((2, 12, 12, 14), "ZZYX"),
        ((0, 12, 14), "ZYX"),
    ],
)
def test_axes_that_cannot_be_known_are_refused(shape, axes):
    with pytest.raises(DataError):
        plan_layout(shape, axes)


@pytest.mark.parametrize("shape", [(2, 2, 12, 14), (3, 12, 14, 3), (12, 2, 14, 15)])
def test_a_tie_for_the_smallest_axis_is_not_guessed(shape):
    with pytest.raises(DataError, match="cannot tell"):
        guess_axes(shape)


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX", "ZYXC", "XYZC", "CYXZ"])
def test_there_and_back_is_the_same(axes):
    array = np.arange(120).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(to_czyx(from_czyx(array, axes), axes), array)


def test_bringing_axes_in_order_copies_nothing():
    array = np.zeros((3, 2, 4, 5))
    assert np.shares_memory(to_czyx(array, "ZCYX"), array)
