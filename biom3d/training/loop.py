"""The training loop: for every epoch validate, save, step, log, in that order on one screen.

Random numbers depend on (seed, fold, epoch, step) alone, so a resumed training draws what an undisturbed one
would have drawn, and equal seeds give equal numbers on a CPU. No worker processes: arrays are memory-mapped, one
thread cuts the next patches while the device works, and augmentation runs on the device in batches.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from biom3d.config import Plan, Triple, load_plan, save_plan
from biom3d.data import augment
from biom3d.data.labels import IGNORED
from biom3d.data.patches import WHOLE, Case, margin_of, sample_batch
from biom3d.data.priors import prior_shift
from biom3d.errors import Biom3dError, DataError
from biom3d.events import Reporter, duration_text
from biom3d.models import build_network
from biom3d.models.unet import UNet
from biom3d.planning.length import epochs_in_time, length_at, shortened
from biom3d.training.checkpoint import (
    LOG_COLUMNS,
    LogRow,
    best_path,
    known_facts,
    last_path,
    load_checkpoint,
    plan_facts,
    save_checkpoint,
    write_log,
)
from biom3d.training.device import autocast_to, explain_out_of_memory
from biom3d.training.group import ALONE, Group, distribute
from biom3d.training.losses import deep_supervision, dice_cross_entropy
from biom3d.training.schedule import polynomial_decay

GRADIENT_NORM = 12.0
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Compute:
    """What computes: a device, the 16-bit type it uses (None: single precision), this process among others."""

    device: torch.device
    half: torch.dtype | None = None
    group: Group = ALONE


@dataclass
class Training:
    """One training: what it works on, and its state. `heads` gives the scores from which it learns."""

    plan: Plan
    fold: int
    training_cases: Sequence[Case]
    validation_cases: Sequence[Case]
    run: Path
    compute: Compute
    network: UNet
    heads: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    rows: list[LogRow]
    prior_shift: tuple[float, ...] = ()  # see `data.priors`; predictions subtract it
    partial: bool = False  # some volumes are annotated in parts only
    origin: str = ""  # hash of the weights it started from, when it fine-tunes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.compute.device

    @property
    def best_dice(self) -> float:
        """Best validation Dice so far; below any real one before the first epoch."""
        return max((row["val_dice"] for row in self.rows), default=-1.0)


class Heads(nn.Module):
    """The network as it is trained: the scores of its `number` finest levels; the others learn nothing."""

    def __init__(self, network: UNet, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number
        for unused in list(network.decoder.convs)[:-number]:
            unused.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (b, c, z, y, x) to class scores (b, classes, z, y, x), finest first."""
        return self.network.forward_heads(images, self.number)


def start(
    plan: Plan,
    fold: int,
    cases: tuple[Sequence[Case], Sequence[Case]],
    run: Path,
    compute: Compute,
    weights: dict[str, Tensor] | None = None,
) -> Training:
    """Prepare a training from scratch, or from the `weights` of another model (fine-tuning)."""
    device, group = compute.device, compute.group
    torch.manual_seed(_seed(plan.seed, fold))
    network = build_network(plan)
    if weights is not None:
        load_weights(network, _with_new_outputs(network, weights), "fine-tuning")
    network = network.to(device)
    if plan.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            momentum=plan.momentum,
            nesterov=plan.momentum > 0,
        )
    scaler = torch.amp.GradScaler(device.type, enabled=compute.half == torch.float16)
    number = max(1, max(plan.num_pools) - 1) if plan.deep_supervision else 1
    heads = distribute(Heads(network, number), group, device)
    shift = prior_shift(cases[0], plan)
    partial = any(case.labelled is not None for part in cases for case in part)
    return Training(plan, fold, *cases, run, compute, network, heads, optimizer, scaler, [], shift, partial)


