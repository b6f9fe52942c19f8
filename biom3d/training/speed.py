"""How fast a training is on this machine: a few batches of a throw-away copy of it."""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from biom3d.config import Plan
from biom3d.data.patches import Case
from biom3d.events import Reporter
from biom3d.planning.length import Speed
from biom3d.training import loop

MAX_BATCHES = 10
SHARE = 0.04  # of the limit, at most so much for measuring


def measure_speed(
    plan: Plan, fold: int, cases: tuple[Sequence[Case], Sequence[Case]], run: Path, compute: loop.Compute
) -> Speed:
    """Return what a batch of this training costs, the first one, which prepares much, left out."""
    trial = loop.start(
        dataclasses.replace(plan, num_steps=1, num_val_steps=compute.group.size), fold, cases, run, compute
    )
    first_s = _train(trial, 1)
    again_s = _train(trial, 1)
    budget_s = SHARE * 60 * (plan.max_minutes or 1)
    batches = max(1, min(MAX_BATCHES, int((budget_s - first_s - again_s) / again_s)))
    batches = compute.group.same(batches)
    training_s = _train(trial, batches) / batches
    loop.validate(trial)
    started = time.monotonic()
    loop.validate(trial)
    validation_s = (time.monotonic() - started) / compute.group.size
    return Speed(_same(training_s, compute), _same(validation_s, compute))


def _same(seconds: float, compute: loop.Compute) -> float:
    """Return what the first process measured, at least a microsecond."""
    return max(1, compute.group.same(round(seconds * 1e6))) / 1e6


def _train(trial: loop.Training, batches: int) -> float:
    trial.plan = dataclasses.replace(trial.plan, num_steps=batches)
    started = time.monotonic()
    with open(os.devnull, "w") as nowhere:
        loop.train_epoch(trial, 0, trial.plan.learning_rate, Reporter("train", stream=nowhere))
    return time.monotonic() - started
