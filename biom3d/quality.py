"""`python -m biom3d.quality`: which predictions deserve a look, the most suspicious first; no truth is needed."""

import argparse
import csv
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser, text_file
from biom3d.config import SpacingUm
from biom3d.data.predictions import read_prediction
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.files import write_csv
from biom3d.options import add_key_options, add_spacing_option, spacing_from

if TYPE_CHECKING:
    from biom3d.data.learned import TrainingSet
    from biom3d.data.pairing import Pair

DESCRIPTION = """Say which predictions may be bad, where no truth tells: a line per volume, the most suspicious first.

  biom3d quality --path_pred predictions/ --path_in images/ --log logs/nuclei/fold_0 --out_csv quality.csv
  biom3d quality --tables results/*/*/quality.csv --out_csv quality.csv

`suspicion` is the weight of the strongest sign: 0 is nothing unusual, from 1 on it is told in `flags`. Signs are folds
or mirrored views that disagree, and objects or intensities unlike those of the training set, which `train` records."""

COLUMNS = (
    "case", "kind", "suspicion", "flags", "notes", "fold_agreement", "view_agreement",
    "foreground_percent", "objects", "object_size", "size_unit", "models",
)  # fmt: skip
SHOWN = 5  # lines printed
Row = dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = step_parser("quality", DESCRIPTION)
    parser.add_argument("-p", "--path_pred", type=Path, metavar="DIR", help="folder of predictions")
    parser.add_argument("-i", "--path_in", type=Path, metavar="DIR", help="folder of their images")
    parser.add_argument("-l", "--log", type=Path, nargs="+", default=[], metavar="RUN", help="the model(s) or its zip")
    parser.add_argument("--num_classes", type=int, metavar="N", help="classes (default: as found)")
    parser.add_argument("--tables", type=Path, nargs="+", metavar="FILE", help="one table of those in MODEL/DATASET/")
    parser.add_argument("--out_csv", type=text_file, required=True, metavar="FILE", help="table to write")
    add_key_options(parser, "img")
    add_spacing_option(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Measure a folder of predictions, or collect tables."""
    if args.tables:
        rows = [row for path in args.tables for row in read_table(path)]
        columns: Sequence[str] = ("model", "dataset", *COLUMNS)
    elif args.path_pred and args.path_in:
        rows, columns = measure_folder(args, report), COLUMNS
    else:
        raise ConfigError("give --path_pred and --path_in for one table, or --tables to collect several")
    rows.sort(key=lambda row: (-float(row["suspicion"]), str(row.get("dataset")), row["case"]))
    write_csv(args.out_csv, columns, rows, digits=4)
    flagged = [row for row in rows if row["flags"]]
    for row in flagged[:SHOWN]:
        where = f"{row['dataset']} by {row['model']}: " if args.tables else ""
        print(f"{where}{row['case']}: {row['flags']}")
    report.info(f"{len(flagged)} of {len(rows)} volumes look unusual; '{args.out_csv}'")
    report.event("done", volumes=len(rows), flagged=len(flagged), out=str(args.out_csv))


def measure_folder(args: argparse.Namespace, report: Reporter) -> list[Row]:
    """Return a row per predicted volume."""
    from biom3d.data.pairing import match_volumes

    known = read_reference(args.log)
    found = match_volumes(args.path_pred, args.path_in, ("prediction", "image"), args.img_key)
    return [
        measure_pair(pair, known, args.num_classes, spacing_from(args), args.out_csv)
        for pair in report.track(found.pairs, "volumes", unit="volume")
    ]


def measure_pair(
    pair: "Pair", known: "TrainingSet | None", num_classes: int | None, spacing: SpacingUm | None, out: Path
) -> Row:
    """Measure one prediction and compare it with the training set; a large one lies beside `out` meanwhile."""
    from biom3d.data.facts import measure
    from biom3d.data.unlike import find_signs
    from biom3d.files import work_folder
    from biom3d.io import open_volume, read_labels
    from biom3d.io.mapped import limits

    with work_folder(out) as folder, open_volume(pair.second) as image:
        labels = read_labels(pair.first, folder=folder)
        array = labels.array[0]
        if image.header.shape[1:] != array.shape:
            raise DataError(
                f"case '{pair.name}': the prediction has {array.shape} voxels (z, y, x), its image "
                f"{image.header.shape[1:]}; give the images that were predicted"
            )
        spacing = spacing or image.header.spacing_um or labels.header.spacing_um
        facts = measure(array, image.read, num_classes or max(1, limits(array)[1]), spacing)
    prediction = read_prediction(pair.first)
    reference = [one.facts for one in known.volumes if one.facts] if known else []
    signs = find_signs(facts, prediction, reference, known is not None and known.scheme == "ct")
    sizes = [one.size for one in facts.classes.values() if one.size is not None]
    return {
        "case": pair.name,
        "kind": prediction.kind,
        "suspicion": max((sign.weight for sign in signs), default=0.0),
        "flags": "; ".join(sign.words for sign in signs if sign.weight >= 1),
        "notes": "; ".join(_notes(prediction.models, bool(reference))),
        "fold_agreement": prediction.fold_agreement,
        "view_agreement": prediction.view_agreement,
        "foreground_percent": 100 * sum(one.share for one in facts.classes.values()),
        "objects": sum(one.objects for one in facts.classes.values()),
        "object_size": sum(sizes) / len(sizes) if sizes else None,
        "size_unit": "µm³" if facts.is_in_um else "voxels",
        "models": " ".join(prediction.models),
    }


def _notes(models: Sequence[str], has_reference: bool) -> list[str]:
    """Say what could not be compared."""
    notes = []
    if not models:
        notes.append("predicted before agreement was recorded, or by another program")
    elif len(models) == 1:
        notes.append("predicted by one fold: none to disagree with")
    if not has_reference:
        notes.append("the model has no record of its training set to compare with")
    return notes


def read_reference(runs: Sequence[Path]) -> "TrainingSet | None":
    """Return the record of the training set of a model, of the first of its folders or zips that has one."""
    from biom3d.data.learned import NAME, parse_training_set, read_of_run

    for run in runs:
        if run.suffix == ".zip":
            with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(run) as archive:
                for name in archive.namelist():
                    if name.endswith(f"/log/{NAME}"):
                        return parse_training_set(archive.read(name).decode("utf-8"), f"{run}:{name}")
        elif (found := read_of_run(run)) is not None:
            return found
    return None


def read_table(path: Path) -> list[Row]:
    """Read a table of this step; model and data set are the folders it lies in."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows: list[Row] = list(csv.DictReader(file))
        place = path.resolve().parent
        for row in rows:
            float(row["suspicion"])
        return [{"model": place.parent.name, "dataset": place.name, **{c: row[c] for c in COLUMNS}} for row in rows]
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); give a table of quality") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"'{path}' is no table of quality ({error!r}); run quality again") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("quality", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
