import dataclasses

import numpy as np
import pytest

from biom3d.config import PlanRequest
from biom3d.data import priors
from biom3d.data.patches import Case, sample_foreground, sample_labelled
from biom3d.data.priors import LARGEST, prior_shift
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import make_plan

SHAPE = (16, 64, 64)


def case_with(*boxes):
    """A volume with one object per box, of classes 1, 2, ..."""
    mask = np.zeros(SHAPE, np.uint8)
    for label, box in enumerate(boxes, start=1):
        mask[box] = label
    found = sample_foreground(mask, len(boxes), np.random.default_rng(0))
    return Case("c", np.zeros((1, *SHAPE), np.float32), mask, found)


def plan_for(case, classes=1, patch=(16, 16, 16), **changes):
    facts = make_fingerprint([(1, *case.mask.shape)] * 2, [(1.0, 1.0, 1.0)] * 2, False)
    request = PlanRequest(num_classes=classes, patch_size=patch, batch_size=2)
    return dataclasses.replace(make_plan("m", facts, request, Machine("cpu", 1.0, False)), **changes)


CORNER = np.s_[:8, :8, :8]
MIDDLE = np.s_[4:12, 24:40, 24:40]


def test_patches_that_are_the_whole_volume_shift_nothing():
    case = case_with(CORNER)
    assert prior_shift([case], plan_for(case, patch=SHAPE)) == (0.0, 0.0)


def test_the_shift_is_the_log_ratio_of_shares_in_patches_and_in_volumes():
    # all patches are the same corner of 16x48x48 voxels with the object of 512: odds of 1/71 instead of 1/127
    case = case_with(CORNER)
    shift = prior_shift([case], plan_for(case, foreground_rate=1.0, patch=(16, 48, 48)))
    assert shift == (0.0, pytest.approx(np.log(127 / 71), abs=1e-3))


def test_the_shift_has_a_limit():
    case = case_with(CORNER)  # odds of 1/7 in the patches
    assert prior_shift([case], plan_for(case, foreground_rate=1.0)) == (0.0, LARGEST)


def test_volumes_count_alike_whatever_their_size():
    large = case_with(CORNER)
    small = dataclasses.replace(
        large, mask=np.repeat(np.uint8([0, 1]), 8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    )
    assert abs(prior_shift([small, large], plan_for(large, foreground_rate=0.0))[1]) < 0.2


def test_of_large_volumes_some_planes_are_counted(monkeypatch):
    case = case_with(np.s_[:, 24:40, 24:40])
    whole = prior_shift([case], plan_for(case))
    monkeypatch.setattr(priors, "VOXELS_PER_CASE", 64 * 64 * 4)
    assert prior_shift([case], plan_for(case)) == whole


def test_of_a_large_plane_all_is_counted(monkeypatch):
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, :8, :8] = 1
    monkeypatch.setattr(priors, "VOXELS_PER_CASE", 100)
    plane = Case("p", np.zeros((1, 1, 64, 64), np.float32), mask, {})
    assert prior_shift([plane], plan_for(plane, patch=(1, 64, 64))) == (0.0, 0.0)


def test_a_damaged_mask_is_left_to_the_training_to_name():
    case = case_with(*(np.s_[:, 6 * i : 6 * i + 4, :8] for i in range(9)))
    case.mask[0, 0, 0] = 200
    assert len(prior_shift([case], plan_for(case, 9))) == 10


def test_random_patches_that_see_the_middle_too_often_shift_too():
    case = case_with(MIDDLE)
    assert prior_shift([case], plan_for(case, foreground_rate=0.0, patch=(16, 40, 40)))[1] > 0.3


def test_classes_are_shifted_each_by_itself():
    case = case_with(MIDDLE, np.s_[:, 60:, 60:])
    _, middle, border = prior_shift([case], plan_for(case, 2, patch=(16, 48, 48), foreground_rate=0.0))
    assert border < -0.1 < 0.1 < middle


def test_a_class_without_voxels_is_not_shifted():
    case = case_with(CORNER)
    assert prior_shift([case], plan_for(case, 2, foreground_rate=1.0))[2] == 0.0


def test_a_plan_can_forbid_it():
    case = case_with(CORNER)
    assert prior_shift([case], plan_for(case, foreground_rate=1.0, prior_correction=False)) == (0.0, 0.0)


def test_only_what_is_annotated_counts(monkeypatch):
    monkeypatch.setattr(priors, "VOXELS_PER_CASE", 1000)
    mask = np.full(SHAPE, -1, np.int16)
    mask[5] = 0
    mask[5, :16] = 1
    rng = np.random.default_rng(0)
    case = Case(
        "c", np.zeros((1, *SHAPE), np.float32), mask, sample_foreground(mask, 1, rng), sample_labelled(mask, rng)
    )
    whole = plan_for(case, patch=SHAPE)
    assert prior_shift([case], whole) == (0.0, 0.0)
    assert prior_shift([case], plan_for(case, foreground_rate=1.0))[1] > 0.3
