"""What report.html shows of a run and nothing else keeps: the table as the run read it, be it text or a workbook."""

import csv
from collections.abc import Iterable
from pathlib import Path

from biom3d_workflow.table import Dataset

TABLE = "logs/datasets.tsv"


def write_table(datasets: Iterable[Dataset], file: str = TABLE) -> None:
    """Write the rows with the columns that any of them uses."""
    rows = [_cells(row) for row in datasets]
    columns = [name for name in dict.fromkeys(key for row in rows for key in row) if any(row.get(name) for row in rows)]
    Path(file).parent.mkdir(exist_ok=True)
    new = Path(f"{file}.new")
    with new.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(file)


def _cells(row: Dataset) -> dict[str, str]:
    spacing = ",".join(f"{value:g}" for value in row.spacing_um or ())
    return {
        "dataset": row.name,
        "images": row.image_arrays,
        "masks": row.mask_arrays if row.masks else "",
        "train": ", ".join(row.train),
        "predict": ", ".join(row.predict),
        "spacing_um": spacing,
        "location": row.location if row.is_on_server else "",
        **dict(row.notes),
    }
