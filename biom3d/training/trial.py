"""How fast trainings by a plan are on this machine, measured before there are any data: on made-up volumes."""

import tempfile
from pathlib import Path

import numpy as np

from biom3d.config import Plan
from biom3d.data.patches import Case
from biom3d.planning.length import Speed
from biom3d.training import loop
from biom3d.training.device import choose_device, half_precision, prepare_cpu
from biom3d.training.speed import measure_speed


def try_plan(plan: Plan, threads: int | None = None) -> Speed:
    """Return what a batch of training and of validation costs; takes the time of about six batches."""
    prepare_cpu(threads)
    device = choose_device()
    case = _make_case(plan)
    with tempfile.TemporaryDirectory() as folder:
        compute = loop.Compute(device, half_precision(device))
        return measure_speed(plan, 0, ([case], [case]), Path(folder), compute)


def _make_case(plan: Plan) -> Case:
    """Return noise somewhat larger than a patch, with a block of each class in it."""
    rng = np.random.default_rng(0)
    shape = tuple(size + (size // 4 if size > 1 else 0) for size in plan.patch_size)
    image = rng.standard_normal((plan.num_channels, *shape), dtype=np.float32)
    mask = np.zeros(shape, np.uint8 if plan.num_classes < 256 else np.int16)
    flat = mask.reshape(-1)
    for label in range(1, plan.num_classes + 1):
        flat[(label - 1) * 64 : label * 64] = label
    voxels = {label: np.argwhere(mask == label) for label in range(1, plan.num_classes + 1)}
    return Case("made up", image, mask, voxels)


def fold_seconds(plan: Plan, speed: Speed) -> float:
    """Return what one fold will take: its epochs, or its limit of time where that is less."""
    whole = plan.num_epochs * speed.epoch_s(plan.num_steps, plan.num_val_steps)
    return min(whole, plan.max_minutes * 60) if plan.max_minutes else whole
