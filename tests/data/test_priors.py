import dataclasses

import numpy as np
import pytest

from biom3d.config import PlanRequest
from biom3d.data.patches import Case, sample_foreground
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
    counts = np.bincount(case.mask.ravel(), minlength=classes + 1)
    facts = make_fingerprint([(1, *SHAPE)] * 2, [(1.0, 1.0, 1.0)] * 2, False, counts)
    request = PlanRequest(num_classes=classes, patch_size=patch, batch_size=2)
    return dataclasses.replace(make_plan("m", facts, request, Machine("cpu", 1.0, False)), **changes)


CORNER = np.s_[:8, :8, :8]
MIDDLE = np.s_[4:12, 24:40, 24:40]


def test_patches_that_are_the_whole_volume_shift_nothing():
    case = case_with(CORNER)
    assert prior_shift([case], plan_for(case, patch=SHAPE)) == (0.0, 0.0)


def test_the_shift_is_the_log_ratio_of_shares_in_patches_and_in_volumes():
    # all patches hold the object of 512 of 4096 voxels: odds of 1/7 instead of 1/127
    case = case_with(CORNER)
    shift = prior_shift([case], plan_for(case, foreground_rate=1.0, patch=(16, 16, 16)))
    assert shift == (0.0, pytest.approx(min(LARGEST, np.log(127 / 7)), abs=1e-3))


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


def test_without_the_facts_of_the_volumes_nothing_is_shifted():
    case = case_with(CORNER)
    assert prior_shift([case], plan_for(case, foreground_rate=1.0, fingerprint=None)) == (0.0, 0.0)
