"""`python -m biom3d.preprocess`: a data set -> normalised arrays, folds and a plan for the training."""

import argparse
import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d.cli import run_step, step_parser, text_file
from biom3d.compat.options import add_foreign_options, answer_foreign_options
from biom3d.config import DataPaths, Plan, SpacingUm, save_plan
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.files import atomic_path, is_taken, output_error
from biom3d.memory import in_gb, memory_limit, resident_bytes
from biom3d.options import (
    add_data_options,
    add_memory_option,
    add_request_options,
    add_skip_option,
    coding_from,
    keys_from,
    plan_order,
    spacing_from,
)

if TYPE_CHECKING:
    import numpy as np

    from biom3d.data.learned import LearnedVolume
    from biom3d.data.pairing import Case

DESCRIPTION = """Normalise a data set and plan the training.

  biom3d preprocess --img_path images/ --msk_path masks/ --num_classes 1 --desc nuclei

writes images_out/, masks_out/, fg_out/ and folds.csv beside the data and the plan into configs/; then run
  biom3d train --config configs/<time>-nuclei.yaml"""
MARK = ".made-by-biom3d-preprocess"  # in folders that a next run may replace
MIN_BLOCK = 8  # voxels of a block's longest axis; shorter blocks would be mostly padding


@dataclass(frozen=True)
class Outputs:
    """Where preprocess writes: arrays, folds and the plan."""

    data: DataPaths
    plan: Path
    folder: Path | None  # the one folder that holds `data`, where it is one


@dataclass(frozen=True)
class Preprocessed:
    """One volume that was written, under the file names of its blocks."""

    volume: "LearnedVolume"
    names: tuple[str, ...]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options of Biom3d 0.1.2 and explicit paths."""
    parser = step_parser("preprocess", DESCRIPTION)
    add_data_options(parser)
    add_skip_option(parser)
    add_memory_option(parser)
    add_request_options(parser)
    parser.add_argument("--desc", default="unet_default", metavar="NAME", help="name of the model")
    parser.add_argument("--out_dir", metavar="DIR", help="write images/, masks/, foreground/ and folds.csv into DIR")
    parser.add_argument(
        "--plan_out",
        type=text_file,
        metavar="FILE",
        help="write the plan here (default: <config_dir>/<time>-<NAME>.yaml)",
    )
    parser.add_argument(
        "--biom3d_config",
        type=text_file,
        metavar="FILE.yaml",
        help="also write a configuration with which Biom3d 0.1.2 trains on the same arrays",
    )
    parser.add_argument("--img_outpath", "--img_outdir", metavar="DIR", help="default: <img_path>_out")
    parser.add_argument("--msk_outpath", "--msk_outdir", metavar="DIR", help="default: <msk_path>_out")
    parser.add_argument("--config_dir", default="configs/", metavar="DIR", help="folder for plans (default: configs/)")
    parser.add_argument("--remote", action="store_true", help="print the five lines that Biom3d's remote client reads")
    add_foreign_options(parser, "preprocess")
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Preprocess as the options ask."""
    plan, outputs = preprocess(args, report)
    if args.remote:
        rows = (plan.batch_size, plan.patch_size, list(plan.patch_size), plan.num_pools)
        for value in rows:
            print(value if isinstance(value, int | list) else f"[{' '.join(map(str, value))}]")
    print(outputs.plan)


