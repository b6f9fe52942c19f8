"""`python -m biom3d.report`: learning curves, overlay pictures, and one table over all metrics."""

import argparse
import csv
import dataclasses
import json
import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import add_subcommand, run_step, step_parser, text_file
from biom3d.config import SpacingUm
from biom3d.data.predictions import KINDS, UNKNOWN, read_prediction
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.files import write_csv
from biom3d.options import add_coding_options, add_key_options, add_spacing_option, coding_from, spacing_from

if TYPE_CHECKING:
    import numpy as np

    from biom3d.data.labels import Coding
    from biom3d.figures import Curve

DESCRIPTION = """Draw and collect results.

  biom3d report curves --log logs/nuclei/fold_0 logs/nuclei/fold_1 --out curves.png
  biom3d report overlay --path_in images/ --path_pred predictions/ --path_lab masks/ --out_dir overlays/
  biom3d report summary --metrics results/*/*/metrics.json --out summary.csv
  biom3d report page          # in the folder of a project: all of a run as one file, report.html"""

ALL = "(all)"  # stands for the data sets of a model in the summary
SUMMARY_COLUMNS = (
    "model", "dataset", "kind", "class", "cases", "dice_mean", "dice_worst", "worst_case",
    "iou_mean", "iou_worst", "hd95_um_mean", "hd95_um_worst",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One picture to draw: its files, and its mean Dice over classes where that is known."""

    name: str
    image: Path
    pred: Path
    true: Path | None
    dice: float | None
    suspicion: float = 0.0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line with its three commands."""
    parser = step_parser("report", DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    curves = add_subcommand(commands, "curves", "loss and Dice by epoch, one line per run")
    curves.add_argument("--log", type=Path, nargs="+", required=True, metavar="RUN", help="run folders of train")
    curves.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture: .png, .svg or .pdf")
    _add_overlay(commands)
    summary = add_subcommand(commands, "summary", "one table of all metrics.json of eval")
    summary.add_argument(
        "--metrics",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="files results/<model>/<dataset>/metrics.json; model and data set are read from the path",
    )
    summary.add_argument("--out", type=text_file, required=True, metavar="FILE", help="table to write, CSV")
    page = add_subcommand(commands, "page", "one HTML file of a whole run: scores, failures, curves, pictures")
    page.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="folder of the project (default: here)"
    )
    page.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[Path("config/config.yaml")],
        metavar="FILE",
        help="configuration, from the folder on, the one that decides first (default: config/config.yaml)",
    )
    page.add_argument(
        "--out",
        type=text_file,
        default=Path("report.html"),
        metavar="FILE",
        help="page to write (default: report.html)",
    )
    return parser


