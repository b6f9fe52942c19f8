"""What a run is going to replace, for people: each trained model with what it cost, the other results counted."""

import csv
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from biom3d_workflow import records
from biom3d_workflow.identity import longer
from biom3d_workflow.kept import Job

WORDS = {  # rules whose results people know by another name
    "check": "check",
    "predict": "prediction",
    "evaluate": "table of metrics",
    "quality": "table of quality",
    "qualities": "list of unusual volumes",
    "preprocess": "preprocessing",
    "export_labels": "folder of labels",
    "overlay": "folder of pictures",
    "export_model": "packed model",
    "curves": "learning curve",
    "summary": "summary",
}


def describe(jobs: Iterable[Job]) -> list[str]:
    """Return a line for each trained model that is replaced or goes on, and one for all the rest; none for nothing."""
    there = [job for job in jobs if any(os.path.lexists(output) for output in job.outputs)]
    models = dict.fromkeys(job.wildcards[0] for job in there if job.rule == "train")
    lines = []
    for model in models:
        runs = [Path(job.outputs[0]) for job in there if job.rule == "train" and job.wildcards[0] == model]
        what = f"trained model '{model}' ({describe_model(runs)})"
        steps = {
            longer(records.identity(records.read(job.outputs[0])), job.identity)
            for job in there
            if job.rule == "train" and job.wildcards[0] == model
        }
        if len(steps) == 1 and (epochs := steps.pop()):
            lines.append(f"goes on with {what}: from {epochs[0]} to {epochs[1]} epochs")
        else:
            lines.append(f"replaces {what}; it is kept until the new one is whole")
    counts = Counter(WORDS[job.rule] for job in there if job.rule in WORDS and job.rule != "preprocess")
    if counts:
        found = (counted(word, counts[word]) for word in WORDS.values() if word in counts)
        lines.append(f"replaces {', '.join(found)}")
    return lines


def describe_model(runs: Iterable[Path]) -> str:
    """Return what trained folds are: `100 epochs, Dice 0.91, 3 h 10 min`, folds summed up."""
    curves = [rows for run in runs if (rows := _curve(run))]
    if not curves:
        return "no learning curve"
    epochs = max(len(rows) for rows in curves)
    best = [max(float(row["val_dice"]) for row in rows) for rows in curves]
    seconds = sum(float(row["seconds"]) for rows in curves for row in rows)
    folds = f"{len(curves)} folds of " if len(curves) > 1 else ""
    dice = sum(best) / len(best)
    return f"{folds}{epochs} epoch{'s' if epochs > 1 else ''}, Dice {dice:.2f}, {duration(seconds)}"


def duration(seconds: float) -> str:
    """Return a time in the two largest units that count."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _curve(run: Path) -> list[dict[str, str]]:
    try:
        with open(run / "log" / "log.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
            return [row for row in rows if float(row["val_dice"]) >= 0 and float(row["seconds"]) >= 0]
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return []


def counted(word: str, number: int) -> str:
    """Return `1 folder of labels`, `2 folders of labels`."""
    if number == 1:
        return f"1 {word}"
    first, of, rest = word.partition(" of ")
    return f"{number} {first}s{of}{rest}"
