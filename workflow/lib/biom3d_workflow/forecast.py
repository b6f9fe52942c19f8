"""How long a run will take, by what earlier jobs of the same kind took (the files of Snakemake's `benchmark:`)."""

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import yaml

BENCHMARKS = Path("logs/steps")
LOOKED_AT = 20  # benchmarks of a rule; thousands would take longer to read than they make the mean better
# What the rules ask for (a test compares); a machine with fewer cores gives what it has.
THREADS = {"train": 8, "predict": 8, "preprocess": 4}


@dataclass(frozen=True)
class Forecast:
    """Seconds on this machine with all its cores; `unknown` are rules of which no job has been measured."""

    seconds: float
    unknown: tuple[str, ...]
    measured: int


def forecast(jobs: Mapping[tuple[str, str], int], cores: int, training_s: Mapping[str, float]) -> Forecast:
    """Add up jobs, counted by rule and model ('' for none). `training_s`: seconds of one fold, where that is known."""
    total, measured, unknown = 0.0, 0, dict[str, None]()
    for (rule, model), count in jobs.items():
        times = read_times(rule, model) if rule != "train" else []  # trainings differ in length
        if rule == "train" and model in training_s:
            times = [training_s[model]]
        if not times:
            unknown[rule] = None
            continue
        measured += len(times)
        total += count * mean(times) * min(THREADS.get(rule, 1), cores) / cores
    return Forecast(total, tuple(unknown), measured)


def read_times(rule: str, model: str = "") -> list[float]:
    """Return seconds that jobs of a rule took, of this model if there are any, else of all."""
    folder = BENCHMARKS / rule
    of_model = itertools.chain((folder / model).glob("*.tsv"), [folder / f"{model}.tsv"]) if model else iter(())
    for files in (of_model, folder.rglob("*.tsv")):
        times = [seconds for file in itertools.islice(files, LOOKED_AT) for seconds in _seconds(file)]
        if times:
            return times
    return []


def _seconds(file: Path) -> Iterable[float]:
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        return [float(row["s"]) for row in rows]
    except (OSError, ValueError, LookupError, TypeError, csv.Error):
        return []


def training_seconds(model: str, runs: Sequence[str], epochs: int, steps: int) -> float | None:
    """Return what one fold will take by the epochs that are done, of a finished or an unfinished training; else None.

    A training that goes on does only what is left; this is the whole of it.
    """
    for run in runs:
        for folder in (Path(run), Path(f"{run}.partial")):
            per_epoch = epoch_seconds(folder)
            if per_epoch is not None:
                return per_epoch * epochs * steps / (_steps(folder, model) or steps)
    return None


def epoch_seconds(run: Path) -> float | None:
    """Return the mean seconds of an epoch, by log/log.csv of a run."""
    try:
        rows = list(csv.DictReader((run / "log" / "log.csv").read_text(encoding="utf-8").splitlines()))
        return mean(float(row["seconds"]) for row in rows)
    except (OSError, ValueError, LookupError, TypeError, csv.Error):  # StatisticsError is a ValueError
        return None


def _steps(run: Path, model: str) -> int | None:
    for plan in (run / "plan.yaml", Path(f"logs/{model}/plan.yaml")):
        try:
            return int(yaml.safe_load(plan.read_text(encoding="utf-8"))["num_steps"])
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
            continue
    return None


def count_jobs(jobs: Iterable[tuple[str, Mapping[str, str]]]) -> Counter[tuple[str, str]]:
    """Count jobs, given as rule and wildcards, by rule and model."""
    return Counter((rule, str(wildcards.get("model", ""))) for rule, wildcards in jobs)


def duration_text(seconds: float) -> str:
    """Write a duration in the units that matter: `40 s`, `12 min`, `3 h 10 min`, `2 days 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def size_text(size: float) -> str:
    """Write bytes as `12.3 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
