"""`python -m biom3d_upstream.preprocess`: Biom3d's preprocessing, into the folder and the plan that are named."""

import argparse
import datetime
import re
import runpy
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import yaml

from biom3d_upstream import mapping, volumes
from biom3d_upstream.contract import (
    InputError,
    Reporter,
    StepError,
    refuse_taken,
    run_step,
    step_parser,
    working_folder,
    write_text,
    yaml_text,
)
from biom3d_upstream.options import add_spacing, positive, refuse, true_or_false
from biom3d_upstream.theirs import run_theirs

HEAD = """\
# Plan of a training by Biom3d 0.1.2: its own configuration. Values of upper-case keys may be edited, and the nested
# blocks follow them; of those edit only TRAIN_DATASET/VAL_DATASET nbof_steps and MODEL factor.
"""
REASONS = {
    "optimizer": "it trains with SGD; leave it out, or use engine biom3d",
    "memory_target": "it does not plan by memory; set max_dim, or patch_size and batch_size",
    "max_minutes": "its trainings have no limit of time; set num_epochs",
    "seed": "its random numbers cannot be set; leave it out, or use engine biom3d",
}
SMALLEST_MAX_DIM = 64  # below it plans networks whose last map is one voxel, and the training crashes


@dataclass(frozen=True)
class Case:
    """One image with its mask, and the name under which Biom3d sees both."""

    name: str
    image: Path
    mask: Path


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options with which the rules call `biom3d.preprocess`."""
    parser = step_parser("preprocess", "Preprocess a data set with Biom3d 0.1.2.")
    for flags in (("--img_path", "--img_dir"), ("--msk_path", "--msk_dir")):
        parser.add_argument(*flags, nargs="+", required=True, type=Path, metavar="DIR", help="folder(s), in one order")
    parser.add_argument("--out_dir", required=True, type=Path, metavar="DIR", help="folder for arrays and folds.csv")
    parser.add_argument("--plan_out", required=True, type=Path, metavar="FILE", help="write the plan here")
    parser.add_argument("--desc", default="unet_default", type=_name, metavar="NAME", help="name of the model")
    parser.add_argument("--base_config", type=Path, metavar="PLAN", help="an earlier plan, whose values are kept")
    for name in ("num_classes", "folds", "num_epochs", "num_steps", "max_dim", "batch_size", "width"):
        parser.add_argument(f"--{name}", type=positive, metavar="N")
    parser.add_argument("--patch_size", nargs=3, type=positive, metavar=("Z", "Y", "X"))
    parser.add_argument("--learning_rate", type=float, metavar="RATE")
    parser.add_argument("--seed", type=int, metavar="N", help="0 only")
    parser.add_argument("--optimizer", help="sgd only")
    parser.add_argument("--memory_target", type=float, help="not possible")
    parser.add_argument("--max_minutes", type=float, help="not possible")
    parser.add_argument("--instances", action="store_true", help="labels number single objects: all become class 1")
    parser.add_argument("--ct_norm", action="store_true", help="clip and scale all volumes alike")
    parser.add_argument("--is_2d", type=true_or_false, metavar="True|False")
    add_spacing(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Stage the volumes, run Biom3d's preprocess, name its results."""
    refuse(args, {"optimizer": ["sgd"], "seed": [0]}, REASONS)
    started = time.monotonic()
    wishes = wishes_from(args)
    base = read_plan(args.base_config) if args.base_config else None
    cases = find_cases(args.img_path, args.msk_path)
    refuse_taken(args.out_dir, "--out_dir")
    classes = args.num_classes or (base or {}).get("NUM_CLASSES", 1)
    with working_folder(args.out_dir) as work:
        stage(cases, work / "data", args, classes, report)
        run_theirs("preprocess", command_words(args, classes), work)
        auto = read_their_config(work / "configs")
        plan = mapping.plan_of(auto, base, wishes)
        gather(work, args, report)
        made = work / "out"
        args.plan_out.unlink(missing_ok=True)  # nobody takes the old plan for that of the new arrays
        made.replace(args.out_dir)
        write_text(args.plan_out, HEAD + yaml_text(plan))
    seconds = round(time.monotonic() - started, 3)
    report.info(f"{len(cases)} volumes in {seconds:.1f} s; patch {plan['PATCH_SIZE']}; plan '{args.plan_out}'")
    report.event("done", volumes=len(cases), plan=str(args.plan_out), seconds=seconds)


def wishes_from(args: argparse.Namespace) -> mapping.Wishes:
    """Return what Biom3d's preprocess has no option for; InputError for values that crash its training."""
    patch = tuple(args.patch_size) if args.patch_size else None
    if patch is None and (args.max_dim or SMALLEST_MAX_DIM) < SMALLEST_MAX_DIM:
        raise InputError(f"--max_dim {args.max_dim}: Biom3d 0.1.2 needs {SMALLEST_MAX_DIM}, or give --patch_size")
    if patch and max(mapping.pools_of(patch)) == 0:
        raise InputError(f"--patch_size {list(patch)}: wanted an axis that can be halved to 4 voxels or more")
    if args.learning_rate is not None and not 0 < args.learning_rate < float("inf"):
        raise InputError(f"--learning_rate {args.learning_rate}: wanted more than 0, and finite")
    return mapping.Wishes(
        args.num_classes,
        args.num_epochs,
        args.num_steps,
        patch,
        args.batch_size,
        args.width,
        args.learning_rate,
    )


