"""What a run is going to do, on one screen, before its first job: trained, predicted, replaced, how long, how much."""

import logging
import os
import shutil
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d_workflow import kept, replaces
from biom3d_workflow.forecast import count_jobs, duration_text, forecast, size_text, training_seconds
from biom3d_workflow.outcome_table import align
from biom3d_workflow.project import Model, Project

LOGGER = "biom3d"  # our logger plugin
NOTHING = "Nothing to be done"  # how Snakemake begins to say so
EVENT = "run_info"  # Snakemake counts its jobs then: the graph is there, nothing has been touched
SHOWN = 6  # models, and rows that cannot be read
Measure = Callable[[str], float | None]
NO_WORK = ("all", "report", "unreadable")  # rules that compute nothing
ORDER = ("train", "predict", "check", "preprocess", "evaluate", "export_labels", "overlay", "curves")
STEPS = {"export_labels": "export", "export_model": "pack", "overlay": "pictures", "qualities": "unusual volumes"}


@dataclass(frozen=True)
class Todo:
    """A job to come: its rule, its wildcards in their order, what it makes, and of what (see `identity`)."""

    rule: str
    wildcards: Mapping[str, str]
    outputs: tuple[str, ...] = ()
    identity: str = ""

    @property
    def replaces(self) -> bool:
        """Say whether something of it is there already."""
        return any(map(os.path.lexists, self.outputs))


def describe(
    project: Project,
    jobs: Sequence[Todo],
    cores: int | None,
    measure: Measure = lambda model: None,
    is_sent: bool = False,
) -> tuple[str, list[str]]:
    """Return the screen, and the trained models that are replaced.

    `cores`: of this machine, where it computes; None elsewhere. `measure` is asked for the seconds of a fold of a
    model of which no epoch is known. `is_sent`: data go to a host over SSH.
    """
    counts = Counter(job.rule for job in jobs if job.rule not in NO_WORK)
    rows = [*_trainings(project, jobs), *_predictions(jobs), *_rest(counts), *_lost(project)]
    rows += [("time", _time(project, jobs, cores, measure)), ("data", _sizes(project, jobs))]
    count = sum(counts.values())
    rows += [("send", _sent(project, jobs))] if is_sent else []
    title = f"To do: {count} job{'' if count == 1 else 's'}"
    table = align([row for row in rows if row[1]]).splitlines()
    old = [kept.Job(job.rule, tuple(job.wildcards.values()), job.outputs, job.identity) for job in jobs if job.replaces]
    replaced = replaces.describe(old)
    models = [name for name in project.models if any(f"replaces trained model '{name}' " in line for line in replaced)]
    return "\n".join([title, *(f"  {line}" for line in (*table, *replaced))]), models


def _trainings(project: Project, jobs: Sequence[Todo]) -> list[tuple[str, str]]:
    folds: dict[str, list[Todo]] = defaultdict(list)
    for job in jobs:
        if job.rule == "train":
            folds[job.wildcards["model"]].append(job)
    lines = [("train", _training(project.models[name], folds[name])) for name in sorted(folds)]
    more = [("", f"and {len(lines) - SHOWN} more models")] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _training(model: Model, jobs: Sequence[Todo]) -> str:
    count = f"{len(jobs)} fold{'s' if len(jobs) > 1 else ''}"
    limit = model.options["max_minutes"]
    text = f"{model.name}: {count} of {model.options['num_epochs']} epochs"
    text += f", at most {limit:g} min each" if limit else ""
    is_started = any(Path(f"{run}.partial").exists() for run in model.runs)
    return f"{text}; goes on where it was stopped" if is_started else text


def _predictions(jobs: Sequence[Todo]) -> list[tuple[str, str]]:
    by_model: dict[str, list[Todo]] = defaultdict(list)
    for job in jobs:
        if job.rule == "predict":
            by_model[job.wildcards["model"]].append(job)
    lines = []
    for name in sorted(by_model):
        count = len(by_model[name])
        lines.append(("predict", f"{count} data set{'s' if count > 1 else ''} with {name}"))
    more = [("", f"and with {len(lines) - SHOWN} more models")] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _rest(counts: Counter[str]) -> list[tuple[str, str]]:
    others = [rule for rule in sorted(counts, key=_place) if rule not in ("train", "predict")]
    return [("besides", ", ".join(replaces.counted(replaces.WORDS.get(rule, rule), counts[rule]) for rule in others))]


def _place(rule: str) -> tuple[int, str]:
    """Return where a rule stands in the course of the work."""
    return (ORDER.index(rule) if rule in ORDER else len(ORDER)), rule