def preprocess(args: argparse.Namespace, report: Reporter) -> tuple[Plan, Outputs]:
    """Write arrays, folds and plan; return the plan and where all lies."""
    from biom3d.compat.write import write_biom3d_config
    from biom3d.data.folds import assign_folds, write_folds
    from biom3d.data.learned import with_folds, write_training_set
    from biom3d.data.planner import plan_cases
    from biom3d.data.remarks import tell_passed_over
    from biom3d.io import volume_file

    started = time.monotonic()
    answer_foreign_options(args, "preprocess", report)
    _refuse_foreign_base(args)
    masks = args.msk_path or _masks_beside_images(args)
    tell_passed_over([*args.img_path, *masks], report)
    cases, left_out = _choose_cases(args, masks, report)
    plan = plan_cases(plan_order(args), cases, report)
    outputs = _choose_outputs(args, plan.desc)
    _refuse_loss(outputs, [str(volume_file(path)) for path in (*args.img_path, *masks)])
    folds = plan.folds if args.folds else min(plan.folds, max(2, len(cases)))
    coding = coding_from(args, plan.num_classes)
    plan = dataclasses.replace(plan, data=outputs.data, folds=folds, label_values=coding.values)
    if args.biom3d_config and coding.ignore is not None:
        raise ConfigError("--biom3d_config: Biom3d knows no voxels to ignore; leave it or --ignore_label out")
    pieces = _pieces_per_case(len(cases), plan.folds)
    if pieces > 1:
        report.warn(
            f"{len(cases)} volume(s) for {plan.folds} fold(s): each is cut into {pieces} blocks, so validation sees "
            "other parts of the same volumes; its Dice will flatter"
        )
    with ExitStack() as stack:
        folders, plan_file, record_file = _open_outputs(stack, outputs)
        done, totals, digest = _preprocess_cases(cases, plan, args, pieces, folders, report)
        split = assign_folds([name for one in done for name in one.names], plan.folds, plan.seed)
        write_folds(Path(folders.folds), split)
        _tell_unlearned(split, Path(folders.foreground), plan.folds, report)
        parts = {one.volume.name: [split[name] for name in one.names] for one in done}
        record = with_folds([one.volume for one in done], parts, plan.normalisation.scheme)
        write_training_set(record_file, dataclasses.replace(record, arrays=digest))
        if plan.fingerprint is not None:
            facts = dataclasses.replace(plan.fingerprint, class_voxels=totals, digest=digest, left_out=left_out)
            plan = dataclasses.replace(plan, fingerprint=facts)
        save_plan(plan, plan_file)
        if args.biom3d_config:
            write_biom3d_config(args.biom3d_config, plan, fold=0)
        _disown_old(outputs)
    seconds = time.monotonic() - started
    report.info(f"{len(cases)} volumes in {seconds:.1f} s; plan '{outputs.plan}'")
    report.event("done", volumes=len(cases), plan=str(outputs.plan), seconds=round(seconds, 3))
    return plan, outputs


def _choose_cases(
    args: argparse.Namespace, masks: Sequence[str], report: Reporter
) -> tuple[list["Case"], tuple[str, ...]]:
    """Return the cases to preprocess, and what was left out of them because it cannot be used, if that is wanted."""
    from biom3d.data.dataset import find_cases

    if not args.skip_bad:
        return find_cases(args.img_path, masks, report.info, keys_from(args)), ()
    from biom3d.data.skipping import find_good_cases
    from biom3d.data.survey import Question

    # As plan_order reads it: without a number there is one class.
    question = Question(args.num_classes or 1, coding_from(args, args.num_classes or 1), spacing_from(args))
    return find_good_cases(args.img_path, masks, question, report, keys_from(args))


def _preprocess_cases(
    cases: Sequence["Case"],
    plan: Plan,
    args: argparse.Namespace,
    pieces: int,
    folders: DataPaths,
    report: Reporter,
) -> tuple[list[Preprocessed], tuple[int, ...], str]:
    """Write all cases; return what was written, voxels per class, and a hash of all arrays.

    DataError names every case that cannot be used.
    """
    from biom3d.data.labels import describe_values
    from biom3d.data.sanity import full_problem, is_full

    done, voxels, problems, digest = [], [], [], hashlib.sha256()
    for case in report.track(cases, "volumes", unit="volume"):
        try:
            written, counts, arrays = _preprocess_case(case, plan, args, pieces, folders, report)
        except DataError as error:
            problems.append(str(error))
            continue
        if not counts[1:].any():
            report.warn(f"'{case.mask}': no object in it, all background")
        done.append(written)
        digest.update(arrays)
        voxels.append(counts)
    _raise_all(problems, len(cases))
    totals = tuple(int(sum(column)) for column in zip(*voxels, strict=True))
    if not any(totals[1:]):
        raise DataError(
            f"no mask has an object in it: all voxels of all {len(cases)} are 0 (background), such as "
            f"'{cases[0].mask}'; wanted labels 1..{plan.num_classes}; is --msk_path right?"
        )
    if is_full([dict(enumerate(map(int, counts))) for counts in voxels]):
        raise DataError(full_problem(cases[0].mask))
    absent = [label for label in range(1, plan.num_classes + 1) if not totals[label]]
    if absent:
        report.warn(f"class {describe_values(absent)} occurs in no mask; is --num_classes {plan.num_classes} right?")
    return done, totals, digest.hexdigest()


