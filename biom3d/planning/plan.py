"""Fingerprint + request + machine -> `Plan`, with the reason of each choice in words.

The rules follow the idea of nnU-Net (Isensee et al. 2021): the largest patch with the shape of the data that fits
the memory, each axis halved until 4 voxels are left. The network has the memory cost measured below.
"""

import dataclasses
import math

from biom3d.config import PRESETS, Fingerprint, Machine, Normalisation, Plan, PlanRequest, Triple, check_patch
from biom3d.errors import ConfigError

MAX_POOLS = 5
MIN_FEATURE_MAP = 4  # voxels left on an axis after all halvings
# Memory of one training step per voxel of the batch and feature of the first stage, measured as growth of a
# process on a CPU (32x64x64 and 64x96x96, batch 2, width 16 and 32): 68 to 79 bytes in single precision,
# 38 to 46 in bfloat16. Weights, momentum and libraries are not in it.
BYTES_PER_VOXEL_AND_FEATURE = 80.0
HALF_PRECISION_FACTOR = 0.58
CPU_PATCH_VOXELS = 2 * 32 * 64 * 64  # a step of this batch takes 0.2 s at width 16 on 2 cores: still usable
SHORT_TRAINING = 2000  # batches; AdamW was better after 300 and 1500 (bench/quality/README.md)


