"""The first sheet of an Excel workbook as rows of text; a workbook is a zip of XML files."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

SIGN = b"PK\x03\x04"  # opens every zip
MAX_BYTES = 50_000_000  # of one file in it; a table of a million cells has fewer
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


class WorkbookError(ValueError):
    """What is there is no workbook that can be read; the text says why."""


def read_rows(file: Path) -> list[tuple[int, list[str]]]:
    """Return number and cells of every row of the first sheet, cells as Excel keeps them: text, or numbers as text.

    Raises:
        WorkbookError: it is none, or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            texts = _shared_texts(archive)
            sheet = _parse(archive, _first_sheet(archive))
    except (KeyError, StopIteration, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise WorkbookError(f"no Excel workbook that can be read ({error})") from error
    rows = enumerate(sheet.iter(f"{_MAIN}row"), start=1)
    return [(int(row.get("r", number)), _cells(row, texts)) for number, row in rows]


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise WorkbookError(f"too large: its part {name} has more than {MAX_BYTES // 1_000_000} MB")
    text = archive.read(name)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:  # Excel writes none; entities could stand for endless text
        raise WorkbookError("no Excel workbook: it declares entities")
    return ElementTree.fromstring(text)  # noqa: S314 (nothing is declared)


def _shared_texts(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    return [_text(item) for item in _parse(archive, "xl/sharedStrings.xml").iter(f"{_MAIN}si")]


def _first_sheet(archive: zipfile.ZipFile) -> str:
    """Return the name in the archive of the sheet that comes first in the workbook."""
    link = next(_parse(archive, "xl/workbook.xml").iter(f"{_MAIN}sheet")).get(_LINK)
    links = _parse(archive, "xl/_rels/workbook.xml.rels")
    target = next(str(entry.get("Target")) for entry in links if entry.get("Id") == link)
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _cells(row: ElementTree.Element, texts: list[str]) -> list[str]:
    """Return the cells of a row from column A on; Excel leaves empty ones out."""
    cells = dict(_placed(row, texts))
    return [cells.get(place, "") for place in range(max(cells, default=-1) + 1)]


def _placed(row: ElementTree.Element, texts: list[str]) -> Iterator[tuple[int, str]]:
    for number, cell in enumerate(row.iter(f"{_MAIN}c")):
        kind, value = cell.get("t", "n"), cell.findtext(f"{_MAIN}v", "")
        if kind == "s":
            value = texts[int(value)] if value.isdecimal() and int(value) < len(texts) else ""
        elif kind == "inlineStr":
            value = _text(cell)
        place = _column(cell.get("r", ""))
        yield (number if place is None else place), value


def _text(element: ElementTree.Element) -> str:
    """Return the text of a cell: of all its parts, which differ in format; not what it is pronounced like."""
    spoken = {id(part) for aside in element.iter(f"{_MAIN}rPh") for part in aside.iter(f"{_MAIN}t")}
    return "".join(part.text or "" for part in element.iter(f"{_MAIN}t") if id(part) not in spoken)


def _column(place: str) -> int | None:
    """Return the number of the column, 0 for A1, 26 for AA7."""
    letters = re.match(r"[A-Z]{1,3}", place)
    if not letters:
        return None
    number = 0
    for letter in letters[0]:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
