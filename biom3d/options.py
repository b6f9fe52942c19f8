"""Command-line options that several steps share, and how they become dataclasses."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.config import MAX_CLASSES, PRESETS, Plan, PlanRequest, SpacingUm, check_name
from biom3d.errors import ConfigError

if TYPE_CHECKING:
    from biom3d.data.labels import Coding
    from biom3d.data.pairing import Keys
    from biom3d.data.planner import PlanOrder

IS_TRUE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_DEFAULTS = PlanRequest()
MAX_MINUTES = "a training may take so long: its start measures the machine and fits the number of epochs"


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the folders of a data set and its voxel spacing."""
    parser.add_argument(
        "--img_path",
        "--img_dir",
        nargs="+",
        required=True,
        metavar="DIR",
        help="folder(s) of images, or image files",
    )
    parser.add_argument(
        "--msk_path",
        "--msk_dir",
        nargs="+",
        metavar="DIR",
        help="folder(s) of label volumes: 0 is background, 1..N are the classes; same names as the images; may be "
        "left out where the files of the images (HDF5, OME-Zarr) hold the labels too",
    )
    add_coding_options(parser)
    add_key_options(parser, "img", "msk")
    add_strict_option(parser)
    add_spacing_option(parser)


def add_coding_options(parser: Any) -> None:
    """Add what the values of masks stand for: `--instances`, `--ignore_label V`, `--label_values V V`."""
    parser.add_argument(
        "--instances", action="store_true", help="labels number single objects: all of them become class 1"
    )
    parser.add_argument(
        "--ignore_label",
        type=int,
        metavar="V",
        help="value of voxels that nobody has annotated, such as 255 or -1: they teach nothing and count nowhere",
    )
    parser.add_argument(
        "--label_values",
        type=int,
        nargs="+",
        metavar="V",
        help="values of the classes 1, 2, ... where masks number them otherwise, such as 1 4 (default: 1 2 ...)",
    )


def coding_from(args: argparse.Namespace, num_classes: int | None) -> "Coding":
    """Return what the values of masks stand for; ConfigError where the options contradict each other."""
    from biom3d.data.labels import Coding

    values = tuple(args.label_values or ())
    if values and args.instances:
        raise ConfigError("--instances makes one class of all labels; leave it or --label_values out")
    if values and (len(set(values)) < len(values) or min(values) < 1):
        raise ConfigError(f"--label_values {' '.join(map(str, values))}: wanted numbers above 0, each once")
    if values and num_classes not in (None, len(values)):
        raise ConfigError(
            f"--label_values names {len(values)} class(es), --num_classes is {num_classes}; wanted one value a class"
        )
    if args.ignore_label in (0, *values):
        raise ConfigError(f"--ignore_label {args.ignore_label} is the background or a class; wanted another value")
    return Coding(args.instances, args.ignore_label, values)


def add_skip_option(parser: argparse.ArgumentParser) -> None:
    """Add `--skip_bad`."""
    parser.add_argument(
        "--skip_bad",
        action="store_true",
        help="leave out volumes that cannot be used, and say which; without it one of them refuses all",
    )


def add_key_options(parser: argparse.ArgumentParser, *kinds: str) -> None:
    """Add `--img_key` and `--msk_key`: which array of a file that holds several."""
    words = {"img": "images", "msk": "masks"}
    for kind in kinds:
        parser.add_argument(
            f"--{kind}_key",
            metavar="ARRAY",
            help=f"array of the {words[kind]} in files that hold several, such as volumes/raw of HDF5, labels/nuclei "
            "of OME-Zarr, 1 for the second image of a TIFF (default: by names, types and metadata)",
        )


def keys_from(args: argparse.Namespace) -> "Keys":
    """Return which arrays of their files are meant."""
    from biom3d.data.pairing import Keys

    return Keys(getattr(args, "img_key", None), getattr(args, "msk_key", None))


def add_strict_option(parser: argparse.ArgumentParser) -> None:
    """Add `--strict`."""
    parser.add_argument(
        "--strict", action="store_true", help="warnings are errors: nothing may be left out, assumed or doubtful"
    )


def add_spacing_option(parser: argparse.ArgumentParser) -> None:
    """Add `--spacing Z Y X`."""
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=float,
        metavar=("Z", "Y", "X"),
        help="voxel spacing in µm where files do not tell",
    )


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Add `--threads N`."""
    parser.add_argument("--threads", type=_at_least_one, metavar="N", help="CPU threads (default: all)")


def add_memory_option(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add `--memory_limit GB`, whose help may say `more`."""
    parser.add_argument(
        "--memory_limit",
        type=float,
        metavar="GB",
        help="memory that this process may take: what needs more is refused before it starts (default: what the "
        f"machine has free and its container allows{more})",
    )


def add_processes_option(parser: argparse.ArgumentParser) -> None:
    """Add `--processes N`."""
    parser.add_argument(
        "--processes",
        type=_at_least_one,
        default=1,
        metavar="N",
        help="share each batch among N processes on this machine, each with a GPU of its own if there are GPUs "
        "(default: 1, however many GPUs there are); `torchrun --nproc_per_node N -m biom3d.train` does the same",
    )


