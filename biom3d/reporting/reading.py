"""Forgiving reads: a page about a run that failed meets files that are missing, half there or of another make."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biom3d.config import read_yaml
from biom3d.errors import ConfigError

LARGEST_TEXT = 200_000  # characters of a file that a page quotes


def read_text(path: Path) -> str:
    """Return the text of a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(LARGEST_TEXT)
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; empty where there is none."""
    try:
        return read_yaml(path)
    except ConfigError:
        return {}


def read_table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a table by the names of its columns; empty where there is none."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter, restval=""))
    except (OSError, csv.Error):
        return []
    return [{str(key): str(value) for key, value in row.items() if key is not None} for row in rows]


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a step, the earlier first."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def number(value: object) -> float | None:
    """Return a finite number, or None where the value is none."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None
