"""What `pred` tells of the volumes it wrote, beside them: who made each, and what a score of it would be.

held-out          no model of the ensemble has seen the volume
cross-validated   made by the models that did not learn from it; they kept it for validation
training          made by models that learned from it: a score says little about other volumes
unknown           nobody recorded what the model learned from (Biom3d, models made before there was a record)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORD = ".biom3d-predictions.json"  # lists what pred wrote into a folder, and with which model
LEFT_OUT = "left_out"  # in the record: name of each image that could not be predicted -> why
SCORES = "scores"  # the folder beside the labels that pred writes scores to
HELD_OUT, CROSS_VALIDATED, TRAINING, UNKNOWN = "held-out", "cross-validated", "training", "unknown"
KINDS = (HELD_OUT, CROSS_VALIDATED, TRAINING, UNKNOWN)  # the first says most about new volumes


@dataclass(frozen=True)
class Prediction:
    """How one volume was predicted.

    Attributes:
        kind: one of `KINDS`.
        models: names of the model folders that made it.
        fold_agreement, view_agreement: see `prediction.agreement`; None where there was nothing to compare.
    """

    kind: str = UNKNOWN
    models: tuple[str, ...] = ()
    fold_agreement: float | None = None
    view_agreement: float | None = None


def read_prediction(path: Path) -> Prediction:
    """Return what is recorded of a predicted volume; what is not recorded is unknown."""
    told = read_record(path.parent).get("volumes")
    one = told.get(path.name) if isinstance(told, dict) else None
    if not isinstance(one, dict) or one.get("kind") not in KINDS:
        return Prediction()
    models = one.get("models")
    folds, views = (_share(one.get(key)) for key in ("fold_agreement", "view_agreement"))
    return Prediction(one["kind"], tuple(map(str, models)) if isinstance(models, list) else (), folds, views)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what pred recorded in a folder; nothing where there is no record, or a damaged one."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def read_left_out(folder: Path) -> dict[str, str]:
    """Return the images that pred left out (`--skip_bad`), by their file names, and why."""
    found = read_record(folder).get(LEFT_OUT)
    return {str(name): str(why) for name, why in found.items()} if isinstance(found, dict) else {}


def described(prediction: Prediction) -> Mapping[str, Any]:
    """Return a prediction as JSON-ready values."""
    return asdict(prediction)


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None
