import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biom3d.config import PlanRequest, check_patch, load_plan, save_plan
from biom3d.errors import ConfigError
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import fit_patch, make_plan, num_pools, plan_again

CPU = Machine("cpu", 8.0, True)
GPU = Machine("cuda", 19.2, True)
GPU_80 = Machine("cuda", 64.0, True)
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


@pytest.mark.parametrize(
    ("name", "width", "patch"),
    [("small", 16, (64, 64, 64)), ("medium", 32, (64, 160, 160)), ("large", 48, (64, 224, 224))],
)
def test_a_preset_sets_width_and_patch(name, width, patch):
    plan = make_plan("m", facts(shape=(64, 512, 512)), PlanRequest.of({"preset": name}), GPU)
    assert (plan.width, plan.patch_size) == (width, patch)


def test_what_is_asked_for_goes_before_the_preset():
    given = {"preset": "large", "width": 24, "max_dim": 32, "memory_target_gb": 4.0}
    plan = make_plan("m", facts(), PlanRequest.of(given), GPU)
    assert plan.width == 24
    assert math.prod(plan.patch_size) <= 32**3
    assert "4.0 GB: the memory was asked for" in plan.why["machine"]


def test_a_large_preset_is_for_a_gpu_also_where_a_cpu_plans():
    plans = [make_plan("m", facts(), PlanRequest.of({"preset": "large"}), here) for here in (CPU, GPU_80)]
    assert plans[0].patch_size == plans[1].patch_size


def test_a_preset_keeps_within_a_smaller_gpu_that_plans():
    small_gpu = Machine("cuda", 4.0, True)
    plan = make_plan("m", facts(), PlanRequest.of({"preset": "large"}), small_gpu)
    assert "cuda with 4.0 GB" in plan.why["machine"]


def test_a_plan_for_another_device_needs_its_memory():
    with pytest.raises(ConfigError, match=r"this machine has no cuda device .* give --memory_target"):
        make_plan("m", facts(), PlanRequest(device="cuda"), CPU)
    plan = make_plan("m", facts(), PlanRequest(device="cuda", memory_target_gb=19.2), CPU)
    assert (plan.width, plan.patch_size) == (32, make_plan("m", facts(), PlanRequest(), GPU).patch_size)


@pytest.mark.parametrize("here", [CPU, GPU, Machine("mps", 6.4, False)])
@pytest.mark.parametrize("given", [{}, {"preset": "medium"}, {"memory_target_gb": 3.3, "seed": 5, "folds": 3}])
def test_a_plan_is_made_again_from_its_own_file(tmp_path, here, given):
    plan = make_plan("m", facts(spacing=(6.5, 0.78, 0.78)), PlanRequest.of(given), here)
    save_plan(plan, tmp_path / "plan.yaml")
    assert plan_again(load_plan(tmp_path / "plan.yaml")) == plan


def test_an_edited_plan_differs_from_what_it_records():
    plan = make_plan("m", facts(), PlanRequest(), CPU)
    edited = dataclasses.replace(plan, batch_size=7)
    assert plan_again(edited) == plan != edited


def test_a_plan_without_record_is_not_made_again():
    with pytest.raises(ConfigError, match="does not record what it was made from"):
        plan_again(dataclasses.replace(make_plan("m", facts(), PlanRequest(), CPU), machine=None))


def test_thick_slices_are_halved_less_often_than_their_planes():
    plan = make_plan("m", facts(shape=(24, 512, 512), spacing=(6.5, 0.78, 0.78)), PlanRequest(), GPU)
    assert (plan.patch_size, plan.num_pools) == ((24, 288, 288), (2, 5, 5))


@pytest.mark.parametrize(
    ("asked", "optimizer", "rate"),
    [
        ({"num_epochs": 20, "num_steps": 20}, "adamw", 0.003),
        ({"num_epochs": 100, "num_steps": 250}, "sgd", 0.01),
        ({"num_epochs": 20, "num_steps": 20, "optimizer": "sgd"}, "sgd", 0.01),
        ({"num_epochs": 100, "num_steps": 250, "optimizer": "adamw"}, "adamw", 0.001),
        ({"num_epochs": 20, "num_steps": 20, "learning_rate": 0.02}, "adamw", 0.02),
    ],
)
def test_a_short_training_learns_with_adamw(asked, optimizer, rate):
    plan = make_plan("m", facts(), PlanRequest(**asked), CPU)
    assert (plan.optimizer, plan.learning_rate) == (optimizer, rate)