def resume(training: Training, any_length: bool = False) -> bool:
    """Take up the last saved epoch of `training.run` where it is of the same plan; say whether it was.

    `any_length` lets the number of epochs differ: a finished training goes on, a running one ends earlier.
    """
    path = last_path(training.run, training.plan.desc)
    if not path.is_file():
        return False
    saved = load_checkpoint(path, training.device)
    try:
        wanted, found = plan_facts(training.plan), known_facts(saved["plan"])
        if any_length:
            found |= {name: wanted[name] for name in ("num_epochs", "earlier_lengths", "max_minutes")}
            training.origin = saved["origin"]
        if found != wanted or saved["fold"] != training.fold or saved["origin"] != training.origin:
            return False
        load_weights(training.network, saved["model"], str(path))
        training.optimizer.load_state_dict(saved["opt"])
        training.scaler.load_state_dict(saved["scaler"])
        training.rows = [{name: row[name] for name in LOG_COLUMNS} for row in saved["rows"]]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"'{path}' is no state of a training that can be resumed ({error!r}); remove it to train anew"
        ) from error
    if training.compute.group.is_first:  # a killed training may have missed its last line
        write_log(training.run / "log" / "log.csv", training.rows)
    return True


OUTPUTS = "decoder.convs."  # the layers whose size is the number of classes


def outputs_of(weights: dict[str, Tensor]) -> int | None:
    """Return how many scores a network of these weights gives a voxel, None where they are of another network."""
    layers = [value for name, value in weights.items() if name.removeprefix("module.").startswith(OUTPUTS)]
    return len(layers[0]) if layers and isinstance(layers[0], Tensor) else None


