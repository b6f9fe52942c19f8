"""`python -m biom3d_upstream.eval`: Dice and IoU by Biom3d's own functions, per class and case, in our tables."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from biom3d_upstream import mapping, volumes
from biom3d_upstream.contract import (
    InputError,
    Reporter,
    StepError,
    run_step,
    step_parser,
    working_folder,
    write_csv,
    write_text,
)
from biom3d_upstream.options import add_spacing, positive
from biom3d_upstream.theirs import run_theirs

FUNCTIONS = ("dice", "iou")
COLUMNS = (*FUNCTIONS, "hd95_um", "hd95_voxels")  # of our tables; it has no HD95
KIND = "unknown"  # what a score is: its models do not tell what they learned from
Row = dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options with which the rules call `biom3d.eval`."""
    parser = step_parser("eval", "Compare predictions with the truth by the functions of Biom3d 0.1.2.")
    parser.add_argument("-p", "--path_pred", "--dir_pred", required=True, type=Path, metavar="DIR")
    parser.add_argument("-l", "--path_lab", "--dir_lab", required=True, type=Path, metavar="DIR")
    parser.add_argument("-f", "--function", default="all", help="all, dice or iou")
    parser.add_argument("--num_classes", type=positive, default=1, metavar="N")
    parser.add_argument("--instances", action="store_true", help="labels number single objects: all become class 1")
    parser.add_argument("--out_csv", type=Path, metavar="FILE", help="write a row per class and case")
    parser.add_argument("--out_json", type=Path, metavar="FILE", help="write the same rows and the means")
    add_spacing(parser)  # only for HD95, which Biom3d has not
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Score all pairs and write the tables."""
    if args.function not in ("all", *FUNCTIONS):
        raise InputError(f"--function {args.function} is not possible with Biom3d 0.1.2: give all, dice or iou")
    functions = FUNCTIONS if args.function == "all" else (args.function,)
    pairs = volumes.match_volumes(args.path_pred, args.path_lab, ("prediction", "truth"))
    with ExitStack() as stack:
        work = _open_work(stack, args)
        rows = stage(pairs, work, args)
        for function in functions:
            words = ["--path_pred", "pred", "--path_lab", "true", "--function", function]
            fill(rows, function, run_theirs_whole(words, work))
    for row in rows:
        report.event("case", **row)
    means = mean_rows(rows)
    if args.out_csv:
        write_csv(args.out_csv, rows)
    if args.out_json:
        result = {"num_classes": args.num_classes, "cases": rows, "means": {KIND: means}, "mean": means}
        write_text(args.out_json, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    report.event("done", cases=len(pairs), mean=means)
    for row in rows:
        print(f"{row['case']}  class {row['class']}  " + "  ".join(f"{f} {row[f]:.3f}" for f in functions))


def stage(pairs: Sequence[tuple[str, Path, Path]], work: Path, args: argparse.Namespace) -> list[Row]:
    """Write each class of each pair as two binary volumes, named so that Biom3d's sorting pairs them; return rows."""
    for folder in ("pred", "true"):
        (work / folder).mkdir()
    rows: list[Row] = []
    for name, *paths in pairs:
        pred, true = (volumes.read_classes(path, args.num_classes, args.instances) for path in paths)
        if pred.shape != true.shape:
            raise InputError(
                f"case '{name}': '{paths[0]}' has shape {pred.shape} (z, y, x), '{paths[1]}' {true.shape}; wanted the "
                "same grid: is this its truth?"
            )
        for label in range(1, args.num_classes + 1):
            for folder, array in (("pred", pred), ("true", true)):
                np.save(work / folder / f"{len(rows):06}.npy", (array == label).astype(np.uint8))
            sizes = {"voxels_pred": int((pred == label).sum()), "voxels_true": int((true == label).sum())}
            rows.append({"case": name, "kind": KIND, "class": label, **dict.fromkeys(COLUMNS), **sizes})
    return rows


def run_theirs_whole(words: Sequence[str], work: Path) -> list[float]:
    """Run Biom3d's eval and return its numbers in order."""
    scores: list[float] = []
    run_theirs("eval", words, work, follow=lambda line: scores.extend(mapping.printed_scores([line])))
    return scores


def fill(rows: Sequence[Row], function: str, scores: Sequence[float]) -> None:
    """Enter the numbers of one function."""
    if len(scores) != len(rows):
        raise StepError(f"Biom3d's eval printed {len(scores)} numbers for {len(rows)} volumes; see its output above")
    for row, score in zip(rows, scores, strict=True):
        row[function] = score


def mean_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """Return the mean over cases of each class and column."""
    means: dict[str, Row] = {}
    for label in sorted({row["class"] for row in rows}):
        values = {c: [r[c] for r in rows if r["class"] == label and r[c] is not None] for c in COLUMNS}
        means[str(label)] = {c: sum(found) / len(found) if found else None for c, found in values.items()}
    return means


def _open_work(stack: ExitStack, args: argparse.Namespace) -> Path:
    result = args.out_json or args.out_csv
    if result is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="biom3d-eval-")))
    work: Path = stack.enter_context(working_folder(result))
    return work


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("eval", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
