import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from biom3d.config import PlanRequest
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import Header, LazyVolume
from biom3d.memory import Limit
from biom3d.models import UNet
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import make_plan
from biom3d.prediction import room, sliding
from biom3d.prediction.biom3d import Scheme, padded_axis, predict_like_biom3d
from biom3d.prediction.room import Room, fitting_tiles, measure_room, tile_cost, window_bytes
from biom3d.prediction.sliding import Predictor, predict_labels
from biom3d.prediction.windows import choose_tiles, count_windows, cut_axis, plan_axis, whole_plane

TIGHT = 600_000  # bytes of slabs: some tiles of the planes below


def case(shape, channels=1, classes=3, patch=(8, 16, 16)):
    """Return an untrained network, whose scores are close to each other, and a volume of noise."""
    torch.manual_seed(0)
    patch = (1, *patch[1:]) if shape[0] == 1 else patch
    facts = make_fingerprint([(channels, *shape)] * 2, [(1.0, 1.0, 1.0)] * 2, is_2d=shape[0] == 1)
    request = PlanRequest(patch_size=patch, num_classes=classes, width=4)
    plan = make_plan("m", facts, request, Machine("cpu", 1.0, False))
    network = UNet(channels, classes + 1, plan.num_pools, 4).eval()
    array = np.random.default_rng(0).integers(0, 500, (channels, *shape)).astype(np.uint16)
    header = Header(array.shape, array.dtype, "CZYX" if shape[0] > 1 else "CYX", (1.0, 1.0, 1.0))
    volume = LazyVolume(header, lambda z0, z1: array[:, z0:z1].copy())
    return Predictor(plan, [network], torch.device("cpu")), volume


@pytest.fixture
def tight(monkeypatch, tmp_path):
    """Give a prediction hardly any room."""
    monkeypatch.setattr(sliding, "COPY_BYTES", 10_000)
    monkeypatch.setattr(room, "COPY_BYTES", 10_000)
    monkeypatch.setattr(room, "PATIENCE", 9)
    return Room(TIGHT, 1e12, 0, Limit(10**12, "this machine has"), tmp_path)


@pytest.mark.parametrize(
    ("shape", "channels", "spacing", "scheme", "modest"),
    [
        ((12, 50, 70), 1, (1.0, 1.0, 1.0), None, 4.5e5),
        ((12, 41, 57), 2, (0.7, 1.3, 0.8), None, 6.5e5),
        ((12, 50, 57), 1, (1.7, 0.6, 1.5), None, 6.5e5),
        ((5, 80, 10), 1, (1.0, 1.0, 1.0), None, 2.0e5),
        ((1, 90, 150), 1, (1.0, 1.0, 1.0), None, 3.0e5),
        ((12, 50, 70), 2, (1.0, 1.0, 1.0), Scheme(None), 9.0e5),
        ((12, 40, 50), 1, (1.0, 1.0, 1.0), Scheme((0.8, 1.0, 0.9)), 2.7e6),
    ],
)
def test_tiles_change_no_voxel(tight, shape, channels, spacing, scheme, modest):
    predictor, volume = case(shape, channels)
    labels = [np.zeros(shape, np.uint8) for _ in range(2)]
    windows: list[int] = []
    for out, limits in zip(labels, (room.UNLIMITED, dataclasses.replace(tight, modest=modest)), strict=True):
        calls = []
        with predictor.networks[0].register_forward_hook(lambda *_, calls=calls: calls.append(1)):
            if scheme is None:
                predict_labels(predictor, volume, spacing, out, Reporter("pred"), limits)
            else:
                predict_like_biom3d(predictor, scheme, volume, spacing, out, Reporter("pred"), limits)
        windows.append(len(calls))
    assert windows[1] > windows[0]  # it was cut
    assert len(np.unique(labels[0])) > 1
    assert np.array_equal(*labels)


