"""Synthetic cells: what `biom3d.synth` promises to tests and tutorials that build on it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biom3d.errors import ConfigError
from biom3d.io import read_header, read_labels, read_volume
from biom3d.synth import FORMATS, main, make_cells

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 0.3, 0.3), (0.3, 1.0, 1.0)]


def cells(shape=(16, 32, 32), count=4, classes=2, seed=0, **options):
    return make_cells(shape, count, classes, np.random.default_rng(seed), **options)


def synth(folder: Path, *options: str) -> Path:
    assert main([str(folder), "--shape", "8", "16", "16", "--cells", "2", "--count", "2", *options]) == 0
    return folder


def test_the_same_seed_makes_the_same_volume():
    for first, second in zip(cells(seed=7), cells(seed=7), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_makes_another_volume():
    assert not np.array_equal(cells(seed=7)[0], cells(seed=8)[0])


@given(seed=st.integers(0, 10_000), spacing=st.sampled_from(SPACINGS))
@settings(max_examples=30, deadline=None)
def test_cells_never_touch_even_by_a_corner(seed, spacing):
    labels = cells((24, 32, 40), 5, seed=seed, spacing_um=spacing)[1]
    assert ndimage.label(labels > 0, np.ones((3, 3, 3)))[1] == 5


@given(seed=st.integers(0, 10_000), spacing=st.sampled_from(SPACINGS))
@settings(max_examples=30, deadline=None)
def test_every_cell_has_a_nucleus_inside(seed, spacing):
    _, labels, instances = cells((24, 32, 40), 5, seed=seed, spacing_um=spacing)
    assert set(np.unique(instances[labels == 2])) == {1, 2, 3, 4, 5}


def test_instances_cover_exactly_the_labelled_voxels():
    _, labels, instances = cells()
    np.testing.assert_array_equal(instances > 0, labels > 0)


def test_one_class_draws_no_nuclei():
    assert set(np.unique(cells(classes=1)[1])) == {0, 1}


def test_a_flat_shape_draws_discs():
    image, labels, _ = cells((1, 64, 64), 6)
    assert image.shape == labels.shape == (1, 64, 64)
    assert ndimage.label(labels[0] > 0, np.ones((3, 3)))[1] == 6


@pytest.mark.parametrize("snr", [2.0, 5.0, 10.0])
def test_the_noise_in_a_cell_is_as_asked(snr):
    image, labels, _ = cells((48, 48, 48), 1, 1, seed=2, snr=snr)
    inside = ndimage.binary_erosion(labels, iterations=4)
    signal = image[inside].mean() - image[ndimage.binary_dilation(labels, iterations=5) == 0].mean()
    assert signal / image[inside].std() == pytest.approx(snr, rel=0.25)


def test_too_many_cells_say_how_many_found_room():
    with pytest.raises(ConfigError, match=r"only \d+ of 500 cells found room in \(16, 16, 16\).*--shape"):
        cells((16, 16, 16), 500)


@pytest.mark.parametrize(
    "wrong", [{"shape": (2, 32, 32)}, {"shape": (16, 4, 32)}, {"count": 0}, {"classes": 3}, {"snr": 0.0}]
)
def test_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError):
        cells(**wrong)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_exact_truth(tmp_path, suffix):
    folder = synth(tmp_path, "--format", suffix, "--seed", "3")
    _, labels, _ = make_cells((8, 16, 16), 2, 1, np.random.default_rng([3, 1]), spacing_um=(0.3,) * 3)
    np.testing.assert_array_equal(read_labels(folder / "masks" / f"cells_001.{suffix}").array[0], labels)


def test_anisotropy_is_written_as_spacing(tmp_path):
    folder = synth(tmp_path, "--anisotropy", "3")
    assert read_header(folder / "images/cells_000.tif").spacing_um == pytest.approx((0.9, 0.3, 0.3))


def test_a_flat_shape_writes_2d_images(tmp_path):
    assert main([str(tmp_path), "--shape", "1", "32", "32", "--cells", "2", "--count", "1"]) == 0
    assert read_header(tmp_path / "images/cells_000.tif").is_2d


def test_instances_are_written_when_asked(tmp_path):
    folder = synth(tmp_path, "--instances")
    assert set(np.unique(read_labels(folder / "instances/cells_000.tif").array)) == {0, 1, 2}


def test_more_volumes_leave_the_first_ones_as_they_were(tmp_path):
    few, many = synth(tmp_path / "few"), synth(tmp_path / "many", "--count", "3")
    images = [read_volume(folder / "images/cells_001.tif").array for folder in (few, many)]
    np.testing.assert_array_equal(*images)


def test_a_count_below_one_is_an_input_error(tmp_path, capsys):
    assert main([str(tmp_path / "out"), "--count", "0"]) == 2
    assert "--count 0 must be at least 1" in capsys.readouterr().err


def test_help_loads_no_numpy():
    code = "import sys, biom3d.synth as s; s.build_parser().format_help(); print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
