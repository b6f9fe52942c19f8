"""Model folders: weights, plan, configuration and curve of one training, readable by Biom3d and resumable.

<run>/plan.yaml                  the plan, everything that made the model
<run>/log/config.yaml            the same in the keys of Biom3d 0.1.2
<run>/log/made_by.json           the version of ours that made it, see steps.py
<run>/log/folds.csv, log.csv     which volumes were validated; one line per epoch
<run>/model/<desc>.pth           last epoch: weights, optimiser, epoch, curve; training resumes from it
<run>/model/<desc>_best.pth      epoch with the best validation Dice: weights and `prior_shift`; prediction reads it
"""

from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch

from biom3d import __version__
from biom3d.config import NO_FACTS, Plan, load_plan
from biom3d.errors import DataError
from biom3d.files import atomic_path, write_csv

LOG_COLUMNS = ("epoch", "train_loss", "val_loss", "val_iou", "val_dice", "learning_rate", "seconds")
LogRow = dict[str, float]


def last_path(run: Path, desc: str) -> Path:
    """Return where the last epoch of a run is kept."""
    return run / "model" / f"{desc}.pth"


def best_path(run: Path, desc: str) -> Path:
    """Return where the best epoch of a run is kept."""
    return run / "model" / f"{desc}_best.pth"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"version": __version__, **content}, file)
        except RuntimeError as error:  # torch hides that the disk is full behind its own mistake after it
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; a pickle with code in it is refused."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"no checkpoint '{path}'; give a folder made by train") from error
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"'{path}' is damaged or no checkpoint of weights ({reason[:200]}); copy or train it again"
        ) from error
    if not isinstance(content, dict) or "model" not in content:
        raise DataError(f"'{path}' holds no weights under 'model'; give a checkpoint made by train")
    return content


def prior_shift_of(saved: dict[str, Any], outputs: int, path: Path) -> list[float]:
    """Return what predictions subtract from the scores of each output; zeros for models of Biom3d, and old ones."""
    shift = saved.get("prior_shift", [0.0] * outputs)
    is_list = isinstance(shift, list) and len(shift) == outputs
    if not is_list or not all(isinstance(value, float) and abs(value) < 99 for value in shift):
        raise DataError(f"'{path}': prior_shift is {shift!r}; wanted {outputs} numbers; copy or train it again")
    return list(shift)


def write_log(path: Path, rows: list[LogRow]) -> None:
    """Write the learning curve `log.csv`."""
    write_csv(path, LOG_COLUMNS, rows)


def load_run_plan(run: Path) -> Plan:
    """Return the plan of a model folder."""
    if not run.is_dir():
        raise DataError(f"no model folder '{run}'; give a folder made by train, such as logs/<model>/fold_0")
    if not (run / "plan.yaml").is_file():
        raise DataError(f"'{run}' holds no plan.yaml; give a folder made by train, such as logs/<model>/fold_0")
    return load_plan(run / "plan.yaml")


def known_facts(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a saved plan; what plans have learned to say since it was saved has its default."""
    defaults = {f.name: f.default for f in fields(Plan) if f.default is not MISSING and f.name not in NO_FACTS}
    return {**defaults, **saved}


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return what must be equal for a training to be resumed: all but reasons, wishes and places.

    The fingerprint is among them: its digest tells other volumes from these.
    """
    facts = asdict(plan)
    return {key: value for key, value in facts.items() if key not in NO_FACTS}
