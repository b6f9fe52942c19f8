"""The table at the end of a run: rows -> text for a screen, and logs/outcome.txt, .json and .csv."""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

FAILED, STOPPED, SKIPPED, OPEN, KEPT, PASSED = "failed", "stopped", "skipped", "not run", "kept", "passed"
PARTLY = "failed in part"
ORDER = (FAILED, PARTLY, STOPPED, SKIPPED, OPEN, KEPT, PASSED)  # what asks for something comes first
TRAINING = "(training)"  # the data set of a line about a model itself
OUTCOME = "logs/outcome"
ON_SCREEN = 40  # lines of good rows; the rest is in the file
MEANINGS = {
    FAILED: "Correct what failed, or put a # before its row in the table, and run again: what is done is kept.",
    PARTLY: "The rest of a row that failed in part is done. Mend or remove the volume that is named, and run again.",
    STOPPED: "Run the same command again: what was stopped goes on where it was.",
}


@dataclass
class Line:
    """One row with what became of it; `scores` are Dice and their kinds, `since` when its results were made."""

    dataset: str
    model: str
    state: str
    why: str = ""
    log: str = ""
    scores: list[tuple[float, str]] = field(default_factory=list)
    results: str = ""
    since: str = ""
    left_out: list[str] = field(default_factory=list)

    def details(self) -> str:
        """Say what a reader wants to know of the row."""
        told = [self.why, f"log: {self.log}" if self.log else ""]
        if self.state == KEPT:
            told.insert(0, f"since {self.since}" if self.since else "")
        if self.state in (KEPT, PASSED, PARTLY):
            told += [scores_text(self.scores), left_out_text(self.left_out, self.dataset), self.results]
        elif self.results:
            told.append(f"results of {self.since} are kept: {self.results}")
        return "; ".join(filter(None, told))


def scores_text(scores: Sequence[tuple[float, str]]) -> str:
    """Write Dice with their kinds: `Dice 0.861 (held-out), 0.9 (training)`; those of one kind together."""
    kinds = dict.fromkeys(kind for _, kind in scores)
    parts = []
    for kind in kinds:
        values = ", ".join(f"{dice:.3f}" for dice, of in scores if of == kind)
        parts.append(f"{values} ({kind})" if kind else values)
    return "Dice " + ", ".join(parts) if parts else ""


def left_out_text(names: Sequence[str], dataset: str = TRAINING) -> str:
    """Say which bad volumes a model was trained without, or a data set was segmented without."""
    verb, place = ("trained", "its plan.yaml") if dataset == TRAINING else ("segmented", "the log of predict")
    more = f" (and {len(names) - 1} more: {place})" if len(names) > 1 else ""
    return f"{verb} without {names[0]}{more}" if names else ""


def write_outcome(lines: Sequence[Line]) -> str:
    """Keep the table as text, JSON and CSV; return what to show."""
    lines = sorted(lines, key=lambda line: ORDER.index(line.state))
    Path(OUTCOME).parent.mkdir(exist_ok=True)  # no step may have got so far as to write a log
    _write(f"{OUTCOME}.txt", as_text(lines))
    _write(f"{OUTCOME}.json", as_json(lines))
    _write(f"{OUTCOME}.csv", as_csv(lines))
    return as_text(lines, ON_SCREEN)


def as_text(lines: Sequence[Line], limit: int | None = None) -> str:
    """Return the table for people; `limit` shortens the list of what is well."""
    well = [line for line in lines if line.state in (KEPT, PASSED)]
    shown = [line for line in lines if line.state not in (KEPT, PASSED)] + well[:limit]
    cells = [("data set", "model", "result", "what to know")]
    cells += [(line.dataset, line.model, line.state, line.details()) for line in shown]
    counts = Counter(line.state for line in lines)
    total = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    told = [text for state, text in MEANINGS.items() if counts[state]]
    rest = (
        [f"... and {len(well) - len(well[:limit])} more that are well: {OUTCOME}.txt"]
        if len(well[:limit]) < len(well)
        else []
    )
    return "\n".join([align(cells), *rest, "", total or "nothing to do", *told]) + "\n"


def as_json(lines: Sequence[Line]) -> str:
    """Return the table for programs."""
    rows = [{**asdict(line), "scores": [{"dice": dice, "kind": kind} for dice, kind in line.scores]} for line in lines]
    ended = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    counts = {state: sum(line.state == state for line in lines) for state in ORDER}
    return json.dumps({"ended": ended, "counts": counts, "rows": rows}, indent=1, ensure_ascii=False) + "\n"


def as_csv(lines: Sequence[Line]) -> str:
    """Return the table for spreadsheets."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [one.name for one in fields(Line)]
    writer.writerow(names)
    for line in lines:
        cells = asdict(line) | {"scores": scores_text(line.scores), "left_out": " ".join(line.left_out)}
        writer.writerow([cells[name] for name in names])
    return out.getvalue()


def align(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as a table with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _write(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    new = Path(f"{path}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
