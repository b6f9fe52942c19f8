"""The table of data sets: text -> rows, and what is wrong with them."""

import codecs
import csv
import difflib
import io
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from biom3d_workflow import schema, server, xlsx
from biom3d_workflow.problems import Problem, suggestion

UNFIT = "{}<>\n\r"  # signs that mean something to Snakemake, or end a line of its messages
UNFIT_TEXT = "the path holds one of { } < > or a line break"
_IN_FILE = re.compile(r"^(.+?\.(?:tiff?|hdf5|h5|zarr)):(.+)$|^(.+?\.zarr)/(.+)$", re.IGNORECASE)
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
    notes: tuple[tuple[str, str], ...] = ()  # columns of the user's own; nothing is computed from them
    image_key: str = ""  # which array of its files; empty: the step finds out
    mask_key: str = ""

    @property
    def image_arrays(self) -> str:
        """Return the images as a step is told them: the path, and after a colon the array in its files."""
        return f"{self.images}:{self.image_key}" if self.image_key else self.images

    @property
    def mask_arrays(self) -> str:
        """Return the masks in the same way."""
        return f"{self.masks}:{self.mask_key}" if self.mask_key else self.masks

    @property
    def is_on_server(self) -> bool:
        """Say whether its paths are those of the server."""
        return self.location == server.SERVER


def read_table(file: str) -> tuple[list[Dataset], list[Problem]]:
    """Read the table; rows that cannot be understood are left out and told in the problems."""
    try:
        rows = [(line, cells) for line, cells in _rows(Path(file)) if any(cells) and not cells[0].startswith("#")]
    except (OSError, UnicodeDecodeError, xlsx.WorkbookError) as error:
        return [], [Problem(file, 0, f"cannot be read: {_reason(error)}")]
    if not rows:
        return [], [Problem(file, 0, "no header; the first line names the columns: " + ", ".join(_columns()))]
    (header_line, first), *rest = rows
    header = [_known_column(cell) for cell in first]
    problems = list(_check_header(file, header_line, header))
    datasets = []
    for line, cells in [] if problems else rest:
        dataset, wrong = _read_row(file, line, header, cells)
        problems += wrong
        if dataset:
            datasets.append(dataset)
    return datasets, problems


def switched_off(file: str) -> set[str]:
    """Return the names of rows that are there behind a #; none where the table cannot be read."""
    try:
        rows = [cells for _, cells in _rows(Path(file))]
    except (OSError, UnicodeDecodeError, xlsx.WorkbookError):
        return set()
    return {name for cells in rows if cells and cells[0].startswith("#") and (name := cells[0].lstrip("# "))}


def _columns() -> list[str]:
    return list(schema.load("datasets")["properties"])


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line of a text, or of the first sheet of an Excel workbook."""
    content = file.read_bytes()
    if content.startswith(xlsx.SIGN):
        yield from ((line, [cell.strip() for cell in cells]) for line, cells in xlsx.read_rows(file))
        return
    reader = csv.reader(io.StringIO(_decode(content)), delimiter="\t")
    line = 1
    for cells in reader:
        yield line, [cell.strip() for cell in cells]
        line = reader.line_num + 1


def _decode(content: bytes) -> str:
    """Return the text; Excel's "Unicode text" is UTF-16, and spreadsheets put a byte order mark before UTF-8 too."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text; save it as UTF-8, or as an Excel workbook (.xlsx)"
    return f"{error}; save it as tab-delimited text"


def _known_column(cell: str) -> str:
    """Return the column of ours that a cell of the header names, whatever its case; else the cell."""
    name = cell.lower().replace(" ", "_")
    return name if name in _columns() else cell


def _check_header(file: str, line: int, header: list[str]) -> Iterator[Problem]:
    if len(header) == 1 and header[0] not in _columns():
        text = f"one column found ('{header[0]}'); separate columns by tabs: {', '.join(_columns())}"
        yield Problem(file, line, text)
        return
    unknown = [column for column in dict.fromkeys(header) if column and _is_misspelt(column, header)]
    for column in unknown:
        text = f"unknown column '{column}'; {suggestion(column, _columns())}; a note of yours may have any other name"
        yield Problem(file, line, text)
    for column in dict.fromkeys(header):
        if column and header.count(column) > 1:
            yield Problem(file, line, f"column '{column}' is there twice; keep one")
    for column in schema.load("datasets")["required"]:
        if column not in header and not unknown:  # else it is probably misspelt
            yield Problem(file, line, f"column '{column}' is missing; wanted: {', '.join(_columns())}")


def _is_misspelt(column: str, header: list[str]) -> bool:
    """Say whether a column that is not ours may be meant as one of ours that is not there; else it is a note."""
    missing = [name for name in _columns() if name not in header]
    return column not in _columns() and bool(difflib.get_close_matches(column.lower(), missing, n=1))


def _read_row(file: str, line: int, header: list[str], cells: list[str]) -> tuple[Dataset | None, list[Problem]]:
    while len(cells) > len(header) and not cells[-1]:
        cells = cells[:-1]
    if len(cells) > len(header):
        text = f"{len(cells)} cells but {len(header)} columns; separate cells by exactly one tab"
        return None, [Problem(file, line, text)]
    named = list(zip(header, cells, strict=False))
    row = dict.fromkeys(_columns(), "") | {column: cell for column, cell in named if column in _columns()}
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
    location = row["location"] or server.HERE
    images, image_key = _split_key(_path(row["images"], location), row["image_key"])
    masks, mask_key = _split_key(_path(row["masks"], location), row["mask_key"])
    if mask_key and not masks:
        masks = images  # the labels are in the files of the images
    notes = tuple((column, cell) for column, cell in named if column not in _columns() and cell)
    keys = {"image_key": image_key, "mask_key": mask_key}
    return Dataset(row["dataset"], images, masks, train, predict, spacing, line, location, notes, **keys), []


def _path(cell: str, location: str) -> str:
    """Return a path in its shortest form; ~ is the home folder of who runs the workflow, and nobody's on a server."""
    # not that of Path, which fails where nobody has a home
    here = os.path.expanduser(cell) if location == server.HERE else cell  # noqa: PTH111
    return os.path.normpath(here) if cell else ""


def _split_key(path: str, key: str) -> tuple[str, str]:
    """Split `file.h5:/volumes/raw` and `image.zarr/labels/nuclei` into the file and the array in it.

    Jobs are given the file, and its name with the key. See `biom3d.io.choice.split_key`.
    """
    match = _IN_FILE.match(path) if not Path(path).is_file() else None
    if match:
        path, key = match[1] or match[3], match[2] or match[4]
    return path, key.strip("/")


def names(cell: str) -> tuple[str, ...]:
    """Split a cell at commas; each name once."""
    return tuple(dict.fromkeys(name.strip() for name in cell.split(",") if name.strip()))


def parse_spacing(cell: str) -> Spacing:
    """Read `z,y,x` in µm; ValueError when it is anything else."""
    z, y, x = (float(part) for part in cell.split(","))
    if not all(math.isfinite(value) and value > 0 for value in (z, y, x)):
        raise ValueError(cell)
    return z, y, x
