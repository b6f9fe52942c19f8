"""What each person's jobs took in a month, from the gate's log: core facilities bill by it."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from biom3d.errors import ConfigError, DataError

MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
HEADER = ("person", "jobs", "failed", "open", "hours", "core_hours", "gpu_hours", "refused")


@dataclass(frozen=True)
class Usage:
    """What one person's jobs took. `open`: started and not yet removed; `refused`: what the gate did not allow."""

    person: str
    jobs: int = 0
    failed: int = 0
    open: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    refused: int = 0

    def row(self) -> tuple[str, ...]:
        """Return the line of a table, times in hours."""
        hours = (f"{value / 3600:.2f}" for value in (self.seconds, self.core_seconds, self.gpu_seconds))
        return (self.person, str(self.jobs), str(self.failed), str(self.open), *hours, str(self.refused))


def report_month(logs: Iterable[Path], month: str) -> tuple[Usage, ...]:
    """Return what was used in a month (`2026-11`, UTC), sorted by person; a job counts when it was removed.

    Raises:
        ConfigError: that is no month.
        DataError: a log cannot be read.
    """
    if not MONTH.fullmatch(month):
        raise ConfigError(f"'{month}' is no month; wanted such as 2026-11")
    return sum_up(note for path in logs for note in read_notes(path) if str(note.get("t", "")).startswith(month))


def sum_up(notes: Iterable[dict[str, Any]]) -> tuple[Usage, ...]:
    """Return the sum of notes for each person."""
    people: dict[str, Usage] = {}
    running: dict[tuple[str, str], int] = {}
    for note in notes:
        person, what = str(note.get("who", "")), note.get("what")
        used = people.setdefault(person, Usage(person))
        job = (person, str(note.get("job", "")))
        if note.get("verdict") == "refused":
            people[person] = replace(used, refused=used.refused + 1)
        elif what == "start":
            running[job] = 1
        elif what == "venv_start_job":  # without a container; its second argument is the job's id
            running[person, str(([*(note.get("args") or ()), "", ""])[1])] = 1
        elif what == "job":
            running.pop(job, None)
            people[person] = _add(used, note)
    for person, _ in running:
        people[person] = replace(people[person], open=people[person].open + 1)
    return tuple(people[person] for person in sorted(people))


def _add(used: Usage, note: dict[str, Any]) -> Usage:
    seconds = _number(note.get("seconds"))
    # The client says how many cores a job gets; what is no number counts as one.
    cores = _number(note.get("threads")) or 1.0
    return replace(
        used,
        jobs=used.jobs + 1,
        failed=used.failed + (note.get("exit") != 0),
        seconds=used.seconds + seconds,
        core_seconds=used.core_seconds + seconds * cores,
        gpu_seconds=used.gpu_seconds + seconds * len(note.get("gpus") or ()),
    )


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e9 else 0.0


def read_notes(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the notes of a log; a line that was cut off (a full disk, a power cut) is passed over."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    note = json.loads(line)
                except ValueError:
                    continue
                if isinstance(note, dict):
                    yield note
    except OSError as error:
        raise DataError(f"cannot read the log '{path}': {error.strerror}; are you its owner, or root?") from error


def report_text(usages: Iterable[Usage]) -> str:
    """Return a table, columns separated by tabs, for a terminal and for a spreadsheet."""
    return "".join("\t".join(row) + "\n" for row in (HEADER, *(usage.row() for usage in usages)))
