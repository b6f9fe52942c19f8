"""Which volume is validated in which fold; written as `folds.csv` in the format of Biom3d."""

import csv
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from biom3d.errors import DataError
from biom3d.files import write_csv

SINGLE_MODEL_PARTS = 5  # with one fold, a fifth of the volumes is kept for validation


def assign_folds(names: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Return name -> fold, as even as possible, the same for the same names, folds and seed.

    `folds` = 1 makes one model: a fifth of the volumes (at least one) gets fold 0, the rest fold 1.
    """
    order = np.random.default_rng(seed).permutation(len(names))
    if folds == 1:
        held = max(1, len(names) // SINGLE_MODEL_PARTS)
        return {names[i]: 0 if rank < held else 1 for rank, i in enumerate(order)}
    return {names[i]: int(rank % folds) for rank, i in enumerate(order)}


def unlearned_classes(split: Mapping[str, int], present: Mapping[str, Set[int]], folds: int) -> dict[int, list[int]]:
    """Return fold -> classes that only its validation volumes hold, so that its model never sees them.

    `present` says which classes each file holds.
    """
    found = {}
    for fold in range(folds):
        seen = {label for name in split if split[name] != fold for label in present[name]}
        judged = {label for name in split if split[name] == fold for label in present[name]}
        if judged - seen:
            found[fold] = sorted(judged - seen)
    return found


def write_folds(path: Path, folds: dict[str, int]) -> None:
    """Write `folds.csv`: filename, hold_out (always 0), fold."""
    rows = [{"filename": name, "hold_out": 0, "fold": fold} for name, fold in sorted(folds.items())]
    write_csv(path, ("filename", "hold_out", "fold"), rows)


def read_split(path: Path, fold: int) -> tuple[list[str], list[str]]:
    """Return the file names for training and for validation of one fold."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table = {row["filename"]: int(row["fold"]) for row in rows if int(row.get("hold_out") or 0) == 0}
    except OSError as error:
        raise DataError(
            f"cannot read '{path}': {error.strerror}; run preprocess first, or give its folder with --data_dir"
        ) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"'{path}' is damaged or no folds table ({type(error).__name__}: {error}); wanted columns filename, "
            "hold_out, fold; run preprocess again"
        ) from error
    training = [name for name, f in table.items() if f != fold]
    validation = [name for name, f in table.items() if f == fold]
    known = sorted(set(table.values()))
    if not known:
        raise DataError(f"'{path}' lists no volumes; run preprocess again")
    if not validation:
        raise DataError(f"'{path}' has no volumes for fold {fold}; its folds are {known}; give one of them as --fold")
    if not training:
        raise DataError(f"'{path}' has all volumes in fold {fold}: none is left to train on; run preprocess again")
    return training, validation