def _preprocess_case(
    case: "Case",
    plan: Plan,
    args: argparse.Namespace,
    pieces: int,
    folders: DataPaths,
    report: Reporter,
) -> tuple[Preprocessed, "np.ndarray", bytes]:
    """Check, normalise, resample and write one case; return what it is, voxels per class, a hash of the arrays."""
    from biom3d.data.arrays import digest_of, fill_image, fill_labels
    from biom3d.data.dataset import read_case
    from biom3d.data.labels import count_classes
    from biom3d.data.normalise import choose_scaling
    from biom3d.data.resample import target_shape
    from biom3d.files import scratch_folder

    _refuse_large(case, plan, args)
    with scratch_folder(Path(folders.images)) as scratch:
        loaded = read_case(case, plan.num_classes, coding_from(args, plan.num_classes), scratch)
        if loaded.warning:
            report.warn(loaded.warning)
        spacing = spacing_from(args) or loaded.header.spacing_um
        volume = _describe(case.name, loaded.image, loaded.labels, plan.num_classes, spacing)
        scaling = choose_scaling(plan.normalisation, [loaded.image], plan.num_channels)
        shape = target_shape(loaded.labels.shape, spacing, plan.spacing_um)
        blocks = _blocks(case, shape, pieces)
        names = [case.name if pieces == 1 else f"{case.name}_block{number + 1}" for number in range(len(blocks))]
        image, labels = _new_arrays(folders, scratch, names, (len(loaded.image), *shape), loaded.labels.dtype)
        fill_image(image, loaded.image, scaling)
        fill_labels(labels[0], loaded.labels)
        del loaded
        counts = count_classes(labels[0], plan.num_classes).sum(0)
        with ThreadPoolExecutor(1, "digest") as pool:
            digest = pool.submit(digest_of, case.name, image, labels)
            for name, block in zip(names, blocks, strict=True):
                _write_case(folders, name, image, labels, block, plan)
    return Preprocessed(volume, tuple(f"{name}.npy" for name in names)), counts, digest.result()


def _new_arrays(
    folders: DataPaths, scratch: Path, names: Sequence[str], shape: tuple[int, ...], label_type: "np.dtype"
) -> "tuple[np.ndarray, np.ndarray]":
    """Return new arrays for image (c, z, y, x) float32 and mask (1, z, y, x): the results, or what is cut into them."""
    from biom3d.io.mapped import array_on_disk, new_array

    if len(names) > 1:
        return new_array(scratch, "float32", shape), new_array(scratch, label_type, (1, *shape[1:]))
    image, mask = (Path(folder) / f"{names[0]}.npy" for folder in (folders.images, folders.masks))
    return array_on_disk(image, "float32", shape), array_on_disk(mask, label_type, (1, *shape[1:]))


def _describe(
    name: str, image: "np.ndarray", labels: "np.ndarray", num_classes: int, spacing_um: SpacingUm | None
) -> "LearnedVolume":
    """Return what tells an image (c, z, y, x) again, and what it and its labels (z, y, x) look like."""
    from biom3d.data.facts import measure
    from biom3d.data.identity import identify_array
    from biom3d.data.learned import LearnedVolume

    facts = measure(labels, lambda z0, z1: image[:, z0:z1], num_classes, spacing_um)
    return LearnedVolume(name, identify_array(image), tuple(image.shape), facts=facts)


