"""`python -m biom3d.init`: make the folder of a project, with a configuration and a table of its own."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d.cli import run_step, step_parser
from biom3d.errors import ConfigError, DataError
from biom3d.files import output_error, write_text
from biom3d.sources import find_sources

if TYPE_CHECKING:
    from biom3d.events import Reporter

DESCRIPTION = """Make the folder of a project: what to compute, and links to the workflow.

  biom3d init ~/study --images ~/stacks --masks ~/outlines
  cd ~/study
  biom3d run

Nothing that is there is overwritten. Run it again to mend the links after the checkout, or this Python, has moved."""
LINKS = ("workflow", "profiles")
COLUMNS = ("dataset", "images", "masks", "train", "predict", "spacing_um", "location")
LOOKED_AT = 3  # masks
FEW = 3  # values: they may be kinds of objects even if each is of one piece, as organs are
PIECES = 1.5  # a value, on average; an object may be cut by another, or be drawn badly
MAX_KINDS = 254  # the limit of num_classes
IGNORED = 255  # what many programs write where nobody annotated
MINUTES = 30
TELLS_NOTHING = ("images", "image", "imgs", "img", "raw", "data", "stacks", "volumes", "input", "inputs")
TABLE = """\
# One data set a row, columns separated by tabs. A # switches a row off; columns of your own are notes.
# dataset: a name. images, masks: folders, or one file each; masks for some of the images are enough. train: models that
# learn from it. predict: models that segment it. spacing_um: z,y,x in µm where the files do not say.
"""


@dataclass(frozen=True)
class Labels:
    """What the masks hold: single objects with a number each, or kinds of objects.

    `values` are those of the kinds where they are not 1, 2, ...; `ignored` seems to say that nobody annotated a voxel.
    """

    instances: bool = False
    num_classes: int = 1
    values: tuple[int, ...] = ()
    ignored: int | None = None


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = step_parser("init", DESCRIPTION)
    parser.add_argument("project", metavar="PROJECT", type=Path, help="folder to make, or to complete")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images to segment: a first row of the table")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="masks of some or all of them, to learn from")
    parser.add_argument("--demo", action="store_true", help="the configuration and the table of the demo")
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="name of the data set (default: that of the folder of images, or of the one above)",
    )
    parser.add_argument("--model", default="model", metavar="NAME", help="name of the model (default: model)")
    return parser


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """Write what is missing in the project's folder, and say what comes next."""
    sources = find_sources()
    if args.masks is not None and args.images is None:
        raise ConfigError("--masks without --images; give the images that they belong to")
    if args.demo and args.images is not None:
        raise ConfigError("--demo has its own images; leave --images out, or --demo")
    if args.name is not None and args.images is None:
        raise ConfigError("--name without --images; give the images that it names")
    for option, name in (("--model", args.model), ("--name", args.name or "x")):
        _refuse_bad_name(option, name)
    config, table = args.project / "config" / "config.yaml", args.project / "config" / "datasets.tsv"
    labels = Labels()
    if args.images is not None:
        if table.exists():
            raise DataError(f"'{table}' exists; add the images as a row there, or give another folder")
        labels = _look_at(args.images, args.masks, report)
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        _link(args.project, sources, report)
    except OSError as error:
        raise output_error(args.project, error) from error
    if args.demo:
        _write_new(config, (sources / "config" / "config.yaml").read_text(encoding="utf-8"), report)
        _write_new(table, (sources / "config" / "datasets.tsv").read_text(encoding="utf-8"), report)
        print(f"cd {args.project} && biom3d demo data/demo && biom3d run")
        return
    _write_new(config, config_text(sources, args.model, labels, _has_gpu()), report)
    _write_new(table, TABLE + table_text(args.images, args.masks, args.model, args.name), report)
    first = "" if args.images else f"write your data sets into {table}, then: "
    print(f"{first}cd {args.project} && biom3d run")


def _refuse_bad_name(option: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"{option} '{name}': wanted letters, digits, '.', '_' and '-', starting with a letter or digit"
        )


def _look_at(images: Path, masks: Path | None, report: "Reporter") -> Labels:
    """Say how many images and masks there are; return what the masks hold."""
    from biom3d.io import list_volumes

    count = len(list_volumes(images))
    if masks is None:
        report.info(f"{count} images, no masks: a model can only segment them, name one that is trained in the table")
        return Labels()
    files = list_volumes(masks)
    labels = find_labels(files)
    what = "a number for each object" if labels.instances else f"{labels.num_classes} kind(s) of objects"
    if labels.values:
        what += f", as {', '.join(map(str, labels.values))}"
    elif labels.num_classes > 1:
        what += " (if they number single objects, write `instances: true` into config.yaml)"
    report.info(f"{count} images, {len(files)} masks, which seem to hold {what}")
    if labels.ignored is not None:
        report.info(f"value {labels.ignored} is taken for 'not annotated'; if it is an object, edit config.yaml")
    return labels