def _add_overlay(commands: Any) -> None:
    overlay = add_subcommand(commands, "overlay", "outlines over the image in three planes, a picture per case")
    for flag, required, text in (
        ("--path_in", True, "folder of images, or one file"),
        ("--path_pred", True, "folder of predictions, or one file"),
        ("--path_lab", False, "folder of true label volumes, or one file"),
        ("--metrics", False, "metrics.json of eval: the cases with the lowest Dice are drawn first"),
        ("--quality", False, "table of biom3d quality: without a Dice the most suspicious are drawn first"),
        ("--out_dir", True, "folder for <case>.png"),
    ):
        overlay.add_argument(flag, type=Path, required=required, metavar="PATH", help=text)
    overlay.add_argument("--max_cases", type=int, default=20, metavar="N", help="pictures at most (default: 20)")
    overlay.add_argument("--num_classes", type=int, metavar="N", help="default: as in --metrics, else as predicted")
    add_coding_options(overlay)
    add_key_options(overlay, "img", "msk")
    add_spacing_option(overlay)


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Run the command that was asked for."""
    commands = {"curves": run_curves, "overlay": run_overlay, "summary": run_summary, "page": run_page}
    commands[args.command](args, report)


# Learning curves


def run_curves(args: argparse.Namespace, report: Reporter) -> None:
    """Draw the learning curves of some runs."""
    from biom3d.figures import draw_curves, save_figure

    models = sorted({_model_of(run) for run in args.log})
    curves = [read_curve(run, with_model=len(models) > 1) for run in args.log]
    save_figure(draw_curves(curves, ", ".join(models)), args.out)
    report.info(f"{len(curves)} run(s) drawn to '{args.out}'")
    report.event("done", out=str(args.out))


def read_curve(run: Path, with_model: bool = False) -> "Curve":
    """Read `log/log.csv` of a run folder. Raises DataError where it is missing, empty or no such table."""
    import numpy as np

    from biom3d.figures import Curve

    path = run / "log" / "log.csv"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        columns = {
            name: np.array([float(row.get(name) or "nan") for row in rows])
            for name in ("epoch", "train_loss", "val_loss", "val_dice")
        }
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); give a run folder of train") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"'{path}' is no learning curve ({error}); give a run folder of train") from error
    if not rows or np.isnan(columns["epoch"]).any():
        raise DataError(f"'{path}' holds no finished epoch; wait for the first, or give another run")
    name = re.sub(r"^fold_(\d+)", r"fold \1", run.resolve().name)
    columns["epoch"] += 1  # people count from 1, as the lines of a training do; Biom3d's table from 0
    return Curve(f"{_model_of(run)}, {name}" if with_model else name, **columns)


def _model_of(run: Path) -> str:
    """Return <model> of logs/<model>/fold_<k>, or the name of a run folder of another form."""
    run = run.resolve()
    return run.parent.name if run.name.startswith("fold_") else run.name


# Overlays


def run_overlay(args: argparse.Namespace, report: Reporter) -> None:
    """Draw a picture per case, and a small one for the page."""
    from biom3d.reporting.previews import write_preview

    metrics = read_metrics(args.metrics) if args.metrics else {"cases": []}
    num_classes = args.num_classes or metrics.get("num_classes")
    spacing = spacing_from(args)
    cases = find_cases(args, mean_dice(metrics["cases"]), metrics.get("left_out") or ())
    chosen, left_out = choose_cases(cases, args.max_cases)
    for case in report.track(chosen, "pictures", unit="case"):
        picture = args.out_dir / f"{case.name}.png"
        dice = draw_case(case, picture, num_classes, coding_from(args, num_classes), spacing)
        write_preview(picture)
        report.event("picture", case=case.name, dice=dice)
    _tell_overlays(report, args, len(chosen), left_out)


def _tell_overlays(report: Reporter, args: argparse.Namespace, drawn: int, left_out: Sequence[Case]) -> None:
    from biom3d.data.pairing import quoted

    report.info(f"{drawn} picture(s) in '{args.out_dir}'")
    if left_out:
        last = "the least suspicious" if args.quality else "the last by name"
        rule = "those with the highest Dice" if left_out[-1].dice is not None else last
        names = quoted([case.name for case in left_out])
        report.info(f"not drawn, {rule}: {names}; --max_cases draws more than {args.max_cases}")
    report.event("done", drawn=drawn, not_drawn=[case.name for case in left_out])


def find_cases(args: argparse.Namespace, dice: dict[str, float], without_truth: Container[str] = ()) -> list[Case]:
    """Return all predictions with their images and, where given, their truth; that of some is no good."""
    from biom3d.data.pairing import match_volumes

    images = match_volumes(args.path_pred, args.path_in, ("prediction", "image"), args.img_key).pairs
    truth = {}
    if args.path_lab:
        words = ("prediction", "truth")
        found = match_volumes(args.path_pred, args.path_lab, words, args.msk_key, is_partial=True)
        truth = {pair.name: pair.second for pair in found.pairs if pair.name not in without_truth}
    suspicion = read_suspicion(args.quality) if args.quality else {}
    return [
        Case(p.name, p.second, p.first, truth.get(p.name), dice.get(p.name), suspicion.get(p.name, 0.0)) for p in images
    ]


def read_suspicion(path: Path) -> dict[str, float]:
    """Return how suspicious each case is, by a table of `biom3d quality`."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if not {"case", "suspicion"} <= set(table.fieldnames or ()):
                raise ValueError("no columns case and suspicion")
            return {row["case"]: float(row["suspicion"]) for row in table}
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); give a table of biom3d quality") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"'{path}' is no table of biom3d quality ({error}); run it again") from error


