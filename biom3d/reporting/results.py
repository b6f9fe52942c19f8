"""What became of each model and data set: state, scores and pictures, the worst first."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from biom3d.reporting.reading import number, read_json, read_table

TRAINING = "(training)"  # the data set of a line about a model itself
DONE = ("passed", "kept")
TROUBLE = ("failed", "failed in part", "stopped", "skipped", "not run")


@dataclass(frozen=True)
class Line:
    """One line of the outcome of a run."""

    dataset: str
    model: str
    state: str
    why: str = ""
    log: str = ""
    since: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """Scores of one class of one kind: means over cases, and the Dice of each of them."""

    label: int
    kind: str
    cases: int
    values: tuple[float, ...]
    dice: float | None
    worst: float | None
    worst_case: str
    iou: float | None
    hd95: float | None
    hd95_unit: str


@dataclass(frozen=True)
class Quality:
    """What is known of a predicted volume without the truth: a line of `biom3d quality`."""

    case: str
    suspicion: float
    flags: str
    notes: str
    fold_agreement: float | None
    foreground: float | None
    objects: float | None


@dataclass(frozen=True)
class Picture:
    """One picture of a case and what is known of it."""

    name: str
    path: Path
    dice: float | None = None
    kind: str = ""
    quality: Quality | None = None

    @property
    def flags(self) -> str:
        """Return what is unusual, in words."""
        return self.quality.flags if self.quality else ""

    @property
    def order(self) -> tuple[float, float, str]:
        """Sort the lowest Dice first, then without one the most suspicious."""
        suspicion = self.quality.suspicion if self.quality else 0.0
        return math.inf if self.dice is None else self.dice, -suspicion, self.name


@dataclass(frozen=True)
class Pair:
    """A data set segmented by a model: what came of it."""

    model: str
    dataset: str
    line: Line
    scores: tuple[Score, ...] = ()
    pictures: tuple[Picture, ...] = ()
    quality: tuple[Quality, ...] = ()

    @property
    def flagged(self) -> list[Quality]:
        """Return the volumes that look unusual."""
        return [volume for volume in self.quality if volume.flags]

    @property
    def asks(self) -> bool:
        """Say whether it is not done, or not all of it: what there is may be of an earlier run."""
        return self.line.state in TROUBLE

    @property
    def order(self) -> tuple[str, float, str]:
        """Sort by model, the worst mean first; without a score last."""
        values = [score.dice for score in self.scores if score.dice is not None]
        return self.model, min(values, default=math.inf), self.dataset


@dataclass(frozen=True)
class Outcome:
    """The lines of the last run; `ended` is when it did, empty where nothing tells."""

    lines: tuple[Line, ...] = ()
    ended: str = ""

    def of(self, dataset: str, model: str) -> Line:
        """Return the line of a data set and a model; one without a state where the run had none."""
        return self._by_name.get((dataset, model), Line(dataset, model, ""))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Line]:
        return {(line.dataset, line.model): line for line in self.lines}


@dataclass(frozen=True)
class Results:
    """All that was segmented, and what of it the table no longer asks for."""

    outcome: Outcome
    pairs: tuple[Pair, ...] = ()
    orphans: tuple[str, ...] = field(default=())


def read_outcome(folder: Path) -> Outcome:
    """Read logs/outcome.json of a project's folder."""
    content = read_json(folder / "logs" / "outcome.json")
    rows = content.get("rows")
    lines = tuple(_line(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    return Outcome(lines, str(content.get("ended", "")))


def _line(row: dict[str, Any]) -> Line:
    def text(name: str) -> str:
        return str(row.get(name) or "")

    left_out = row.get("left_out")
    return Line(
        dataset=text("dataset"),
        model=text("model"),
        state=text("state"),
        why=text("why"),
        log=text("log"),
        since=text("since"),
        left_out=tuple(map(str, left_out)) if isinstance(left_out, list) else (),
    )


def read_results(folder: Path) -> Results:
    """Read what is in results/. The last outcome says what belongs to the table; without one all that is there does."""
    outcome = read_outcome(folder)
    there = _find_pairs(folder / "results")
    rows = (line for line in outcome.lines if line.model and not line.dataset.startswith("("))
    wanted = [(line.model, line.dataset) for line in rows]
    pairs = [_read_pair(folder, *pair, outcome) for pair in (wanted if outcome.lines else there)]
    orphans = [
        f"{model}/{dataset}" for model, dataset in there if outcome.lines and not outcome.of(dataset, model).state
    ]
    return Results(outcome, tuple(sorted(pairs, key=lambda pair: pair.order)), tuple(orphans))


def _find_pairs(results: Path) -> list[tuple[str, str]]:
    """Return model and data set of every folder results/MODEL/DATASET that holds a result."""
    marks = ("metrics.json", "overlays", "labels")
    folders = {path.parent for mark in marks for path in results.glob(f"*/*/{mark}")}
    return sorted((folder.parent.name, folder.name) for folder in folders)


def _read_pair(folder: Path, model: str, dataset: str, outcome: Outcome) -> Pair:
    place = folder / "results" / model / dataset
    metrics = read_json(place / "metrics.json")
    rows = [row for row in metrics.get("cases") or [] if isinstance(row, dict) and "case" in row]
    rows = [{"kind": metrics.get("kind") or "", **row} for row in rows]
    quality = _read_quality(place / "quality.csv")
    pictures = _pictures(place / "overlays", rows, quality)
    return Pair(model, dataset, outcome.of(dataset, model), tuple(_scores(rows)), tuple(pictures), tuple(quality))


def _read_quality(path: Path) -> list[Quality]:
    """Read a table of `biom3d quality`, the most suspicious volume first."""
    rows = [
        Quality(
            case=row.get("case", ""),
            suspicion=number(row.get("suspicion")) or 0.0,
            flags=row.get("flags", ""),
            notes=row.get("notes", ""),
            fold_agreement=number(row.get("fold_agreement")),
            foreground=number(row.get("foreground_percent")),
            objects=number(row.get("objects")),
        )
        for row in read_table(path)
    ]
    return sorted(rows, key=lambda volume: (-volume.suspicion, volume.case))


def _scores(rows: Sequence[dict[str, Any]]) -> Iterable[Score]:
    for kind in dict.fromkeys(str(row["kind"]) for row in rows):
        for label in sorted({int(row.get("class") or 0) for row in rows}):
            mine = [row for row in rows if row["kind"] == kind and row.get("class") == label]
            if mine:
                yield _score(label, kind, mine)


def _score(label: int, kind: str, rows: Sequence[dict[str, Any]]) -> Score:
    """Average over cases, of those where a score is defined; distances are in µm only where all are."""
    dice = {str(row["case"]): value for row in rows if (value := number(row.get("dice"))) is not None}
    iou = [value for row in rows if (value := number(row.get("iou"))) is not None]
    columns = {unit: [number(row.get(f"hd95_{unit}")) for row in rows] for unit in ("um", "voxels")}
    unit = "voxels" if all(value is None for value in columns["um"]) else "um"
    worst = min(dice, key=lambda case: dice[case], default="")
    return Score(
        label=label,
        kind=kind,
        cases=len(rows),
        values=tuple(sorted(dice.values())),
        dice=_mean(list(dice.values())),
        worst=dice.get(worst),
        worst_case=worst,
        iou=_mean(iou),
        hd95=_mean([value for value in columns[unit] if value is not None]),
        hd95_unit={"um": "µm", "voxels": "voxels"}[unit],
    )


def _pictures(folder: Path, rows: Sequence[dict[str, Any]], quality: Sequence[Quality] = ()) -> list[Picture]:
    """Return the pictures of a folder, the worst first; no copy of another one."""
    dice: dict[str, list[float]] = {}
    for row in rows:
        if (value := number(row.get("dice"))) is not None:
            dice.setdefault(str(row["case"]), []).append(value)
    kinds = {str(row["case"]): str(row["kind"]) for row in rows}
    # Runs of earlier versions kept a copy of the worst one under this name.
    paths = [path for path in sorted(folder.glob("*.png")) if path.stem in kinds or path.name != "worst_case.png"]
    volumes = {volume.case: volume for volume in quality}
    pictures = [
        Picture(path.stem, path, _mean(dice.get(path.stem, [])), kinds.get(path.stem, ""), volumes.get(path.stem))
        for path in paths
    ]
    return sorted(pictures, key=lambda picture: picture.order)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