def _with_new_outputs(network: UNet, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose last layers are those of `network` where they know another number of classes."""
    fresh = network.state_dict()
    named = {name.removeprefix("module."): value for name, value in weights.items()}
    if outputs_of(named) == outputs_of(fresh):
        return weights
    return {name: fresh[name] if name.startswith(OUTPUTS) and name in fresh else named[name] for name in named}


def load_weights(network: UNet, weights: dict[str, Tensor], where: str) -> None:
    """Load weights; all names and shapes must fit."""
    try:
        network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    except (AttributeError, TypeError, RuntimeError) as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise DataError(
            f"{where}: the weights do not fit the network of this plan ({first}); "
            "use a plan with the same classes, channels, num_pools and width"
        ) from error


def fit(training: Training, report: Reporter) -> None:
    """Train until the plan's last epoch; every finished epoch is on disk before the next one starts."""
    while (epoch := len(training.rows)) < training.plan.num_epochs:
        plan, started = training.plan, time.monotonic()
        rate = polynomial_decay(plan.learning_rate, epoch, length_at(plan, epoch))

        # step
        train_loss = train_epoch(training, epoch, rate, report)
        if not math.isfinite(train_loss):
            raise Biom3dError(
                f"the loss became {train_loss} in epoch {epoch + 1} of {plan.num_epochs}; the last good epoch is "
                f"kept in '{training.run}'; set a smaller learning_rate (now {plan.learning_rate}) in the plan"
            )

        # evaluate
        val_loss, val_iou, val_dice = validate(training)

        # save
        is_best = val_dice >= training.best_dice  # of equals the later: without an object to validate all are 0
        seconds = time.monotonic() - started
        values = (epoch, train_loss, val_loss, val_iou, val_dice, rate, round(seconds, 3))
        row: LogRow = dict(
            zip(
                ("epoch", "train_loss", "val_loss", "val_iou", "val_dice", "learning_rate", "seconds"),
                values,
                strict=True,
            )
        )
        training.rows.append(row)
        plan = _keep_to_limit(training, report)
        if training.compute.group.is_first:
            _save(training, is_best)

        # log
        eta = seconds * (plan.num_epochs - epoch - 1)
        report.info(
            f"epoch {epoch + 1}/{plan.num_epochs}  loss {train_loss:.3f}  validation Dice {val_dice:.3f}"
            f"{' (best)' if is_best else ''}  {seconds:.0f} s  {duration_text(eta)} left"
        )
        report.event(
            "epoch",
            **{**row, "epoch": epoch + 1},
            of=plan.num_epochs,
            loss=train_loss,
            dice=val_dice,
            eta_s=eta,
        )


def _keep_to_limit(training: Training, report: Reporter) -> Plan:
    """Return the plan, with fewer epochs where the machine became too slow for its limit of time."""
    plan, rows, group = training.plan, training.rows, training.compute.group
    if plan.max_minutes is None:
        return plan
    lately = [row["seconds"] for row in rows[-3:]]
    used_s = sum(row["seconds"] for row in rows)
    epochs = group.same(epochs_in_time(plan, len(rows), used_s, sum(lately) / len(lately)))
    if epochs < plan.num_epochs:
        training.plan = shortened(plan, len(rows), epochs)
        report.warn(f"slower than at the start: {epochs} epochs instead of {plan.num_epochs} keep to max_minutes")
        if group.is_first:  # before the checkpoint: killed in between, the epoch is trained again, with either plan
            described = training.run / "plan.yaml"
            save_plan(shortened(load_plan(described), len(rows), epochs), described)
    return training.plan


def train_epoch(training: Training, epoch: int, rate: float, report: Reporter) -> float:
    """Take the optimiser steps of one epoch; return the mean loss."""
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.network.train()
    plan, losses = training.plan, []
    label = f"epoch {epoch + 1}/{plan.num_epochs}"
    batches = report.track(_batches(training, epoch), label, total=plan.num_steps, unit="batch")
    for step, batch in enumerate(batches):
        images, masks = _prepare(training, batch, epoch, step)
        losses.append(_step(training, images, masks))
    return float(torch.stack(losses).mean())


def _step(training: Training, images: Tensor, masks: Tensor) -> Tensor:
    """Take one optimiser step; return the loss, still on the device so that nothing waits for it."""
    plan, group = training.plan, training.compute.group
    size = f"batch {plan.batch_size}, patch {list(plan.patch_size)}"
    remedy = f"lower patch_size or batch_size in the plan ({size}), or plan with --memory_target"
    with explain_out_of_memory("a training step does not fit the memory", remedy):
        with autocast_to(training.compute.half, training.device):
            scores = training.heads(images)
        loss = deep_supervision(scores, masks, plan.batch_size, group, training.partial)
        training.optimizer.zero_grad(set_to_none=True)
        training.scaler.scale(loss * group.size).backward()  # DistributedDataParallel takes the mean of all
        training.scaler.unscale_(training.optimizer)
        torch.nn.utils.clip_grad_norm_(training.network.parameters(), GRADIENT_NORM)
        training.scaler.step(training.optimizer)
        training.scaler.update()
    return loss.detach()


@torch.inference_mode()
def validate(training: Training) -> tuple[float, float, float]:
    """Return loss, IoU and Dice on the validation volumes: the same patches every epoch.

    IoU and Dice are those of all patches together, the mean of the classes that occur. Processes take the batches in
    turn; sums of whole numbers and a list of losses are put together, so the result does not depend on their number.
    """
    plan, group = training.plan, training.compute.group
    classes = plan.num_classes + 1
    confusion = torch.zeros(classes, classes, dtype=torch.long, device=training.device)
    losses = torch.zeros(plan.num_val_steps, device=training.device)
    training.network.eval()
    for step in range(group.rank, plan.num_val_steps, group.size):
        rng = np.random.default_rng([plan.seed, training.fold, 1, step])
        images, masks = _draw(plan, training.validation_cases, (0, 0, 0), rng)
        target = torch.from_numpy(masks).to(training.device).long()
        with autocast_to(training.compute.half, training.device):
            scores = training.network(torch.from_numpy(images).to(training.device))
        losses[step] = dice_cross_entropy(scores, target, training.partial)
        pairs = target * classes + scores.argmax(1)
        pairs = pairs[target >= 0] if training.partial else pairs
        confusion += torch.bincount(pairs.flatten(), minlength=classes**2).view(classes, classes)
    iou, dice = overlap_scores(group.sum(confusion))
    return float(group.sum(losses).mean()), iou, dice


def overlap_scores(confusion: Tensor) -> tuple[float, float]:
    """Return mean IoU and mean Dice of a confusion matrix (truth, prediction), background left out."""
    hits = confusion.diagonal()[1:].double()
    union = (confusion.sum(0) + confusion.sum(1))[1:].double() - hits
    seen = union > 0
    if not seen.any():
        return 0.0, 0.0
    iou = hits[seen] / union[seen]
    dice = 2 * hits[seen] / (union[seen] + hits[seen])
    return float(iou.mean()), float(dice.mean())


def _batches(training: Training, epoch: int) -> Iterator[Batch]:
    """Yield the batches of an epoch; a thread cuts the next one meanwhile."""
    plan = training.plan
    margin = margin_of(plan.patch_size) if plan.augmentation else (0, 0, 0)

    def draw(step: int) -> Batch:
        rng = np.random.default_rng([plan.seed, training.fold, 0, epoch, step])
        share = training.compute.group.share(plan.batch_size)
        return _draw(plan, training.training_cases, margin, rng, share)

    with ThreadPoolExecutor(1, "patches") as pool:
        following = pool.submit(draw, 0)
        for step in range(plan.num_steps):
            batch = following.result()
            if step + 1 < plan.num_steps:
                following = pool.submit(draw, step + 1)
            yield batch


def _draw(plan: Plan, cases: Sequence[Case], margin: Triple, rng: np.random.Generator, share: slice = WHOLE) -> Batch:
    """Return the share of a batch; DataError where a mask holds unknown labels, which would crash a GPU."""
    images, masks = sample_batch(cases, plan.patch_size, margin, plan.batch_size, plan.foreground_rate, rng, share)
    lowest = IGNORED if any(case.labelled is not None for case in cases) else 0
    if masks.min() < lowest or masks.max() > plan.num_classes:
        odd = next(case for case in cases if case.mask.min() < lowest or case.mask.max() > plan.num_classes)
        raise DataError(
            f"the preprocessed mask of '{odd.name}' holds labels {odd.mask.min()}..{odd.mask.max()}, the plan knows "
            f"0..{plan.num_classes}; it was damaged or changed: run preprocess again"
        )
    return images, masks


def _prepare(training: Training, batch: Batch, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    """Bring a batch to the device and augment it there."""
    plan, device = training.plan, training.device
    images = torch.from_numpy(batch[0]).to(device, non_blocking=True)
    masks = torch.from_numpy(batch[1]).to(device, non_blocking=True).long()
    if not plan.augmentation:
        return images, masks
    rng = np.random.default_rng([plan.seed, training.fold, 2, epoch, step])
    parameters = augment.draw_parameters(plan.batch_size, plan.patch_size, plan.spacing_um, rng)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    share = training.compute.group.share(plan.batch_size)
    if not training.partial:
        return augment.apply(images, masks, plan.patch_size, parameters, generator, share)
    # outside of what was read it puts 0, which is not annotated here
    images, masks = augment.apply(images, masks - IGNORED, plan.patch_size, parameters, generator, share)
    return images, masks + IGNORED


def _save(training: Training, is_best: bool) -> None:
    """Write the best weights if they are, the state to resume from, and the curve, each atomically."""
    desc = training.plan.desc
    weights = training.network.state_dict()
    if is_best:
        best = {"epoch": len(training.rows) - 1, "model": weights, "prior_shift": list(training.prior_shift)}
        save_checkpoint(best_path(training.run, desc), best)
    state = {
        "epoch": len(training.rows) - 1,
        "fold": training.fold,
        "origin": training.origin,
        "model": weights,
        "opt": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "loss": {},
        "rows": training.rows,
        "plan": plan_facts(training.plan),
    }
    save_checkpoint(last_path(training.run, desc), state)
    write_log(training.run / "log" / "log.csv", training.rows)


def _seed(seed: int, fold: int) -> int:
    return int(np.random.default_rng([seed, fold]).integers(2**62))