def _lost(project: Project) -> list[tuple[str, str]]:
    lines = [("left out", f"{name}: {why}") for name, why in project.unreadable.items()]
    lines += [("left out", f"model {name}: {why}") for name, why in project.stuck.items()]
    more = [("", f"and {len(lines) - SHOWN} more")] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _time(project: Project, jobs: Sequence[Todo], cores: int | None, measure: Measure) -> str:
    known: dict[str, float] = {}
    is_limited = False
    for name in {job.wildcards["model"] for job in jobs if job.rule == "train"}:
        model = project.models[name]
        seconds = training_seconds(name, model.runs, model.options["num_epochs"], model.options["num_steps"])
        limit = model.options["max_minutes"]
        if seconds is None:  # nothing is measured where the limit decides anyway
            seconds = limit * 60 if limit else measure(name)
        if limit and seconds is not None and seconds >= limit * 60:
            seconds, is_limited = limit * 60, True
        if seconds is not None:
            known[name] = seconds
    counted = count_jobs((job.rule, job.wildcards) for job in jobs if job.rule not in NO_WORK)
    if not counted:
        return ""
    found = forecast(counted, cores or 1, known)
    if not found.measured:
        return "not known: no job of this kind has been measured here yet"
    where = f"with {cores} core{'s' if cores > 1 else ''}" if cores else "of computing, added up"
    unknown = [STEPS.get(rule, rule) for rule in sorted(found.unknown, key=_place)]
    more = f" and {len(unknown) - 2} more steps" if len(unknown) > 2 else ""
    rest = f", without {', '.join(unknown[:2])}{more}, never measured here" if unknown else ""
    by = "what was measured here and by max_minutes" if is_limited else "what was measured here"
    return f"about {duration_text(found.seconds)} {where}, by {by}{rest}"


def _sizes(project: Project, jobs: Sequence[Todo]) -> str:
    """Tell how much the data sets of the jobs are, and how much room is left for results."""
    names = {job.wildcards["dataset"] for job in jobs if "dataset" in job.wildcards and job.rule not in NO_WORK}
    sizes = [_size(path) for name in names for path in project.inputs(project.datasets[name])[0]]
    free = size_text(shutil.disk_usage(".").free)
    found = f"{len(sizes)} image{'' if len(sizes) == 1 else 's'}, {size_text(sum(sizes))}; " if sizes else ""
    return f"{found}{_results(project, jobs)}{free} free on this disk"


def _sent(project: Project, jobs: Sequence[Todo]) -> str:
    """Tell how much goes to the host at most: what it has already is found out, and not sent, when jobs begin."""
    names = {job.wildcards["dataset"] for job in jobs if "dataset" in job.wildcards and job.rule not in NO_WORK}
    trained = [job.wildcards["model"] for job in jobs if job.rule == "preprocess"]
    names |= {row.name for model in trained for row in project.training_sets(model)}
    rows = [project.datasets[name] for name in names if not project.datasets[name].is_on_server]
    size = sum(_size(path) for row in rows for paths in project.inputs(row) for path in paths)
    return f"up to {size_text(size)}; what is there already is not sent again" if size else ""


def _results(project: Project, jobs: Sequence[Todo]) -> str:
    """Tell how large predictions and their exports will be, by those that are there; else at most as all of the images.

    A label takes no more bytes than a value of an image, and is packed better.
    """
    pairs = [(job.wildcards["model"], job.wildcards["dataset"]) for job in jobs if job.rule == "predict"]
    if not pairs or any(project.models[model].options["scores"] for model, _ in pairs):
        return ""
    size = sum(
        _size_of_images(project, name) * (1 + len(project.models[model].options["formats"])) for model, name in pairs
    )
    return f"results take up to {size_text(size)}; "


def _size_of_images(project: Project, name: str) -> int:
    return sum(_size(path) for path in project.inputs(project.datasets[name])[0])


def _size(path: str) -> int:
    """Return the bytes of a file; a .zarr is a folder of many, whose sizes nobody waits for here."""
    try:
        facts = Path(path).stat()
    except OSError:
        return 0
    return 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size


class Announcer(logging.Filter):
    """Adds the plan to Snakemake's event that counts the jobs, before any of them starts.

    `make` returns the plan and the models that are replaced; `agree` finds out whether somebody minds, and says whether
    it has shown the plan.
    """

    def __init__(self, make: Callable[[], tuple[str, list[str]]], agree: Callable[[str, list[str]], bool]) -> None:
        super().__init__()
        self._make, self._agree, self._is_told = make, agree, False

    def filter(self, record: Any) -> bool:
        """Let everything pass."""
        if getattr(record, "event", None) == EVENT and not self._is_told:
            self._is_told = True
            record.plan, replaced = self._make()
            if replaced and self._agree(record.plan, replaced):
                record.plan = ""  # the question came with it
        return True


class Idle(logging.Filter):
    """Leaves it to `tell` to say that there is nothing to do: Snakemake calls nobody else before it ends."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def filter(self, record: Any) -> bool:
        """Let everything else pass."""
        is_idle = str(record.msg).startswith(NOTHING)
        if is_idle:
            self._tell(str(record.msg))
        return not is_idle


def ask(plan: str, replaced: list[str]) -> bool:
    """Ask on a terminal whether trained models may be replaced; elsewhere nobody is there to ask. Say whether it was.

    Raises:
        ValueError: they may not.
    """
    if not sys.stdin.isatty():
        return False
    print(plan, file=sys.stderr)
    names = ", ".join(replaced)
    print(f"Replace what is trained of {names}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError(f"nothing was changed; {names} stays as it is")
    return True
