"""Options of Biom3d 0.1.2 that our steps take and answer with one line: why it is not there, and what to use."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from biom3d.errors import ConfigError
from biom3d.events import Reporter


@dataclass(frozen=True)
class Foreign:
    """An option of Biom3d. `answer` is said where it is given; with `refused` the step then ends."""

    flags: tuple[str, ...]
    answer: str
    refused: bool = True
    is_switch: bool = True
    kind: Callable[[str], object] = str

    @property
    def name(self) -> str:
        """The attribute in the parsed arguments."""
        return next(flag for flag in self.flags if flag.startswith("--")).lstrip("-")


PRETRAINING = "encoder pre-training is not offered: fine-tune a whole model with --config PLAN --log RUN"
CHAIN = "train only trains; run train, then pred, then eval"
EVAL = "pred only predicts: score with `biom3d eval --path_pred DIR --path_lab DIR`"

FOREIGN: dict[str, tuple[Foreign, ...]] = {
    "preprocess": (
        Foreign(("--use_one_hot",), "masks stay label maps, which train faster: leave it out"),
        Foreign(("--remove_bg",), "masks stay label maps, 0 is the background: leave it out"),
        Foreign(("--no_auto_config",), "give --patch_size, --batch_size or --base_config instead"),
        Foreign(("--skip_preprocessing",), "train reads preprocessed data by itself: give its --data_dir"),
        Foreign(("--num_workers",), "not needed: there are no worker processes", False, False, int),
        Foreign(("--logs_dir",), "not used here: name the model folder with `train --run_dir`", False, False),
        Foreign(("--use_tif",), "not used: arrays are always .npy, which training maps into memory", False),
        Foreign(("--debug",), "not needed: messages always name the image", False),
    ),
    "train": (
        Foreign(("-pc", "--pretrain_config"), PRETRAINING, is_switch=False),
        Foreign(("-le", "--path_encoder"), PRETRAINING, is_switch=False),
        Foreign(("-me", "--model_encoder"), PRETRAINING),
        Foreign(("-fr", "--freeze_encoder"), PRETRAINING),
        Foreign(("-i", "--path_in", "--dir_in"), CHAIN, is_switch=False),
        Foreign(("-o", "--path_out", "--dir_out"), CHAIN, is_switch=False),
        Foreign(("-a", "--path_lab", "--dir_lab"), CHAIN, is_switch=False),
    ),
    "pred": (
        Foreign(("-a", "--path_lab", "--dir_lab"), EVAL, is_switch=False),
        Foreign(("-e", "--eval_only"), EVAL),
        Foreign(("--skip_preprocessing",), "a model knows how to scale its images: leave it out, give raw images"),
    ),
}
NAMES = {  # the values of --name: what is done, or why not
    "train": {"train": None, "seg_pred_eval": CHAIN, "pretrain_seg_pred_eval": PRETRAINING},
    "pred": {"seg": None, "seg_multiple": None, "seg_single": None, "seg_eval": EVAL, "seg_eval_single": EVAL},
}


def add_foreign_options(parser: argparse.ArgumentParser, step: str) -> None:
    """Let the parser take Biom3d's other options of a step; they are not in its help."""
    for option in FOREIGN[step]:
        if option.is_switch:
            parser.add_argument(*option.flags, action="store_true", help=argparse.SUPPRESS)
        else:
            parser.add_argument(*option.flags, type=option.kind, help=argparse.SUPPRESS)


def answer_foreign_options(args: argparse.Namespace, step: str, report: Reporter) -> None:
    """Raise ConfigError for an option that was given and is refused; say of the others what they are here."""
    name = getattr(args, "name", None)
    if name is not None:
        known = NAMES[step]
        if name not in known:
            offered = ", ".join(value for value, answer in known.items() if answer is None)
            raise ConfigError(f"--name {name}: wanted one of {offered}")
        if known[name] is not None:
            raise ConfigError(f"--name {name} is not offered: {known[name]}")
    for option in FOREIGN[step]:
        if getattr(args, option.name) in (None, False):
            continue
        if option.refused:
            raise ConfigError(f"--{option.name} is not offered: {option.answer}")
        report.info(f"--{option.name}: {option.answer}")
