"""The one place that knows Biom3d's names: configuration keys, folders, files, printed lines <-> ours. Pure functions.

Facts about the files and output of Biom3d 0.1.2 (https://github.com/GuillaumeMougeot/biom3d); none of its code is here.
"""

import csv
import io
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]

# What its preprocess makes beside the input folders `data/img` and `data/msk` -> our names below --out_dir.
PREPROCESSED = {"img_out": "images_out", "msk_out": "masks_out", "fg_out": "fg_out", "folds.csv": "folds.csv"}
PATHS = {"IMG_PATH": "images_out", "MSK_PATH": "masks_out", "FG_PATH": "fg_out", "CSV_DIR": "folds.csv"}
LAST_LOG = "prints.txt"

# An upper-case key and the keys in the nested blocks that hold its value again; Biom3d reads the nested ones.
TWINS = {
    "IMG_PATH": ("img_path",),
    "MSK_PATH": ("msk_path",),
    "FG_PATH": ("fg_path",),
    "CSV_DIR": ("folds_csv",),
    "FOLD": ("fold",),
    "BATCH_SIZE": ("batch_size",),
    "PATCH_SIZE": ("patch_size",),
    "AUG_PATCH_SIZE": ("aug_patch_size",),
    "NUM_POOLS": ("num_pools",),
    "NUM_CHANNELS": ("num_channels", "in_planes"),
    "CHANNEL_AXIS": ("channel_axis",),
    "MEDIAN_SPACING": ("median_spacing",),
    "CLIPPING_BOUNDS": ("clipping_bounds",),
    "INTENSITY_MOMENTS": ("intensity_moments",),
    "IS_2D": ("is_2d",),
    "USE_SOFTMAX": ("use_softmax",),
    "PIN_MEMORY": ("pin_memory",),
}
# What a data set decides, and a given plan does not.
OF_THE_DATA = (
    *PATHS, "NUM_CHANNELS", "CHANNEL_AXIS", "IS_2D", "MEDIAN_SPACING", "CLIPPING_BOUNDS", "INTENSITY_MOMENTS", "DESC",
)  # fmt: skip
OF_A_RUN = ("TRAINED_ON_VERSION", "TRAINED_AT_DATE_AND_HOUR")
KEEP = {"none": (), "biggest": ("keep_biggest_only",), "big": ("keep_big_only",)}
MAX_POOLS = 5
SMALLEST_MAP = 4  # voxels of an axis after all halvings
THIN = 3  # an axis more than this many times shorter than another is not rotated


@dataclass(frozen=True)
class Wishes:
    """What was asked for beside what its preprocess takes itself; None leaves Biom3d's value."""

    num_classes: int | None = None
    num_epochs: int | None = None
    num_steps: int | None = None
    patch_size: tuple[int, ...] | None = None
    batch_size: int | None = None
    width: int | None = None
    learning_rate: float | None = None


# Configuration


