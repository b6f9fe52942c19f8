"""`python -m biom3d.eval`: compare label volumes with the truth, per class and case."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser, text_file
from biom3d.config import MAX_CLASSES, SpacingUm
from biom3d.data.predictions import KINDS, TRAINING, UNKNOWN, read_left_out, read_prediction
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.files import write_csv, write_json
from biom3d.memory import SHARE, in_gb, memory_limit, resident_bytes
from biom3d.options import (
    add_coding_options,
    add_key_options,
    add_skip_option,
    add_spacing_option,
    add_strict_option,
    coding_from,
    spacing_from,
)

if TYPE_CHECKING:
    import numpy as np

    from biom3d.data.pairing import Pair
    from biom3d.io import Header
    from biom3d.metrics import ClassScore

DESCRIPTION = """Compare predictions with the truth: Dice, IoU and HD95 per class and case.

  biom3d eval --path_pred predictions/ --path_lab masks/ --num_classes 1 --out_csv metrics.csv

Volumes are paired by name; predictions without a truth are left out. A class in neither volume has no score and is
left out of the mean; in one of them only it has Dice 0. HD95 is in µm, or in voxels where the voxel size is not known;
the table on the screen tells it in mm where the files are in mm, the files that are written always in µm.

`kind` says what a score is: held-out (no model saw the volume), cross-validated (the models that made it did not learn
from it), training (they did: it flatters), or unknown (nobody recorded it). Means are of one kind."""

COLUMNS = {
    "dice": ["dice"],
    "iou": ["iou"],
    "hd95": ["hd95_um", "hd95_voxels"],
    "equals": ["equals"],
    "all": ["dice", "iou", "hd95_um", "hd95_voxels"],
}
TITLES = {"dice": "Dice", "iou": "IoU", "equals": "equal"}
SAME_SPACING = 0.01  # relative difference that rounding in files explains

Row = dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options of Biom3d 0.1.2 and explicit output files."""
    parser = step_parser("eval", DESCRIPTION)
    for flags, text in (
        (("-p", "--path_pred", "--dir_pred"), "folder of predictions, or one file"),
        (("-l", "--path_lab", "--dir_lab"), "folder of true label volumes, or one file"),
    ):
        parser.add_argument(*flags, required=True, type=Path, metavar="DIR", help=text)
    parser.add_argument(
        "-f",
        "--function",
        choices=sorted(COLUMNS),
        default="all",
        help="what to compute; equals is the share of voxels that agree (default: all = dice, iou, hd95)",
    )
    parser.add_argument(
        "--num_classes", type=int, default=1, metavar="N", help="classes, the background not counted (default: 1)"
    )
    add_coding_options(parser)
    parser.add_argument("--out_csv", type=text_file, metavar="FILE", help="write a row per class and case")
    parser.add_argument("--out_json", type=text_file, metavar="FILE", help="write the same rows and the means")
    add_key_options(parser, "msk")
    add_strict_option(parser)
    add_skip_option(parser)
    add_spacing_option(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Score all pairs, write the files, print the table."""
    from biom3d.data.pairing import refuse
    from biom3d.data.remarks import tell_passed_over
    from biom3d.prediction.parts import is_bad

    if not 1 <= args.num_classes <= MAX_CLASSES:
        raise ConfigError(f"--num_classes {args.num_classes}: wanted 1 to {MAX_CLASSES}")
    columns = COLUMNS[args.function]
    spacing = spacing_from(args)
    rows: list[Row] = []
    tell_passed_over([args.path_lab], report)
    pairs = find_pairs(args.path_pred, args.path_lab, report, args.msk_key)
    left_out: dict[str, str] = {}
    for pair in report.track(pairs, "cases", unit="case"):
        try:
            found = score_pair(pair, args, spacing, report)
        except DataError as error:
            if not (args.skip_bad and is_bad(pair.second, error)):
                raise
            left_out[pair.name] = str(error)
            report.warn(f"no score of '{pair.name}': {error}")
            continue
        for row in found:
            report.event("case", **row)
            rows.append(row)
    if not rows:
        refuse(list(left_out.values()), "the truth")
    pairs = [pair for pair in pairs if pair.name not in left_out]
    means = means_by_kind(rows, columns)
    _tell_kinds(means, report)
    if args.out_csv:
        write_csv(args.out_csv, list(rows[0]), rows, digits=4)
    if args.out_json:
        result = {"num_classes": args.num_classes, "cases": rows, "means": means}
        result |= {"left_out": left_out} if left_out else {}
        only = {"mean": next(iter(means.values()))} if len(means) == 1 else {}  # kinds are never mixed
        write_json(args.out_json, result | only)
    report.event("done", cases=len(rows) // args.num_classes, means=means)
    print(table(rows, means, columns, "µm" if spacing else unit_of(pairs)))


def unit_of(pairs: Sequence["Pair"]) -> str:
    """Return the unit in which lengths are told: that of the truth, mm for scanners and µm for microscopes."""
    from biom3d.io import read_header
    from biom3d.io.units import told_unit

    headers = [read_header(pair.second, "mask") for pair in pairs]
    return told_unit((header.unit, header.spacing_um) for header in headers)


def find_pairs(predictions: Path, truth: Path, report: Reporter, key: str | None = None) -> list["Pair"]:
    """Pair predictions and truth by name; predictions without one are told, truth without prediction is a DataError."""
    from biom3d.data.pairing import match_volumes, quoted
    from biom3d.io import volume_name

    found = match_volumes(predictions, truth, ("prediction", "truth"), key, is_partial=True)
    known = {volume_name(Path(name)) for name in read_left_out(predictions)}  # pred has said why
    if unused := [name for name in found.unused if name not in known]:
        raise DataError(
            f"{len(unused)} true volume(s) in '{truth}' without a prediction in '{predictions}': "
            f"{quoted(unused)}; predict them, or give a folder with the truth of these predictions only"
        )
    if found.alone:
        count = f"{len(found.alone)} of {len(found.alone) + len(found.pairs)} predictions"
        report.info(f"{count} have no truth and no score: {quoted(found.alone)}")
    return found.pairs


def score_pair(pair: "Pair", args: argparse.Namespace, spacing_um: SpacingUm | None, report: Reporter) -> list[Row]:
    """Read one case and return a row per class; DataError names the case."""
    from biom3d.files import work_folder

    with work_folder(args.out_csv or args.out_json) as folder:
        return _score_pair(pair, args, spacing_um, report, folder)


def _score_pair(
    pair: "Pair", args: argparse.Namespace, spacing_um: SpacingUm | None, report: Reporter, folder: Path
) -> list[Row]:
    from biom3d.data.dataset import place_warnings, read_classes, same_orientation
    from biom3d.data.labels import describe_values
    from biom3d.data.remarks import tell_remarks
    from biom3d.metrics import HD95_BYTES, clear_unknown, score_case

    arrays: list[np.ndarray] = []
    headers: list[Header] = []
    coding = coding_from(args, args.num_classes)
    # what is not annotated is a matter of the truth
    for path, meaning in ((pair.first, dataclasses.replace(coding, ignore=None)), (pair.second, coding)):
        labels, header, warning = read_classes(path, args.num_classes, meaning, headers[0] if headers else None, folder)
        if warning:
            report.warn(f"'{path}': {warning}")
        arrays.append(labels)
        headers.append(header)
    if not same_orientation(*headers):
        raise DataError(
            f"case '{pair.name}': the axes of '{pair.first}' and '{pair.second}' point different ways (NIfTI affine); "
            "save both with the same affine"
        )
    tell_remarks([(pair.second, headers[1])], report)
    for line in place_warnings(pair.first, headers[0], pair.second, headers[1]):
        report.warn(f"case '{pair.name}': {line}")
    spacing_um = spacing_um or _choose_spacing(pair.name, headers, report)
    with_hd95 = "hd95_um" in COLUMNS[args.function]
    try:
        is_partial = coding.ignore is not None and arrays[0].shape == arrays[1].shape
        known = clear_unknown(*arrays) if is_partial else None
        limit, held = memory_limit(None), resident_bytes()
        room = limit.bytes * SHARE - held
        scores = score_case(arrays[0], arrays[1], args.num_classes, spacing_um, with_hd95, known, room)
    except DataError as error:
        raise DataError(
            f"case '{pair.name}' ('{pair.first}', '{pair.second}'): {error}; wanted the same grid: is this its truth?"
        ) from error
    large = [s.label for s in scores if with_hd95 and s.hd95 is None and s.voxels_pred and s.voxels_true]
    if large:
        needed = in_gb(held + HD95_BYTES * arrays[0].size)
        report.warn(
            f"case '{pair.name}': no HD95 of class {describe_values(large)}: it would take up to {needed} of memory, "
            f"{limit.who} {in_gb(limit.bytes)}; use a machine with more"
        )
    kind = read_prediction(pair.first).kind
    return [_row(pair.name, kind, score, COLUMNS[args.function]) for score in scores]


def _choose_spacing(name: str, headers: Sequence["Header"], report: Reporter) -> SpacingUm | None:
    """Return the voxel size of the truth, else that of the prediction; warn where they differ."""
    pred, true = (header.spacing_um for header in headers)
    if pred and true and any(abs(a - b) > SAME_SPACING * b for a, b in zip(pred, true, strict=True)):
        report.warn(f"case '{name}': voxel size {pred} µm in the prediction, {true} in the truth, which is used")
    return true or pred


def _row(case: str, kind: str, score: "ClassScore", columns: Sequence[str]) -> Row:
    values = {
        "dice": score.dice,
        "iou": score.iou,
        "hd95_um": score.hd95 if score.unit == "µm" else None,
        "hd95_voxels": score.hd95 if score.unit == "voxels" else None,
        "equals": score.equals,
    }
    sizes = {"voxels_pred": score.voxels_pred, "voxels_true": score.voxels_true}
    return {"case": case, "kind": kind, "class": score.label, **{column: values[column] for column in columns}, **sizes}


def means_by_kind(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Return kind -> class -> means, of the kinds that there are."""
    found = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    return {kind: mean_rows(part, columns) for kind, part in found.items() if part}


def _tell_kinds(means: dict[str, dict[str, Row]], report: Reporter) -> None:
    if TRAINING in means:
        say = report.info if report.is_strict else report.warn  # of the scores: nothing is wrong with the files
        say("some volumes are of the training set: their scores (kind: training) say little about new images")
    if UNKNOWN in means and len(means) > 1:
        report.info("kind: unknown is said where it was not recorded what the model learned from")


def mean_rows(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, Row]:
    """Return the mean over cases of each class and column, of the cases where it is defined."""
    means: dict[str, Row] = {}
    for label in sorted({row["class"] for row in rows}):
        mean: Row = {}
        for column in columns:
            values = [row[column] for row in rows if row["class"] == label and row[column] is not None]
            mean[column] = sum(values) / len(values) if values else None
        means[str(label)] = mean
    return means


def table(rows: Sequence[Row], means: dict[str, dict[str, Row]], columns: Sequence[str], unit: str = "µm") -> str:
    """Return the rows and means as lines, such as `n1  class 1  Dice 0.953  IoU 0.910  HD95 0.41 µm  held-out`."""
    summary = [
        {"case": "mean", "class": label, "kind": kind, **mean}
        for kind, part in means.items()
        for label, mean in part.items()
    ]
    everything = [*rows, *summary]
    width = max(len(row["case"]) for row in everything)
    is_told = list(means) != [UNKNOWN]  # of other programs' volumes nobody expects it
    lines = [f"{row['case']:<{width}}  class {row['class']}  {_cells(row, columns, unit)}" for row in everything]
    return "\n".join(f"{line}  {row['kind']}" if is_told else line for line, row in zip(lines, everything, strict=True))


def _cells(row: Row, columns: Sequence[str], length: str) -> str:
    cells = [f"{TITLES[column]} {_number(row[column], 3)}" for column in columns if column in TITLES]
    if "hd95_um" in columns:
        in_voxels = row["hd95_um"] is None and row["hd95_voxels"] is not None
        value, unit = (row["hd95_voxels"], " voxels") if in_voxels else (row["hd95_um"], f" {length}")
        if length == "mm" and not in_voxels and value is not None:
            value /= 1000
        cells.append(f"HD95 {_number(value, 2)}" + (unit if value is not None else ""))
    return "  ".join(cells)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("eval", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
