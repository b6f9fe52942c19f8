"""The table of data sets: text -> rows, and what is wrong with them."""

import csv
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from biom3d_workflow import schema, server
from biom3d_workflow.problems import Problem, suggestion

UNFIT = "{}<>\n\r"  # signs that mean something to Snakemake, or end a line of its messages
UNFIT_TEXT = "the path holds one of { } < > or a line break"
Spacing = tuple[float, float, float]  # µm; z, y, x


@dataclass(frozen=True)
class Dataset:
    """One row of the table; `line` is where it stands."""

    name: str
    images: str
    masks: str = ""
    train: tuple[str, ...] = ()
    predict: tuple[str, ...] = ()
    spacing_um: Spacing | None = None
    line: int = 0
    location: str = server.HERE

    @property
    def is_on_server(self) -> bool:
        """Say whether its paths are those of the server."""
        return self.location == server.SERVER


def read_table(file: str) -> tuple[list[Dataset], list[Problem]]:
    """Read the table; rows that cannot be understood are left out and told in the problems."""
    try:
        # Spreadsheets write a byte order mark, and quotes around cells that hold a comma.
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text; save it as UTF-8"
        return [], [Problem(file, 0, f"cannot be read: {reason}")]
    rows = list(_rows(text))
    if not rows:
        return [], [Problem(file, 0, "no header; the first line names the columns: " + ", ".join(_columns()))]
    (header_line, header), *rest = rows
    problems = list(_check_header(file, header_line, header))
    datasets = []
    for line, cells in [] if problems else rest:
        dataset, wrong = _read_row(file, line, header, cells)
        problems += wrong
        if dataset:
            datasets.append(dataset)
    return datasets, problems


def _columns() -> list[str]:
    return list(schema.load("datasets")["properties"])


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is neither empty nor a comment."""
    reader = csv.reader(io.StringIO(text), delimiter="\t")
    line = 1
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped) and not stripped[0].startswith("#"):
            yield line, stripped
        line = reader.line_num + 1


def _check_header(file: str, line: int, header: list[str]) -> Iterator[Problem]:
    if len(header) == 1 and header[0] not in _columns():
        text = f"one column found ('{header[0]}'); separate columns by tabs: {', '.join(_columns())}"
        yield Problem(file, line, text)
        return
    unknown = [column for column in dict.fromkeys(header) if column not in _columns()]
    for column in unknown:
        yield Problem(file, line, f"unknown column '{column}'; {suggestion(column, _columns())}")
    for column in dict.fromkeys(header):
        if header.count(column) > 1:
            yield Problem(file, line, f"column '{column}' is there twice; keep one")
    for column in schema.load("datasets")["required"]:
        if column not in header and not unknown:  # else it is probably misspelt
            yield Problem(file, line, f"column '{column}' is missing; wanted: {', '.join(_columns())}")


def _read_row(file: str, line: int, header: list[str], cells: list[str]) -> tuple[Dataset | None, list[Problem]]:
    while len(cells) > len(header) and not cells[-1]:
        cells = cells[:-1]
    if len(cells) > len(header):
        text = f"{len(cells)} cells but {len(header)} columns; separate cells by exactly one tab"
        return None, [Problem(file, line, text)]
    row = dict.fromkeys(_columns(), "") | dict(zip(header, cells, strict=False))
    texts = [f"{place[0]}: {text}" for place, text in schema.errors(row, "datasets")]
    if row["dataset"].lower().endswith(".partial"):
        texts.append("dataset: names that end in .partial are kept for unfinished work; choose another")
    for column in ("images", "masks"):
        if set(UNFIT) & set(row[column]):
            texts.append(f"{column}: {UNFIT_TEXT}; rename the folder")
    spacing = None
    if row["spacing_um"]:
        try:
            spacing = parse_spacing(row["spacing_um"])
        except ValueError:
            found = f"found '{row['spacing_um']}'; wanted: z,y,x in µm, such as 2.0,0.5,0.5"
            texts.append(f"spacing_um: {found}")
    if texts:
        return None, [Problem(file, line, text) for text in texts]
    train, predict = names(row["train"]), names(row["predict"])
    images, masks = (os.path.normpath(row[column]) if row[column] else "" for column in ("images", "masks"))
    location = row["location"] or server.HERE
    return Dataset(row["dataset"], images, masks, train, predict, spacing, line, location), []


def names(cell: str) -> tuple[str, ...]:
    """Split a cell at commas; each name once."""
    return tuple(dict.fromkeys(name.strip() for name in cell.split(",") if name.strip()))


def parse_spacing(cell: str) -> Spacing:
    """Read `z,y,x` in µm; ValueError when it is anything else."""
    z, y, x = (float(part) for part in cell.split(","))
    if not all(math.isfinite(value) and value > 0 for value in (z, y, x)):
        raise ValueError(cell)
    return z, y, x
