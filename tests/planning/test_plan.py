import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biom3d.config import PlanRequest, check_patch
from biom3d.errors import ConfigError
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import fit_patch, make_plan, num_pools

CPU = Machine("cpu", 8.0, True)
GPU = Machine("cuda", 19.2, True)
axis = st.integers(8, 600)


def facts(shape=(64, 512, 512), n=10, spacing=(1.0, 1.0, 1.0)):
    return make_fingerprint([(1, *shape)] * n, [spacing] * n, is_2d=shape[0] == 1)


@settings(deadline=None)
@given(axis, axis, axis, st.sampled_from([32**3, 64**3, 128**3]))
def test_a_patch_keeps_within_its_voxels_and_can_be_halved(z, y, x, voxels):
    patch = fit_patch((z, y, x), voxels)
    assert math.prod(patch) <= voxels
    check_patch(patch, num_pools(patch), "test")


@settings(deadline=None)
@given(axis, axis, axis)
def test_no_axis_is_halved_below_four_voxels(z, y, x):
    patch = fit_patch((z, y, x), 128**3)
    assert all(size / 2**pools >= 4 or pools == 0 for size, pools in zip(patch, num_pools(patch), strict=True))


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((31, 61, 57), (32, 64, 64)), ((500, 500, 500), (128, 128, 128)), ((12, 256, 256), (12, 256, 256))],
)
def test_patches_of_known_data_sets_are_those_of_biom3d(shape, patch):
    assert fit_patch(shape, 128**3) == patch


def test_a_plane_is_never_halved_along_z():
    patch = fit_patch((1, 512, 512), 128**3)
    assert (patch, num_pools(patch)) == ((1, 512, 512), (0, 5, 5))


def test_a_batch_has_at_least_two_patches():
    assert make_plan("m", facts(), PlanRequest(), CPU).batch_size == 2


def test_a_gpu_gets_a_wider_network_and_a_larger_patch():
    small, large = (make_plan("m", facts(), PlanRequest(), machine) for machine in (CPU, GPU))
    assert (small.width, large.width) == (16, 32)
    assert math.prod(small.patch_size) < math.prod(large.patch_size)


def test_less_memory_gives_a_smaller_patch():
    plans = [make_plan("m", facts(), PlanRequest(memory_target_gb=gb), GPU) for gb in (2.0, 12.0)]
    assert math.prod(plans[0].patch_size) < math.prod(plans[1].patch_size)


def test_what_is_asked_for_is_taken():
    request = PlanRequest(patch_size=(16, 32, 32), batch_size=3, width=8, num_classes=4)
    plan = make_plan("m", facts(), request, CPU)
    assert (plan.patch_size, plan.batch_size, plan.width, plan.num_classes) == ((16, 32, 32), 3, 8, 4)


def test_every_choice_has_its_reason():
    why = make_plan("m", facts(), PlanRequest(), CPU).why
    assert {"width", "memory", "patch_size", "batch_size", "spacing_um", "normalisation"} <= set(why)


def test_2d_asked_of_volumes_is_refused():
    with pytest.raises(ConfigError, match="the volumes have a z axis"):
        make_plan("m", facts(), PlanRequest(is_2d=True), CPU)


def test_the_same_facts_give_the_same_plan():
    assert make_plan("m", facts(), PlanRequest(), CPU) == make_plan("m", facts(), PlanRequest(), CPU)