def spacing_from(args: argparse.Namespace) -> SpacingUm | None:
    """Return the spacing (z, y, x) in µm that was given, or None; ConfigError unless positive."""
    if args.spacing is None:
        return None
    z, y, x = args.spacing
    if not all(0 < size < math.inf for size in (z, y, x)):
        raise ConfigError(f"--spacing {z} {y} {x}: wanted three values above 0, in µm")
    return z, y, x


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add what a user may ask of a plan; every default is that of `PlanRequest`."""

    def add(name: str, text: str, source: str = "data and machine", **more: Any) -> None:
        default = getattr(_DEFAULTS, name)
        shown = f"chosen from {source}" if default is None else default
        flag = f"--{name.removesuffix('_gb')}"
        parser.add_argument(flag, dest=name, help=f"{text} (default: {shown})", **more)

    triple: dict[str, Any] = {"nargs": 3, "type": int, "metavar": ("Z", "Y", "X")}
    sizes = "; ".join(f"{name}: {preset.purpose}" for name, preset in PRESETS.items())
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        help=f"width, patch and memory for a kind of machine ({sizes}); other options go before it (default: none, the "
        "plan is for this machine)",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda", "mps"], help="device that will train (default: the best of this machine)"
    )
    add("num_classes", "classes of objects, the background not counted", type=int, metavar="N")
    add("folds", "models of the cross-validation; 1 trains a single one", type=int, metavar="K")
    add("num_epochs", "epochs of the training", type=int, metavar="N")
    add("num_steps", "training batches an epoch", type=int, metavar="N")
    add("max_minutes", MAX_MINUTES, "the epochs alone", type=float, metavar="MINUTES")
    add("max_dim", "a patch has at most max_dim^3 voxels", type=int, metavar="N")
    add("memory_target_gb", "memory of the device that will train", type=float, metavar="GB")
    add("patch_size", "patch in voxels", **triple)
    add("batch_size", "patches a batch", type=int, metavar="N")
    add("width", "features of the first stage of the network", type=int, metavar="N")
    add("optimizer", "optimiser", "the length of the training", choices=["sgd", "adamw"])
    from_both = "the optimiser and that length"
    add("learning_rate", "learning rate of the first epoch", from_both, type=float, metavar="RATE")
    add("seed", "seed of all random numbers", type=int, metavar="N")
    parser.add_argument(
        "--ct_norm",
        action="store_true",
        default=None,
        help="scale all volumes alike, for calibrated intensities such as CT (default: each by itself)",
    )
    parser.add_argument(
        "--is_2d",
        type=_true_or_false,
        metavar="True|False",
        help="2D images are expected (default: found out)",
    )
    parser.add_argument(
        "--base_config", metavar="PLAN", help="a plan to use as it is; options given beside it change it"
    )


def request_from(args: argparse.Namespace) -> PlanRequest:
    """Return what was asked for; options that were not given keep the default."""
    return PlanRequest.of(given_options(args))


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `PlanRequest` that were given; ConfigError where a value cannot be."""
    names = [field.name for field in dataclasses.fields(PlanRequest)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name in ("num_classes", "folds", "num_epochs", "num_steps", "batch_size", "width", "max_dim"):
        if given.get(name, 1) < 1:
            raise ConfigError(f"--{name} {given[name]}: wanted at least 1")
    if given.get("num_classes", 1) > MAX_CLASSES:
        raise ConfigError(f"--num_classes {given['num_classes']}: wanted at most {MAX_CLASSES}")
    for name in ("memory_target_gb", "learning_rate", "max_minutes"):
        if not 0 < given.get(name, 1) < math.inf:
            raise ConfigError(f"--{name.removesuffix('_gb')} {given[name]}: wanted more than 0, and finite")
    if given.get("seed", 0) < 0:
        raise ConfigError(f"--seed {given['seed']}: wanted at least 0")
    if "patch_size" in given:
        given["patch_size"] = tuple(given["patch_size"])
        if min(given["patch_size"]) < 1:
            raise ConfigError(f"--patch_size {list(given['patch_size'])}: wanted three values above 0")
    return given


def plan_order(args: argparse.Namespace) -> "PlanOrder":
    """Return what the data, spacing and plan options ask for."""
    from biom3d.data.planner import PlanOrder

    check_name(args.desc, "--desc")
    for name in ("preset", "device"):
        if args.base_config and getattr(args, name):
            raise ConfigError(f"--{name} is for a new plan; leave it out, or leave out --base_config")
    changeable = {field.name for field in dataclasses.fields(Plan)}
    return PlanOrder(
        desc=args.desc,
        request=request_from(args),
        base=Path(args.base_config) if args.base_config else None,
        changes={key: value for key, value in given_options(args).items() if key in changeable and key != "is_2d"},
        coding=coding_from(args, args.num_classes or 1),
        spacing_um=spacing_from(args),
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}'; wanted a whole number above 0")
    return int(text)


def _true_or_false(text: str) -> bool:
    try:
        return IS_TRUE[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"got '{text}'; wanted True or False") from None
