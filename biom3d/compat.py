"""What Biom3d 0.1.2 calls the values of a plan: its `log/config.yaml`, so that it can read our model folders.

File format facts of Biom3d (https://github.com/GuillaumeMougeot/biom3d); none of its code is used.
"""

from pathlib import Path
from typing import Any

from biom3d import __version__
from biom3d.config import Plan, dump
from biom3d.data.augment import margin_of
from biom3d.files import write_text


def biom3d_config(plan: Plan, fold: int) -> dict[str, Any]:
    """Return the configuration of Biom3d 0.1.2 that describes the same model."""
    paths = plan.data
    images, masks, foreground, folds = (
        (paths.images, paths.masks, paths.foreground, paths.folds) if paths else (None, None, None, None)
    )
    patch, pools = list(plan.patch_size), list(plan.num_pools)
    around = [p + 2 * m for p, m in zip(plan.patch_size, margin_of(plan.patch_size), strict=True)]
    # Biom3d orders spacing x, y, z, in the unit of the files; lists that are empty mean "not used"
    spacing = list(plan.spacing_um[::-1]) if plan.spacing_um else []
    normal = plan.normalisation
    is_ct = normal.scheme == "ct"
    bounds = [normal.low[0], normal.high[0]] if is_ct else []
    moments = [normal.mean[0], normal.std[0]] if is_ct else []
    shared = {"median_spacing": spacing, "clipping_bounds": bounds, "intensity_moments": moments}
    return {
        "IMG_PATH": images,
        "MSK_PATH": masks,
        "FG_PATH": foreground,
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
        "LR_START": plan.learning_rate,
        "WEIGHT_DECAY": plan.weight_decay,
        "USE_DEEP_SUPERVISION": False,
        "USE_SOFTMAX": True,
        "USE_FP16": True,
        "FOLD": fold,
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
        "TRAINED_ON_VERSION": f"biom3d-workflow {__version__}",
    }


def write_biom3d_config(path: Path, plan: Plan, fold: int) -> None:
    """Write `log/config.yaml` of a model folder."""
    write_text(path, dump(biom3d_config(plan, fold)))
