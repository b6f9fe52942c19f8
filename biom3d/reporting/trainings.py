"""What is known of each training: its curve, how far it came, how long it took, on what it learned."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d.reporting.reading import number, read_json, read_mapping, read_table, read_text
from biom3d.reporting.results import TRAINING, Line, Outcome

PARTIAL = ".partial"


@dataclass(frozen=True)
class Epoch:
    """One line of a learning curve; epochs count from 1, as in the log of the training."""

    number: int
    train_loss: float | None
    val_loss: float | None
    val_dice: float | None
    seconds: float | None


@dataclass(frozen=True)
class Fold:
    """One training: finished, or as far as it came."""

    name: str
    epochs: tuple[Epoch, ...]
    wanted: int | None
    is_finished: bool
    version: str = ""  # of ours that made it, where that was recorded

    @property
    def best(self) -> Epoch | None:
        """Return the epoch with the highest validation Dice, whose weights predict."""
        scored = [epoch for epoch in self.epochs if epoch.val_dice is not None]
        return max(scored, key=lambda epoch: epoch.val_dice or 0, default=None)

    @property
    def seconds(self) -> float | None:
        """Return the time of all epochs, over all attempts; None where it was not recorded, as by Biom3d."""
        known = [epoch.seconds for epoch in self.epochs if epoch.seconds is not None]
        return sum(known) if len(known) == len(self.epochs) else None


@dataclass(frozen=True)
class Training:
    """The folds of one model, and the plan that they follow."""

    model: str
    line: Line
    folds: tuple[Fold, ...]
    plan: dict[str, Any]

    @property
    def versions(self) -> list[str]:
        """Return the versions of ours that made the folds; usually one."""
        return sorted({fold.version for fold in self.folds if fold.version})

    @property
    def seconds(self) -> float | None:
        """Return the time of all folds together; None where it was not recorded."""
        known = [fold.seconds for fold in self.folds if fold.seconds is not None]
        return sum(known) if len(known) == len(self.folds) else None


def read_trainings(folder: Path, outcome: Outcome) -> list[Training]:
    """Read the trainings in logs/: those of the last outcome; without one all that are there."""
    there = {path.parent.name for path in (folder / "logs").glob("*/fold_*") if path.is_dir()}
    told = [line.model for line in outcome.lines if line.dataset == TRAINING]
    names = told if outcome.lines else sorted(there)
    return [_read_training(folder / "logs" / name, outcome.of(TRAINING, name)) for name in names]


def _read_training(place: Path, line: Line) -> Training:
    runs = {path.name.removesuffix(PARTIAL): path for path in sorted(place.glob(f"fold_*{PARTIAL}"))}
    runs |= {path.name: path for path in place.glob("fold_*") if path.name.removeprefix("fold_").isdigit()}
    ordered = sorted(runs, key=lambda name: (len(name), name))
    folds = tuple(_read_fold(runs[name]) for name in ordered)
    return Training(place.name, line, folds, read_mapping(place / "plan.yaml"))


def _read_fold(run: Path) -> Fold:
    rows = read_table(run / "log" / "log.csv")
    epochs = tuple(epoch for row in rows if (epoch := _epoch(row)))
    wanted = re.search(r"^num_epochs: (\d+)$", read_text(run / "plan.yaml"), re.MULTILINE)
    name = run.name.removesuffix(PARTIAL).replace("fold_", "fold ")
    version = str(read_json(run / "log" / "made_by.json").get("biom3d") or "")
    return Fold(name, epochs, int(wanted[1]) if wanted else None, not run.name.endswith(PARTIAL), version)


def _epoch(row: dict[str, str]) -> Epoch | None:
    index = number(row.get("epoch"))
    if index is None:
        return None
    train_loss, val_loss, val_dice, seconds = (
        number(row.get(name)) for name in ("train_loss", "val_loss", "val_dice", "seconds")
    )
    return Epoch(int(index) + 1, train_loss, val_loss, val_dice, seconds)


def longest(folds: Sequence[Fold]) -> int:
    """Return the highest number of an epoch."""
    return max((fold.epochs[-1].number for fold in folds if fold.epochs), default=0)