def find_cases(images: Sequence[Path], masks: Sequence[Path]) -> list[Case]:
    """Pair the volumes of each folder of images with those of the mask folder at the same place, by name."""
    if len(images) != len(masks):
        raise InputError(f"{len(images)} image folders and {len(masks)} mask folders; give one for each")
    groups = [volumes.match_volumes(*pair, ("image", "mask")) for pair in zip(images, masks, strict=True)]
    count = Counter(name for group in groups for name, _, _ in group)
    prefix = max(count.values()) > 1  # two folders hold the same name
    found = sorted(
        (f"{number}_{name}" if prefix else name, image, mask)
        for number, group in enumerate(groups, start=1)
        for name, image, mask in group
    )
    if len(found) < 2:
        raise InputError(f"'{images[0]}': one volume; Biom3d 0.1.2 needs two or more to train, or use engine biom3d")
    safe = mapping.safe_names([name for name, _, _ in found])
    return [Case(name, image, mask) for name, (_, image, mask) in zip(safe, found, strict=True)]


def stage(cases: Sequence[Case], data: Path, args: argparse.Namespace, num_classes: int, report: Reporter) -> None:
    """Put images and masks where Biom3d finds them, checked: it pairs what does not fit, and stops in the training."""
    for folder in ("img", "msk"):
        (data / folder).mkdir(parents=True)
    for case in cases:
        shape = volumes.shape_of(case.image)
        if args.ct_norm and shape[0] > 1:
            raise InputError(
                f"'{case.image}' has {shape[0]} channels; --ct_norm of Biom3d 0.1.2 takes one; leave it out"
            )
        labels = volumes.read_classes(case.mask, num_classes, args.instances)
        if labels.shape != shape[1:]:
            raise InputError(
                f"'{case.mask}' has shape {labels.shape} (z, y, x), its image {shape[1:]}; wanted the same"
            )
        if not labels.any():
            report.warn(f"'{case.mask}': no object in it, all background")
        is_2d = bool(args.is_2d)
        channel = volumes.stage_image(case.image, data / "img" / f"{case.name}.tif", args.spacing, is_2d)
        volumes.stage_labels(labels, data / "msk" / f"{case.name}.tif", is_2d, channel)


def command_words(args: argparse.Namespace, num_classes: int) -> list[str]:
    """Return the options of Biom3d's preprocess."""
    words = ["--img_path", "data/img", "--msk_path", "data/msk", "--num_classes", str(num_classes)]
    words += ["--desc", args.desc, "--num_workers", "0"]
    words += ["--max_dim", str(args.max_dim)] if args.max_dim and args.max_dim >= SMALLEST_MAX_DIM else []
    words += ["--num_epochs", str(args.num_epochs)] if args.num_epochs else []
    words += ["--ct_norm"] if args.ct_norm else []
    return words + (["--is_2d", "True"] if args.is_2d else [])  # every value of it is taken for True


def read_their_config(folder: Path) -> mapping.Config:
    """Return the configuration that Biom3d just wrote, a Python file of a clock's name."""
    files = sorted(folder.glob("*.py"))
    if len(files) != 1:
        raise StepError(f"Biom3d's preprocess wrote {len(files)} configurations, wanted one; see its output above")
    # np: it may write values as np.float64(...) without importing it
    config = runpy.run_path(str(files[0]), init_globals={"np": numpy})["CONFIG"]
    return dict(mapping.plain({key: value for key, value in config.items() if key.isupper()}))


def gather(work: Path, args: argparse.Namespace, report: Reporter) -> None:
    """Move what Biom3d made into `work/out`, under our names, with as many folds as were asked for."""
    (work / "out").mkdir()
    for theirs, ours in mapping.PREPROCESSED.items():
        shutil.move(work / "data" / theirs, work / "out" / ours)
    table = work / "out" / "folds.csv"
    text = table.read_text(encoding="utf-8")
    try:
        text, is_new = mapping.fold_table(text, args.folds)
    except ValueError as error:
        raise InputError(f"--folds {args.folds}: {error}; add volumes, or ask for fewer folds") from error
    if is_new:
        report.warn(f"Biom3d made another number of folds; the volumes are dealt out anew to {args.folds}")
    table.write_text(text, encoding="utf-8")


def read_plan(path: Path) -> dict[str, Any]:
    """Read a configuration of Biom3d as YAML; of a run folder that has no such plan.yaml, its log/config.yaml."""
    beside = path.parent / "log" / "config.yaml"
    for file in (path, beside):
        if file.is_file():
            try:
                plan = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise InputError(f"'{file}' is not valid YAML: {' '.join(str(error).split())[:200]}") from error
            if isinstance(plan, dict) and "TRAIN_DATASET" in plan and "MODEL" in plan:
                return {k: v for k, v in plan.items() if not isinstance(v, datetime.datetime)}
    raise InputError(f"'{path}' holds no configuration of Biom3d 0.1.2; give a plan that this engine wrote")


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(f"got '{text}'; wanted letters, digits, - . and _")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("preprocess", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
