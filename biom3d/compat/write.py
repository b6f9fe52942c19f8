"""What Biom3d 0.1.2 calls the values of a plan: its configuration, for its `pred` and its `train`."""

from pathlib import Path
from typing import Any

from biom3d import __version__
from biom3d.config import Plan, dump
from biom3d.data.patches import margin_of
from biom3d.files import write_text
from biom3d.planning.plan import learning_of

OURS = "biom3d-workflow"  # opens TRAINED_ON_VERSION of what we trained; Biom3d writes its own version there
WORKERS = 2  # processes that load patches for Biom3d; it takes half as many more for validation
FOREGROUND_RATE = 0.33


def biom3d_config(plan: Plan, fold: int) -> dict[str, Any]:
    """Return the configuration of Biom3d 0.1.2 that describes the same model, and trains it on the same arrays.

    Biom3d would unpickle the foreground voxels, which ours are not; without FG_PATH it finds them in the masks.
    """
    paths = plan.data
    images, masks, folds = (paths.images, paths.masks, paths.folds) if paths else (None, None, None)
    patch, pools = list(plan.patch_size), list(plan.num_pools)
    around = [p + 2 * m for p, m in zip(plan.patch_size, margin_of(plan.patch_size), strict=True)]
    # Biom3d orders spacing x, y, z, in the unit of the files; lists that are empty mean "not used"
    spacing = list(plan.spacing_um[::-1]) if plan.spacing_um else []
    normal = plan.normalisation
    is_ct = normal.scheme == "ct"
    bounds = [normal.low[0], normal.high[0]] if is_ct else []
    moments = [normal.mean[0], normal.std[0]] if is_ct else []
    data = {
        "img_path": images,
        "msk_path": masks,
        "fg_path": None,
        "batch_size": plan.batch_size,
        "patch_size": patch,
        "folds_csv": folds,
        "fold": fold,
        "val_split": 0.2,
        "use_softmax": True,
        "load_data": False,
    }
    rate, decay = plan.learning_rate, plan.weight_decay
    if plan.optimizer != "sgd":  # the only one that it has
        rate, decay = learning_of("sgd", plan.num_epochs * plan.num_steps)
    loader = {"batch_size": plan.batch_size, "shuffle": True, "pin_memory": True}
    shared = {"median_spacing": spacing, "clipping_bounds": bounds, "intensity_moments": moments}
    return {
        "IMG_PATH": images,
        "MSK_PATH": masks,
        "FG_PATH": None,
        "CSV_DIR": folds,
        "DESC": plan.desc,
        "NUM_CLASSES": plan.num_classes,
        "NUM_CHANNELS": plan.num_channels,
        "CHANNEL_AXIS": 0,
        "IS_2D": plan.is_2d,
        "BATCH_SIZE": plan.batch_size,
        "PATCH_SIZE": patch,
        "AUG_PATCH_SIZE": around,
        "NUM_POOLS": pools,
        "MEDIAN_SPACING": spacing,
        "CLIPPING_BOUNDS": bounds,
        "INTENSITY_MOMENTS": moments,
        "NB_EPOCHS": plan.num_epochs,
        "LR_START": rate,
        "WEIGHT_DECAY": decay,
        "USE_DEEP_SUPERVISION": False,
        "USE_SOFTMAX": True,
        "USE_FP16": True,
        "FOLD": fold,
        "SAVE_BEST": True,
        "NUM_WORKERS": WORKERS,
        "PIN_MEMORY": True,
        "LOG_DIR": "logs/",
        "SAVE_MODEL_EVERY_EPOCH": 1,
        "USE_IMAGE_CLBK": True,
        "VAL_EVERY_EPOCH": 1,
        "SAVE_IMAGE_EVERY_EPOCH": 1,
        "USE_FG_CLBK": False,
        "TRAIN_DATASET": {
            "fct": "SegPatchFast",
            "kwargs": {
                **data,
                "nbof_steps": plan.num_steps,
                "train": True,
                "use_aug": plan.augmentation,
                "aug_patch_size": around,
            },
        },
        "TRAIN_DATALOADER_KWARGS": {**loader, "drop_last": True, "num_workers": WORKERS},
        "VAL_DATASET": {
            "fct": "SegPatchFast",
            "kwargs": {
                **data,
                "nbof_steps": plan.num_val_steps,
                "train": False,
                "use_aug": False,
                "fg_rate": FOREGROUND_RATE,
            },
        },
        "VAL_DATALOADER_KWARGS": {**loader, "drop_last": False, "num_workers": WORKERS // 2},
        "MODEL": {
            "fct": "UNet3DVGGDeep",
            "kwargs": {
                "num_pools": pools,
                "num_classes": plan.num_classes + 1,
                "factor": plan.width,
                "use_deep": False,
                "in_planes": plan.num_channels,
            },
        },
        "TRAIN_LOSS": _named("DiceCEnnUNet", "train_loss"),
        "VAL_LOSS": _named("DiceCEnnUNet", "val_loss"),
        "VAL_METRICS": {
            "val_iou": _named("IoU", "val_iou", use_softmax=True),
            "val_dice": _named("Dice", "val_dice", use_softmax=True),
        },
        "TRAINER": {"fct": "SegTrain", "kwargs": {}},
        "VALIDATER": {"fct": "SegVal", "kwargs": {}},
        "PREPROCESSOR": {
            "fct": "Seg",
            "kwargs": {
                **shared,
                "channel_axis": 0,
                "num_channels": plan.num_channels,
                "is_2d": plan.is_2d,
            },
        },
        "PREDICTOR": {"fct": "SegPatch", "kwargs": {"patch_size": patch, "tta": False}},
        "POSTPROCESSOR": {
            "fct": "Seg",
            "kwargs": {
                "use_softmax": True,
                "keep_biggest_only": False,
                "keep_big_only": False,
                "is_2d": plan.is_2d,
            },
        },
        "TRAINED_ON_VERSION": f"{OURS} {__version__}",
    }


def _named(function: str, name: str, **options: Any) -> dict[str, Any]:
    return {"fct": function, "kwargs": {"name": name, **options}}


def write_biom3d_config(path: Path, plan: Plan, fold: int) -> None:
    """Write a configuration of Biom3d: `log/config.yaml` of a model folder, or one for its `train --config`."""
    write_text(path, dump(biom3d_config(plan, fold)))