def make_plan(desc: str, facts: Fingerprint, request: PlanRequest, machine: Machine) -> Plan:
    """Return the plan for one model; ConfigError where the request contradicts itself or the data."""
    if request.is_2d and not facts.is_2d:
        raise ConfigError("plan: 2D was asked for, but the volumes have a z axis; leave out --is_2d")
    why: dict[str, str] = {}
    trainer = _choose_machine(request, machine, why)
    width = _choose_width(request, trainer, why)
    budget = _voxel_budget(width, request, trainer, why)
    patch = _choose_patch(facts, request, budget, why)
    pools = num_pools(patch)
    why["num_pools"] = "each axis is halved until 4 voxels are left, at most 5 times; a thin axis less often"
    check_patch(patch, pools, "plan")
    batch = _choose_batch(patch, facts, request, budget, why)
    spacing = _choose_spacing(facts, why)
    normalisation = _choose_normalisation(facts, request, why)
    optimizer, learning_rate, weight_decay = _choose_training(request, why)
    return Plan(
        desc=desc,
        num_classes=request.num_classes,
        num_channels=facts.num_channels,
        is_2d=facts.is_2d,
        spacing_um=spacing,
        patch_size=patch,
        batch_size=batch,
        num_pools=pools,
        width=width,
        normalisation=normalisation,
        folds=request.folds,
        num_epochs=request.num_epochs,
        num_steps=request.num_steps,
        num_val_steps=max(1, request.num_steps // 5),
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=request.seed,
        max_minutes=request.max_minutes,
        fingerprint=facts,
        request=request,
        machine=machine,
        why=why,
    )


def plan_again(plan: Plan) -> Plan:
    """Return the plan that follows from what `plan` records; equal to it unless values were edited since.

    Where the data lie, and the number of folds, which preprocess fits to few volumes, are kept.

    Raises:
        ConfigError: it records nothing, as plans of others and of old versions.
    """
    if plan.fingerprint is None or plan.request is None or plan.machine is None:
        raise ConfigError(f"plan '{plan.desc}' does not record what it was made from; plan anew from the data")
    again = make_plan(plan.desc, plan.fingerprint, plan.request, plan.machine)
    return dataclasses.replace(again, data=plan.data, folds=plan.folds)


def num_pools(patch: Triple) -> Triple:
    """Return how often each axis is halved: until `MIN_FEATURE_MAP` voxels are left, at most 5 times.

    An axis must also be divisible by the power of two; an odd axis is not halved at all.
    """

    def pools(size: int) -> int:
        wanted = min(MAX_POOLS, max(0, int(math.log2(max(size, 1) / MIN_FEATURE_MAP))))
        while size % 2**wanted:
            wanted -= 1
        return wanted

    z, y, x = (pools(size) for size in patch)
    return z, y, x


def fit_patch(shape: Triple, max_voxels: float) -> Triple:
    """Return the largest patch with the proportions of `shape` (zyx) and at most `max_voxels` voxels.

    Each axis is a multiple of the power of two by which it will be halved and covers the whole axis where it
    can, rounded up (the rest of such a patch lies outside the volume and is padded). Axes of one voxel stay.
    """
    scale = 1.0
    while True:
        patch = _rounded(shape, scale)
        if math.prod(patch) <= max_voxels or max(patch) <= 2 * MIN_FEATURE_MAP:
            return patch
        scale *= 0.97


def _rounded(shape: Triple, scale: float) -> Triple:
    """Scale every axis and round it to what the network can halve; axes short already shrink last."""
    longest = max(shape) * scale

    def size(full: int) -> int:
        if full == 1:
            return 1
        target = min(float(full), max(longest, full * scale))
        pools = min(MAX_POOLS, max(0, int(math.log2(max(target, MIN_FEATURE_MAP) / MIN_FEATURE_MAP))))
        step = 2**pools
        up = math.ceil(target / step) * step
        return up if target == full else max(step, round(target / step) * step)

    z, y, x = (size(full) for full in shape)
    return z, y, x


def _choose_machine(request: PlanRequest, here: Machine, why: dict[str, str]) -> Machine:
    """Return the machine that will train: the one asked for, that of the preset, or the one `here`."""
    preset = PRESETS[request.preset] if request.preset else None
    if preset:
        why["preset"] = f"asked for: {preset.purpose}; sets what is not asked for by itself"
    device = request.device or (preset.device if preset else None) or here.device
    is_here = device == here.device
    if request.memory_target_gb is not None:
        memory_gb, source = request.memory_target_gb, "the memory was asked for"
    elif preset and not (is_here and here.memory_gb < preset.memory_gb):
        memory_gb, source = preset.memory_gb, f"the memory is that of preset {request.preset}"
    elif is_here:
        memory_gb, source = here.memory_gb, "the machine that planned, part of its memory left to others"
    else:
        raise ConfigError(
            f"plan: this machine has no {device} device that would tell its memory; give --memory_target GB too"
        )
    half = here.half_precision if is_here else device == "cuda"
    numbers = "fast" if half else "not fast"
    why["machine"] = f"{device} with {memory_gb:.1f} GB: {source}; 16-bit numbers are {numbers} there"
    return Machine(device, memory_gb, half)


def _choose_width(request: PlanRequest, machine: Machine, why: dict[str, str]) -> int:
    if request.width:
        why["width"] = "asked for"
        return request.width
    if request.preset:
        why["width"] = f"that of preset {request.preset}"
        return PRESETS[request.preset].width
    if machine.device == "cpu":
        why["width"] = "training on a CPU: half the features of a GPU model, a quarter of the work"
        return 16
    why["width"] = "the standard width of nnU-Net and Biom3d"
    return 32


def _voxel_budget(width: int, request: PlanRequest, machine: Machine, why: dict[str, str]) -> float:
    """Return how many voxels the batch may have."""
    per_voxel = BYTES_PER_VOXEL_AND_FEATURE * width * (HALF_PRECISION_FACTOR if machine.half_precision else 1)
    budget = machine.memory_gb * 1e9 / per_voxel
    why["memory"] = (
        f"{machine.memory_gb:.1f} GB hold {budget / 1e6:.2f} million voxels a batch at width {width} "
        f"({per_voxel / 1e3:.2f} kB each)"
    )
    if machine.device == "cpu" and request.memory_target_gb is None and budget > CPU_PATCH_VOXELS:
        why["memory"] += f"; on a CPU time is the limit: {CPU_PATCH_VOXELS / 1e6:.2f} million"
        return CPU_PATCH_VOXELS
    return budget


def _choose_patch(facts: Fingerprint, request: PlanRequest, budget: float, why: dict[str, str]) -> Triple:
    if request.patch_size:
        why["patch_size"] = "asked for"
        return request.patch_size
    limit = min(budget / 2, request.max_dim**3)
    patch = fit_patch(facts.median_shape, limit)
    why["patch_size"] = (
        f"the proportions of the median volume {list(facts.median_shape)}, each axis rounded to what can be halved, "
        f"with at most {limit / 1e6:.2f} million voxels: "
        + ("half of the batch" if budget / 2 < request.max_dim**3 else f"max_dim {request.max_dim}^3")
    )
    return patch


def _choose_batch(patch: Triple, facts: Fingerprint, request: PlanRequest, budget: float, why: dict[str, str]) -> int:
    if request.batch_size:
        why["batch_size"] = "asked for"
        return request.batch_size
    fits = int(budget // math.prod(patch))
    data = int(0.05 * facts.num_volumes * math.prod(facts.median_shape) / math.prod(patch))
    why["batch_size"] = (
        f"at least 2; {fits} fit the voxels of a batch; not more than 5 % of all voxels, which are {data} patches"
    )
    return max(2, min(fits, data))


def learning_of(optimizer: str, steps: int) -> tuple[float, float]:
    """Return the learning rate and the weight decay of an optimiser in a training of so many batches."""
    if optimizer == "adamw":
        return (0.003 if steps < SHORT_TRAINING else 0.001), 1e-2
    return 0.01, 3e-5


def _choose_training(request: PlanRequest, why: dict[str, str]) -> tuple[str, float, float]:
    """Return optimiser, learning rate and weight decay, and say why what is the same for all data is as it is."""
    steps = request.num_epochs * request.num_steps
    is_short = steps < SHORT_TRAINING
    optimizer = request.optimizer or ("adamw" if is_short else "sgd")
    rate, decay = learning_of(optimizer, steps)
    why["optimizer"] = "SGD with Nesterov momentum, the standard of nnU-Net and Biom3d"
    if is_short:
        why["optimizer"] = f"{steps} batches are few: AdamW learns faster than SGD, whose momentum remembers a hundred"
    if request.optimizer:
        why["optimizer"] = "asked for"
    why["num_epochs"] = (
        f"at most: {request.max_minutes:g} minutes were asked for, and the start of a training counts what fits"
        if request.max_minutes
        else "a first result in hours; more is better as long as the curve rises, and --log goes on with a "
        "finished training"
    )
    why["learning_rate"] = (
        "asked for"
        if request.learning_rate
        else f"usual for {optimizer}{' in a short training' if is_short else ''}; it falls to 0 with the epochs"
    )
    why["foreground_rate"] = (
        "so many patches of a batch hold an object for sure, each class of a volume equally often, however rare it is"
    )
    why["prior_correction"] = (
        "such patches hold more objects than the volumes, and a network learns to expect them; predictions allow for it"
    )
    return optimizer, request.learning_rate or rate, decay


def _choose_spacing(facts: Fingerprint, why: dict[str, str]) -> tuple[float, float, float] | None:
    if facts.spacing_um is None:
        why["spacing_um"] = "the files do not tell their spacing: voxels are used as they are"
    elif facts.same_spacing:
        why["spacing_um"] = "all volumes have this spacing: nothing is resampled"
    else:
        why["spacing_um"] = "the median of all volumes; the others are resampled to it"
    return facts.spacing_um


def _choose_normalisation(facts: Fingerprint, request: PlanRequest, why: dict[str, str]) -> Normalisation:
    if not request.ct_norm:
        why["normalisation"] = "each channel of each volume to mean 0 and standard deviation 1"
        return Normalisation("zscore")
    why["normalisation"] = "calibrated intensities: clipped to the 0.5 and 99.5 percentile of the objects"
    return Normalisation("ct", facts.low, facts.high, facts.mean, facts.std)