def _refuse_large(case: "Case", plan: Plan, args: argparse.Namespace) -> None:
    """Raise DataError where what is held of a case at a time surely needs more memory than is allowed."""
    from biom3d.data.arrays import work_bytes
    from biom3d.data.facts import counting_bytes
    from biom3d.data.resample import target_shape
    from biom3d.io import read_header
    from biom3d.io.mapped import HELD_BYTES

    header = read_header(case.image)
    channels, *shape = header.shape
    target = target_shape(shape, spacing_from(args) or header.spacing_um, plan.spacing_um)
    voxels = math.prod(shape)
    arrays = min(voxels * channels * header.dtype.itemsize, HELD_BYTES) + min(voxels, HELD_BYTES)
    work = max(counting_bytes(shape), work_bytes(shape, target, channels))
    limit, needed = memory_limit(args.memory_limit), resident_bytes() + arrays + work
    if needed > limit.bytes:
        raise DataError(
            f"'{case.image}': its preprocessing needs {in_gb(needed)} of memory or more, {limit.who} "
            f"{in_gb(limit.bytes)}; use a machine with more, or cut the volume into parts"
        )


def _write_case(
    folders: DataPaths, name: str, image: "np.ndarray", labels: "np.ndarray", block: tuple[slice, ...], plan: Plan
) -> None:
    """Write the voxels of each class of a block of a volume, and its image and mask where they are not there yet."""
    import numpy as np

    from biom3d.data.arrays import write_part
    from biom3d.data.patches import LABELLED, sample_foreground, sample_labelled

    for folder, array in ((folders.images, image), (folders.masks, labels)):
        path = Path(folder) / f"{name}.npy"
        if not path.exists():
            write_part(path, array, (slice(None), *block))
    part = labels[0][block]
    rng = np.random.default_rng(plan.seed)
    voxels = sample_foreground(part, plan.num_classes, rng)
    arrays = {str(c): v for c, v in voxels.items()}
    labelled = sample_labelled(part, rng) if part.dtype.kind == "i" else None
    if labelled is not None:
        arrays[LABELLED] = labelled
    np.savez(Path(folders.foreground) / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def _blocks(case: "Case", shape: Sequence[int], pieces: int) -> list[tuple[slice, ...]]:
    """Cut a volume into `pieces` blocks along its longest axis."""
    axis = max(range(3), key=lambda a: shape[a])
    edges = [round(i * shape[axis] / pieces) for i in range(pieces + 1)]
    if pieces > 1 and shape[axis] < pieces * MIN_BLOCK:
        raise DataError(
            f"'{case.image}': a volume of {tuple(shape)} voxels is too small to be cut into {pieces} blocks of "
            f"{MIN_BLOCK} voxels or more; add volumes or ask for fewer --folds"
        )
    whole = [slice(None)] * 3
    return [(*whole[:axis], slice(a, b), *whole[axis + 1 :]) for a, b in pairwise(edges)]


def _pieces_per_case(num_cases: int, folds: int) -> int:
    """Return into how many blocks each volume is cut so that every fold has a volume and another to train on."""
    return -(-max(folds, 2) // num_cases)


def _tell_unlearned(split: dict[str, int], foreground: Path, folds: int, report: Reporter) -> None:
    """Warn of classes that a fold's model is judged by and never sees."""
    import numpy as np

    from biom3d.data.folds import unlearned_classes
    from biom3d.data.labels import describe_values

    present: dict[str, set[int]] = {}
    for name in split:
        with np.load(foreground / f"{name.removesuffix('.npy')}.npz") as voxels:
            present[name] = {int(label) for label in voxels.files if label.isdigit() and len(voxels[label])}
    for fold, labels in unlearned_classes(split, present, folds).items():
        report.warn(
            f"fold {fold}: class {describe_values(labels)} is only in the volumes that validate it; its model cannot "
            "learn that; add volumes that hold it"
        )


def _masks_beside_images(args: argparse.Namespace) -> list[str]:
    """Return the images' own files as those of the masks, where they may hold labels too."""
    from biom3d.io import list_volumes, may_hold_labels, volume_file

    files = [str(volume_file(path)) for path in args.img_path]
    if args.msk_key is None and not any(may_hold_labels(path) for file in files for path in list_volumes(file)):
        raise ConfigError("give --msk_path DIR, the masks of the images; only HDF5 and OME-Zarr hold both in one file")
    return files


def _choose_outputs(args: argparse.Namespace, desc: str) -> Outputs:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    plan = Path(args.plan_out) if args.plan_out else Path(args.config_dir) / f"{stamp}-{desc}.yaml"
    if args.out_dir is not None:
        return Outputs(DataPaths.below(args.out_dir), plan, Path(args.out_dir))
    from biom3d.io import volume_file

    images = volume_file(args.img_path[0])
    masks = volume_file(args.msk_path[0]) if args.msk_path else images.parent / f"{images.name}_masks"
    data = DataPaths(
        images=args.img_outpath or str(images.parent / f"{images.name}_out"),
        masks=args.msk_outpath or str(masks.parent / f"{masks.name}_out"),
        foreground=str(masks.parent / "fg_out"),
        folds=str(images.parent / "folds.csv"),
    )
    return Outputs(data, plan, None)


def _refuse_loss(outputs: Outputs, inputs: Sequence[str]) -> None:
    """Raise DataError where an output would replace what preprocess did not make, or hold one of the inputs."""
    data = outputs.data
    parts = [Path(path) for path in (data.images, data.masks, data.foreground)]
    folders = parts if outputs.folder is None else [outputs.folder]
    if len({path.resolve() for path in parts}) < len(parts):
        raise ConfigError(
            f"images, masks and foreground voxels would all be written to '{parts[0]}' or two of them; "
            "give --img_outpath and --msk_outpath different folders"
        )
    folds = Path(data.folds)
    if outputs.folder is None and folds.is_file() and not folds.read_bytes().startswith(b"filename,hold_out,fold"):
        raise DataError(f"'{folds}' is there and is no table of folds; move it away, or give --out_dir")
    for folder in folders:
        held = [path for path in inputs if Path(path).resolve().is_relative_to(folder.resolve())]
        if held:
            raise DataError(
                f"'{folder}' holds the input '{held[0]}' and would be replaced; choose another output folder"
            )
        if is_taken(folder) and not (folder / MARK).is_file():
            raise DataError(
                f"'{folder}' is there and was not made by preprocess; choose another output folder or move it away"
            )


def _open_outputs(stack: ExitStack, outputs: Outputs) -> tuple[DataPaths, Path, Path]:
    """Return temporary places for data, plan and record that get their final names when all cases are written.

    The plan gets its name last, and folds.csv before it, since a next step believes what they list.
    """
    from biom3d.data.learned import NAME

    data, folder = outputs.data, outputs.folder
    within = folder is not None and outputs.plan.resolve().is_relative_to(folder.resolve())
    plan = outputs.plan if within else stack.enter_context(atomic_path(outputs.plan))
    if folder is not None:
        new = stack.enter_context(atomic_path(folder))
        made, marked = DataPaths.below(new), [new]
        plan = new / plan.resolve().relative_to(folder.resolve()) if within else plan
        record = new / NAME
    else:
        places = (data.folds, data.foreground, data.masks, data.images)
        folds, *marked = (stack.enter_context(atomic_path(path)) for path in places)
        foreground, masks, images = map(str, marked)
        made = DataPaths(images, masks, foreground, str(folds))
        record = stack.enter_context(atomic_path(Path(data.folds).with_name(NAME)))
    for part in (made.images, made.masks, made.foreground):
        Path(part).mkdir(parents=True)
    for folder in marked:
        (folder / MARK).write_text("Made by biom3d preprocess, which replaces this folder when it runs again.\n")
    return made, plan, record


def _disown_old(outputs: Outputs) -> None:
    """Remove what makes a next step believe the old data, before the new ones get their names one by one."""
    from biom3d.data.learned import NAME

    try:
        outputs.plan.unlink(missing_ok=True)
        if outputs.folder is None:
            for part in (Path(outputs.data.folds), Path(outputs.data.folds).with_name(NAME)):
                part.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(outputs.plan, error) from error


def _refuse_foreign_base(args: argparse.Namespace) -> None:
    from biom3d.compat.read import is_biom3d_config

    if args.base_config and is_biom3d_config(args.base_config):
        raise ConfigError(
            f"--base_config '{args.base_config}' is a configuration of Biom3d; train on its data with `train --config`"
            ", or give its values here: --patch_size, --batch_size, --num_epochs"
        )


def _raise_all(problems: Sequence[str], total: int) -> None:
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        raise DataError("\n  ".join([f"{len(problems)} of {total} volumes cannot be used:", *problems]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("preprocess", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