def choose_cases(cases: Sequence[Case], max_cases: int) -> tuple[list[Case], list[Case]]:
    """Return the cases to draw and those left out: lowest Dice first, without one the most suspicious."""
    if max_cases < 1:
        raise ConfigError(f"--max_cases {max_cases}: wanted at least 1")
    ordered = sorted(cases, key=lambda case: (math.inf if case.dice is None else case.dice, -case.suspicion, case.name))
    return ordered[:max_cases], ordered[max_cases:]


def draw_case(
    case: Case, out: Path, num_classes: int | None, coding: "Coding", spacing_um: SpacingUm | None
) -> float | None:
    """Draw one case to `out`; return its mean Dice over classes, or None where the truth is not known."""
    from biom3d.files import work_folder

    with work_folder(out) as folder:
        return _draw_case(case, out, num_classes, coding, spacing_um, folder)


def _draw_case(
    case: Case, out: Path, num_classes: int | None, coding: "Coding", spacing_um: SpacingUm | None, folder: Path
) -> float | None:
    from biom3d.data.dataset import read_classes
    from biom3d.figures import draw_overlay, save_figure
    from biom3d.io import read_header, read_labels
    from biom3d.io.mapped import limits
    from biom3d.metrics import clear_unknown
    from biom3d.views import make_views

    header = read_header(case.image)
    predicted = read_labels(case.pred, folder=folder)
    pred = predicted.array[0]
    num_classes = num_classes or max(limits(pred)[1], 1)
    true = read_classes(case.true, num_classes, coding, header, folder)[0] if case.true else None
    if true is not None and coding.ignore is not None:  # that is shown as background
        clear_unknown(true, true)
    if coding.values:
        pred = read_classes(case.pred, num_classes, dataclasses.replace(coding, ignore=None), folder=folder)[0]
    for what, path, labels in (("prediction", case.pred, pred), ("truth", case.true, true)):
        if labels is not None and labels.shape != header.shape[1:]:
            raise DataError(
                f"case '{case.name}': the {what} '{path}' has shape {labels.shape} (z, y, x), the image "
                f"'{case.image}' {header.shape[1:]}; give volumes of the same grid"
            )
    dice = case.dice
    if dice is None and true is not None:
        dice = _mean_dice_of(pred, true)
    views = make_views(case.image, pred, true)
    kind = read_prediction(case.pred).kind
    said = "" if kind == UNKNOWN else f" ({kind})"
    title = case.name if dice is None else f"{case.name}   Dice {dice:.3f}{said}"
    save_figure(draw_overlay(views, spacing_um or header.spacing_um or predicted.header.spacing_um, title), out)
    return dice


def _mean_dice_of(pred: "np.ndarray", true: "np.ndarray") -> float | None:
    from biom3d.io.mapped import limits
    from biom3d.metrics import score_case

    scores = score_case(pred, true, max(limits(pred)[1], limits(true)[1], 1), with_hd95=False)
    return _mean([score.dice for score in scores if score.dice is not None])


# Metrics


