"""What results say of themselves: Dice and its kind, volumes left out; nothing where a file does not tell."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

Score = tuple[float, str]  # Dice and what kind of score it is, such as held-out; the kind may be unknown: ''


def mean_dice(metrics: str) -> list[Score]:
    """Return the mean Dice over classes and cases of a metrics.json, one for each kind of score in it."""
    try:
        found = json.loads(Path(metrics).read_text(encoding="utf-8"))
        cases = [(case.get("kind") or found.get("kind") or "", case["dice"]) for case in found["cases"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    kinds = dict.fromkeys(kind for kind, dice in cases if dice is not None)
    return [(_mean([dice for of, dice in cases if of == kind and dice is not None]), kind) for kind in kinds]


def missing_volumes(predictions: str, metrics: str) -> tuple[str, dict[str, str]]:
    """Return which volumes of a data set were not predicted, or could not be scored, and why; first the count in words.

    `pred` and `eval` record them (`--skip_bad`).
    """
    made, scored = _record(f"{predictions}/.biom3d-predictions.json"), _record(metrics)
    bad = {Path(name).name: str(why) for name, why in _left_out(made).items()}
    count = f"{len(made['images']) - len(bad)} of {len(made['images'])} images predicted" if bad else ""
    without = {name: str(why) for name, why in _left_out(scored).items()}
    if without:
        count += f"{', ' if count else ''}{len(without)} without a score"
    return count, bad | without


def _record(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _left_out(record: dict[str, Any]) -> dict[str, Any]:
    found = record.get("left_out")
    return found if isinstance(found, dict) else {}


def validation_dice(runs: Sequence[str]) -> list[float]:
    """Return the best validation Dice of each fold."""
    return [best for run in runs if (best := _best(Path(run, "log", "log.csv"))) is not None]


def _best(log: Path) -> float | None:
    try:
        rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
        return max(float(row["val_dice"]) for row in rows)
    except (OSError, ValueError, LookupError, TypeError, csv.Error):
        return None


def left_out(plan: str) -> list[str]:
    """Return the volumes that a training left out (`skip_bad`), by its plan."""
    try:
        text = Path(plan).read_text(encoding="utf-8")
        found: Any = (yaml.safe_load(text) or {}) if "left_out" in text else {}
        return [str(name) for name in (found.get("fingerprint") or {}).get("left_out") or []]
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return []


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
