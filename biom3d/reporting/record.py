"""What was asked, with what and on what it was done, and how long it took: as the steps recorded it."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d.reporting.reading import number, read_events, read_mapping, read_table, read_text

TABLE = "config/datasets.tsv"  # where the configuration names no other
AS_READ = Path("logs", "datasets.tsv")  # as the last run read it, whatever the format


@dataclass(frozen=True)
class Request:
    """The configuration and the table of data sets, as they are now."""

    configs: tuple[tuple[str, str], ...]  # name and text
    table_name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Surroundings:
    """One combination of software and machine, and the steps that ran in it."""

    software: str
    machine: str
    steps: str


@dataclass(frozen=True)
class StepTime:
    """Time and memory of all jobs of a step, of the last attempt of each."""

    step: str
    jobs: int
    seconds: float
    longest: float
    longest_job: str
    memory_mb: float | None


def read_request(folder: Path, configs: Sequence[Path]) -> Request:
    """Read configuration and table; the first configuration that names a table decides."""
    tables = [table for config in configs if isinstance(table := read_mapping(folder / config).get("datasets"), str)]
    table_name = tables[0] if tables else TABLE
    text = _table_text(folder / AS_READ) or _table_text(folder / table_name)
    lines = csv.reader(io.StringIO(text), delimiter="\t")
    kept = [tuple(cell.strip() for cell in line) for line in lines if any(line) and not line[0].startswith("#")]
    header, rows = (kept[0], kept[1:]) if kept else ((), [])
    padded = tuple((*row, *[""] * (len(header) - len(row))) for row in rows)
    texts = tuple((_short(config), text) for config in configs if (text := read_text(folder / config)))
    return Request(texts, _short(Path(table_name)), header, padded)


def read_class_names(folder: Path, configs: Sequence[Path]) -> dict[str, list[str]]:
    """Return model -> names of its classes, as the configuration has them; the first one that names a model decides."""
    found: dict[str, list[str]] = {}
    for config in configs:
        content = read_mapping(folder / config)
        models, defaults = content.get("models"), content.get("defaults")
        common = defaults.get("class_names") if isinstance(defaults, dict) else None
        for name, own in models.items() if isinstance(models, dict) else ():
            names = own.get("class_names", common) if isinstance(own, dict) else common
            if isinstance(names, list):
                found.setdefault(str(name), [str(one) for one in names])
    return found


def _short(path: Path) -> str:
    """Return a path as people name it; where a folder lies on somebody's machine is nobody's business."""
    return path.name if path.is_absolute() else str(path)


def _table_text(path: Path) -> str:
    """Return the text of a table; a spreadsheet's own format has none."""
    text = read_text(path)
    return "" if "\0" in text or text.startswith("PK") else text


def read_surroundings(folder: Path) -> list[Surroundings]:
    """Return what the steps say of their surroundings, see `biom3d.surroundings`; what most ran in first."""
    groups: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted((folder / "logs" / "steps").glob("*/**/*.jsonl")):
        last: dict[str, dict[str, Any]] = {}
        for event in read_events(path):
            if event.get("event") == "start":
                last = {"start": event}
            elif event.get("event") == "device":
                last["device"] = event
        step = path.relative_to(folder / "logs" / "steps").parts[0]
        key = (_software(last["start"]), _machine(last["start"], last.get("device", {}))) if last else ("", "")
        groups[key][step] += 1
    found = [Surroundings(*key, _count_steps(steps)) for key, steps in groups.items()]
    order = {key: sum(steps.values()) for key, steps in groups.items()}
    return sorted(found, key=lambda item: -order[item.software, item.machine])


def _software(start: dict[str, Any]) -> str:
    packages = start.get("packages")
    versions = packages if isinstance(packages, dict) else {}
    parts = [("biom3d-workflow", start.get("version")), *versions.items(), ("Python", start.get("python"))]
    text = ", ".join(f"{name} {version}" for name, version in parts if version)
    return text + (", in an image of ours" if start.get("in_image") else "")


def _machine(start: dict[str, Any], device: dict[str, Any]) -> str:
    memory = number(start.get("memory_gb"))
    parts = [
        str(start.get("processor") or ""),
        f"{start['cores']} cores" if start.get("cores") else "",
        f"{memory:.0f} GB" if memory else "",
        str(start.get("system") or ""),
        str(device.get("name") or ""),
    ]
    return ", ".join(filter(None, parts))


def _count_steps(steps: dict[str, int]) -> str:
    return ", ".join(f"{step} ({count})" if count > 1 else step for step, count in sorted(steps.items()))


def read_times(folder: Path) -> list[StepTime]:
    """Return the run times in logs/steps/STEP/*.tsv, the longest step first."""
    jobs: dict[str, list[tuple[str, float, float | None]]] = defaultdict(list)
    for path in sorted((folder / "logs" / "steps").glob("*/**/*.tsv")):
        step, *subject = path.relative_to(folder / "logs" / "steps").with_suffix("").parts
        for row in read_table(path, "\t")[-1:]:
            seconds = number(row.get("s"))
            if seconds is not None:
                jobs[step].append(("/".join(subject), seconds, number(row.get("max_rss"))))
    return sorted((_step_time(step, found) for step, found in jobs.items()), key=lambda item: -item.seconds)


def _step_time(step: str, jobs: Iterable[tuple[str, float, float | None]]) -> StepTime:
    jobs = list(jobs)
    name, longest, _ = max(jobs, key=lambda job: job[1])
    memory = max((mb for *_, mb in jobs if mb is not None), default=None)
    return StepTime(step, len(jobs), sum(seconds for _, seconds, _ in jobs), longest, name, memory)


def plan_text(plan: dict[str, Any]) -> str:
    """Write a plan so that it can be read at a glance: one line a value, without the reasons."""
    shown = {key: json.dumps(value, ensure_ascii=False, default=str) for key, value in plan.items() if key != "why"}
    return "\n".join(f"{key}: {value}" for key, value in shown.items())