def plain(value: Any) -> Any:
    """Return a configuration as mappings, lists and plain values that every YAML reader takes."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value  # NumPy arrays and numbers


def with_twins(config: Mapping[str, Any]) -> Config:
    """Return the configuration with the nested blocks following the upper-case keys."""
    values = {twin: config[key] for key, twins in TWINS.items() if key in config for twin in twins}

    def follow(block: Any) -> Any:
        if not isinstance(block, Mapping):
            return block
        return {key: values[key] if key in values else follow(item) for key, item in block.items()}

    config = {key: follow(item) for key, item in config.items()}
    model = config.get("MODEL", {}).get("kwargs", {})
    if "num_classes" in model and "NUM_CLASSES" in config:
        model["num_classes"] = config["NUM_CLASSES"] + bool(config.get("USE_SOFTMAX", True))
    return config


def plan_of(auto: Mapping[str, Any], base: Mapping[str, Any] | None, wishes: Wishes) -> Config:
    """Return the plan: what Biom3d configured for the data, the values of a given plan over it, and the wishes."""
    kept = {k: v for k, v in (base or {}).items() if k not in (*OF_THE_DATA, *OF_A_RUN)}
    config = with_twins(plain({**auto, **kept}))
    named = {
        "NUM_CLASSES": wishes.num_classes,
        "NB_EPOCHS": wishes.num_epochs,
        "BATCH_SIZE": wishes.batch_size,
        "LR_START": wishes.learning_rate,
    }
    config |= {key: value for key, value in named.items() if value is not None}
    if wishes.patch_size is not None:
        config["PATCH_SIZE"] = list(wishes.patch_size)
        config["NUM_POOLS"] = pools_of(wishes.patch_size)
        config["AUG_PATCH_SIZE"] = larger_patch_of(wishes.patch_size)
    if wishes.num_steps is not None:
        config["TRAIN_DATASET"]["kwargs"]["nbof_steps"] = wishes.num_steps
        config["VAL_DATASET"]["kwargs"]["nbof_steps"] = max(1, wishes.num_steps // 5)  # 250 and 50 by default
    if wishes.width is not None:
        config["MODEL"]["kwargs"]["factor"] = wishes.width
    return with_twins(config | PATHS)


def pools_of(patch: Sequence[int]) -> list[int]:
    """Return how often each axis of a patch (z, y, x) is halved: as often as whole numbers of 4 or more come out."""
    return [
        max(p for p in range(MAX_POOLS + 1) if p == 0 or (size % 2**p == 0 and size // 2**p >= SMALLEST_MAP))
        for size in patch
    ]


def larger_patch_of(patch: Sequence[int]) -> list[int]:
    """Return the patch (z, y, x) that is cut before a rotation: its diagonal, or that of the plane of long axes."""
    thin = min(patch)
    if max(patch) <= THIN * thin:
        return [int(math.hypot(*patch))] * 3
    diagonal = int(math.hypot(*(size for size in patch if size != thin)))
    return [size if size == thin else diagonal for size in patch]


def bytes_of_batch(config: Mapping[str, Any]) -> int:
    """Return the size of what a loader process hands over: images float32, masks 64-bit."""
    voxels = math.prod(config["PATCH_SIZE"]) * config["BATCH_SIZE"]
    return int(voxels * (4 * config.get("NUM_CHANNELS", 1) + 8 * (config["NUM_CLASSES"] + 1)))


def choose_workers(threads: int, free_bytes: int, batch_bytes: int) -> int:
    """Return how many loader processes threads and shared memory allow; each holds two batches, and one is in use.

    Half as many more load the validation, at another time.
    """
    return max(0, min(threads - 1, 6, free_bytes // (2 * batch_bytes) - 1))


def training_config(plan: Mapping[str, Any], data: Path, fold: int, workers: int, logs: str = "logs/") -> Config:
    """Return what its train is given."""
    config = with_twins(
        {
            **{key: value for key, value in plan.items() if key not in OF_A_RUN},
            **{key: str(data / name) for key, name in PATHS.items()},
            "FOLD": fold,
            "LOG_DIR": logs,
            "NUM_WORKERS": workers,
        }
    )
    config["TRAIN_DATALOADER_KWARGS"]["num_workers"] = workers
    config["VAL_DATALOADER_KWARGS"]["num_workers"] = workers // 2
    return config


def prediction_config(trained: Mapping[str, Any], tta: bool | None, keep: str) -> Config:
    """Return the configuration of a model with the options of a prediction in it; None leaves what is there."""
    config = plain(trained)
    predictor = config["PREDICTOR"].setdefault("kwargs", {})
    if tta is not None:
        predictor["tta"] = tta
    predictor["num_workers"] = 0  # 4 else, and they need shared memory
    post = config.setdefault("POSTPROCESSOR", {"fct": "Seg", "kwargs": {}}).setdefault("kwargs", {})
    post |= dict.fromkeys(("keep_biggest_only", "keep_big_only"), False) | dict.fromkeys(KEEP[keep], True)
    return config


# Folders and files


def safe_names(names: Sequence[str]) -> list[str]:
    """Return names that Biom3d can handle, in the same order: it cuts names at dots, and sorts them as text."""
    safe = [re.sub(r"[^A-Za-z0-9_-]", "_", name) for name in names]
    return safe if len(set(safe)) == len(safe) and safe == sorted(safe) else [f"{i:05}" for i in range(len(names))]


def run_name(name: str) -> str | None:
    """Return our name of a file of its run folder, by its path there; None for what is not kept."""
    if re.fullmatch(r"model/.*_\d+(_best)?\.pth", name):
        return None  # copies that a resume makes
    if re.fullmatch(r"log/\d{8}-\d{6}-prints\.txt", name):
        return f"log/{LAST_LOG}"
    if re.fullmatch(r"log/events\.out\.tfevents\..*", name):
        return "log/events.out.tfevents.0"  # TensorBoard wants the middle word
    return name


def fold_table(text: str, folds: int | None) -> tuple[str, bool]:
    """Return a table of folds for as many as are asked for, and whether they were dealt out anew.

    Its own table is kept where it has that many, or where one is asked for, which then is its fold 0.
    Raises ValueError where there are fewer volumes than folds.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    own = len({row["fold"] for row in rows})
    if folds is None or folds in (1, own):
        return text, False
    if len(rows) < folds:
        raise ValueError(f"{len(rows)} volumes cannot be dealt out to {folds} folds")
    order = list(range(len(rows)))
    random.Random(42).shuffle(order)  # noqa: S311 - folds are no secret
    for place, row in zip(order, rows, strict=True):
        row["fold"] = str(place % folds)
    out = io.StringIO()
    table = csv.DictWriter(out, ["filename", "hold_out", "fold"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return out.getvalue(), True


def folds_in(text: str) -> list[int]:
    """Return the numbers of the folds of a table."""
    return sorted({int(row["fold"]) for row in csv.DictReader(io.StringIO(text))})


# Printed lines and logs


def curve_rows(text: str) -> list[dict[str, float]]:
    """Return the whole rows of log.csv, which may be in the middle of being written."""
    whole = text[: text.rfind("\n") + 1]
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(whole))]


def best_epoch(rows: Iterable[Mapping[str, float]]) -> int | None:
    """Return the epoch, from 0, with the lowest validation loss; None where no loss is a number."""
    losses = {int(row["epoch"]): row["val_loss"] for row in rows if not math.isnan(row["val_loss"])}
    return min(losses, key=lambda epoch: losses[epoch]) if losses else None


def saved_image(line: str) -> str | None:
    """Return the name of the image that a printed line of pred says to be done."""
    found = re.match(r"Saved images in (.+)", line)
    return Path(found[1]).name if found else None


def printed_scores(lines: Iterable[str]) -> list[float]:
    """Return the numbers that its eval printed, one a pair of files, in sorted order of their names."""
    found = (re.match(r"Metric result: (.+)", line) for line in lines)
    return [float(match[1]) for match in found if match]