def find_labels(masks: Sequence[Path]) -> Labels:
    """Decide from a few masks what their values mean: several of one piece each number objects, others are kinds.

    255 far above all others, and negative values, are taken for voxels that nobody annotated.
    """
    import cc3d
    import numpy as np

    from biom3d.io import read_labels

    objects: set[int] = set()
    pieces = numbers = lowest = 0
    for path in masks[:LOOKED_AT]:
        labels = read_labels(path).array[0]
        lowest = min(lowest, int(labels.min(initial=0)))
        values = np.unique(labels[labels > 0])
        objects |= set(map(int, values))
        numbers += len(values)
        pieces += int(cc3d.connected_components(labels, return_N=True)[1])
    ignored = lowest if lowest < 0 else None
    if IGNORED in objects and 0 < max(objects - {IGNORED}, default=0) < IGNORED // 2:
        ignored, objects = IGNORED, objects - {IGNORED}
    kinds = tuple(sorted(objects))
    if len(kinds) <= 1:
        return Labels(ignored=ignored)
    if kinds[-1] > MAX_KINDS or (len(kinds) > FEW and pieces <= PIECES * numbers):
        return Labels(instances=True, ignored=ignored)
    has_gaps = kinds[-1] > len(kinds)
    return Labels(num_classes=len(kinds), values=kinds if has_gaps else (), ignored=ignored)


def config_text(sources: Path, model: str, labels: Labels, has_gpu: bool) -> str:
    """Return the configuration: that of the workflow with its comments, and one model instead of the demo's."""
    text = (sources / "config" / "config.yaml").read_text(encoding="utf-8")
    lines = [text[: text.index("\nmodels:\n")], "models:", f"  {model}:"]
    if labels.instances:
        lines += ["    # The masks seem to number single objects. false: their values are kinds of objects."]
    if labels.num_classes > 1:
        lines += ["    # The masks seem to hold kinds of objects. If they number single ones: instances: true instead."]
        lines += [f"    num_classes: {labels.num_classes}"]
    if labels.values:
        lines += [f"    label_values: {list(labels.values)}"]
    if labels.ignored is not None:
        lines += ["    # Voxels of this value seem not to be annotated: they teach nothing and count nowhere."]
        lines += [f"    ignore_label: {labels.ignored}"]
    lines += [f"    instances: {str(labels.instances).lower()}"]
    if not has_gpu:
        lines += ["    # No graphics card was found: this gives a first result. Take both out for one that counts."]
        lines += ["    folds: 2", f"    max_minutes: {MINUTES}"]
    return "\n".join(lines) + "\n"


def table_text(images: Path | None, masks: Path | None, model: str, name: str | None = None) -> str:
    """Return the header, and a row for the images: where there are masks the model learns from it, and segments it."""
    rows = ["\t".join(COLUMNS)]
    if images is not None:
        name = name or _name_of(images.resolve())
        paths = [str(path.resolve()) if path else "" for path in (images, masks)]
        rows.append("\t".join([name, *paths, model if masks else "", model, "", ""]))
    return "\n".join(rows) + "\n"


def _name_of(images: Path) -> str:
    """Return a name for a data set: that of its folder, or of the one above where it only says what is in it."""
    folder = images.parent if images.name.lower() in TELLS_NOTHING and images.parent.name else images
    return re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("._-") or "images"


def _has_gpu() -> bool:
    from biom3d.planning.machine import describe_machine

    return describe_machine().device != "cpu"


def _link(project: Path, sources: Path, report: "Reporter") -> None:
    """Make the workflow of `sources` that of the project; Snakemake looks for both in the folder it runs in."""
    if project.resolve() == sources:
        raise ConfigError(f"'{project}' holds the workflow itself; give another folder")
    for name in LINKS:
        link, target = project / name, sources / name
        if link.is_symlink() and link.readlink() != target:
            link.unlink()
            report.info(f"'{link}' led to another workflow; now to '{target}'")
        if link.is_symlink():
            continue
        if link.exists():
            raise DataError(f"'{link}' exists and is no link of ours; give another folder")
        link.symlink_to(target)


def _write_new(path: Path, text: str, report: "Reporter") -> None:
    if path.exists():
        report.info(f"'{path}' is there already and stays as it is")
        return
    write_text(path, text)
    report.info(f"wrote '{path}'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; see the step contract for the exit codes."""
    return run_step("init", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