def test_a_plane_in_tiles_is_read_once_from_its_file(tight):
    predictor, volume = case((12, 50, 70))
    reads = []
    counting = LazyVolume(volume.header, lambda z0, z1: reads.append((z0, z1)) or volume.read(z0, z1))
    predict_labels(predictor, counting, None, np.zeros((12, 50, 70), np.uint8), Reporter("pred"), tight)
    assert sum(z1 - z0 for z0, z1 in reads) == 12
    assert list(Path(tight.folder).iterdir()) == []


@pytest.mark.parametrize("make", [plan_axis, padded_axis])
@pytest.mark.parametrize(("length", "out"), [(100, 100), (100, 63), (100, 151), (9, 9), (1, 1)])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_spans_hold_each_voxel_once_and_all_windows_that_reach_it(make, length, out, parts):
    axis = make(length, 16)
    spans = cut_axis(axis, out, min(parts, len(axis.starts)))
    assert [voxel for span in spans for voxel in range(*span.out)] == list(range(out))
    for span in spans:
        begin, end = (n + axis.before for n in span.need)
        assert span.starts == [s for s in axis.starts if s < end and s + 16 > begin]
        assert span.held[0] <= begin < end <= span.held[1]


def test_the_fewest_windows_that_fit_are_chosen():
    axes, shape = [plan_axis(n, 16) for n in (16, 200, 400)], (16, 200, 400)
    tiles = choose_tiles(axes, shape, lambda held, out: held, 30_000)
    assert max((y.held[1] - y.held[0]) * (x.held[1] - x.held[0]) for y, x in tiles) <= 30_000
    whole = count_windows([whole_plane(axes, shape)])
    assert whole < count_windows(tiles) < 1.1 * whole


def test_what_cannot_be_done_says_what_it_needs_and_what_there_is():
    axes, shape = [plan_axis(n, 16) for n in (16, 200, 400)], (16, 200, 400)
    allowed = Room(1e6, 1e6, 2e9, Limit(2_100_000_000, "--memory_limit allows"))
    with pytest.raises(DataError, match=r"needs 2\.\d GB of memory, --memory_limit allows 2.1 GB; use a machine with"):
        fitting_tiles(axes, shape, tile_cost(axes, shape, 1, 300), allowed)


def test_rather_than_three_times_the_windows_more_memory_is_taken():
    axes, shape = [plan_axis(n, 16) for n in (16, 200, 400)], (16, 200, 400)
    cost = tile_cost(axes, shape, 1, 300)
    tiles = fitting_tiles(axes, shape, cost, Room(1e8, 1e12))
    assert count_windows(tiles) <= 2.5 * count_windows([whole_plane(axes, shape)])


@pytest.mark.parametrize(
    ("shape", "patch", "width", "classes"),
    [
        ((64, 6000, 6000), (64, 128, 128), 32, 2),
        ((128, 6000, 6000), (128, 128, 128), 32, 2),
        ((1, 20_000, 20_000), (1, 512, 512), 32, 2),
        ((24, 1024, 1024), (24, 24, 24), 4, 300),
        ((64, 1024, 1024), (32, 64, 64), 32, 300),
    ],
)
def test_a_prediction_is_reckoned_to_take_less_than_3_gb(shape, patch, width, classes):
    header = Header((1, *shape), np.dtype(np.uint16), "ZYX", None)
    held = 4e8 + window_bytes(patch, width, classes + 1, 2)
    allowed = measure_room(Limit(10**11, "this machine has"), header, held, Path(), False)
    axes = [plan_axis(n, p) for n, p in zip(shape, patch, strict=True)]
    cost = tile_cost(axes, shape, 1, classes + 1)
    tiles = fitting_tiles(axes, shape, cost, allowed)
    held = max((y.held[1] - y.held[0]) * (x.held[1] - x.held[0]) for y, x in tiles)
    assert allowed.besides + cost(held, held) < 3.3e9