def run_summary(args: argparse.Namespace, report: Reporter) -> None:
    """Write and print one table over several data sets and models."""
    found = [(path, read_metrics(path)["cases"]) for path in args.metrics]
    rows = [row for path, cases in found for row in summarise(path, cases)]
    places = [(path.resolve().parent, case) for path, cases in found for case in cases]
    rows += summarise_models([(place.parent.name, place.name, case) for place, case in places])
    write_csv(args.out, SUMMARY_COLUMNS, rows, digits=4)
    print(format_table(rows))
    report.event("done", rows=len(rows), out=str(args.out))


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json of eval. Raises DataError where it is missing or something else."""
    try:
        metrics = dict(json.loads(path.read_text(encoding="utf-8")))
        _check_type("num_classes", metrics.get("num_classes", 1), int)
        _check_type("left_out", metrics.get("left_out", {}), dict)
        for row in metrics["cases"]:
            _check_type("case", row["case"], str)
            _check_type("class", row["class"], int)
            _check_type("kind", row.get("kind", UNKNOWN), str)
            for name in ("dice", "iou", "hd95_um"):
                _check_type(name, row.get(name) or 0, int | float)
        return metrics
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); give a metrics.json of eval") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"'{path}' is no metrics.json of eval ({error!r}); run eval again") from error


def _check_type(name: str, value: object, wanted: Any) -> None:
    if not isinstance(value, wanted):
        raise TypeError(f"{name} is {value!r}")


def mean_dice(rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean Dice over classes of each case that has one."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get("dice") is not None:
            values.setdefault(str(row["case"]), []).append(row["dice"])
    return {case: sum(found) / len(found) for case, found in values.items()}


def summarise(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return a row per kind and class of one metrics.json: means over cases, and the worst case."""
    place = path.resolve().parent
    return _summaries({"model": place.parent.name, "dataset": place.name}, rows)


def summarise_models(cases: Sequence[tuple[str, str, Row]]) -> list[Row]:
    """Return the same over all data sets of each model that has several; `cases` are (model, data set, row)."""
    summary = []
    for model in sorted({model for model, _, _ in cases}):
        mine = [(dataset, row) for name, dataset, row in cases if name == model]
        named = [{**row, "case": f"{dataset}/{row['case']}"} for dataset, row in mine]
        if len({dataset for dataset, _ in mine}) > 1:
            summary += _summaries({"model": model, "dataset": ALL}, named)
    return summary


def _summaries(whose: Row, rows: Sequence[Row]) -> list[Row]:
    """Return a row per kind and class; kinds of scores are never mixed."""
    groups = sorted({(_kind_of(row), row["class"]) for row in rows}, key=lambda key: (_rank(key[0]), key[1]))
    summary = []
    for kind, label in groups:
        mine = [row for row in rows if (_kind_of(row), row["class"]) == (kind, label)]
        dice, iou, hd95 = (_defined(mine, column) for column in ("dice", "iou", "hd95_um"))
        summary.append({
            **whose, "kind": kind, "class": label, "cases": len(mine),
            "dice_mean": _mean(list(dice.values())), "dice_worst": min(dice.values(), default=None),
            "worst_case": min(dice, key=lambda case: dice[case], default=None),
            "iou_mean": _mean(list(iou.values())), "iou_worst": min(iou.values(), default=None),
            "hd95_um_mean": _mean(list(hd95.values())), "hd95_um_worst": max(hd95.values(), default=None),
        })  # fmt: skip
    return summary


def _kind_of(row: Row) -> str:
    return str(row.get("kind", UNKNOWN))


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _defined(rows: Sequence[Row], column: str) -> dict[str, float]:
    return {str(row["case"]): row[column] for row in rows if row.get(column) is not None}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def format_table(rows: Sequence[Row]) -> str:
    """Return rows as an aligned table for people; undefined values are `-`."""
    cells = [list(SUMMARY_COLUMNS)]
    for row in rows:
        values = [row[column] for column in SUMMARY_COLUMNS]
        cells.append(["-" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in values])
    widths = [max(len(line[place]) for line in cells) for place in range(len(SUMMARY_COLUMNS))]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


# Page


def run_page(args: argparse.Namespace, report: Reporter) -> None:
    """Write the page of a project's folder, whatever there is in it."""
    from biom3d.files import write_text
    from biom3d.reporting.page import write_page

    if not args.folder.is_dir():
        raise DataError(f"'{args.folder}' is no folder; give the one that holds results/ and logs/")
    write_text(args.out, write_page(args.folder, args.config))
    report.info(f"'{args.out}' written; open it in a browser")
    report.event("done", out=str(args.out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("report", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
