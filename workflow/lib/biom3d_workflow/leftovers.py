"""What lies among the results and no row or model makes any more: listed with sizes, moved to a trash folder.

Only what bears the name of a result of ours is looked at; whatever else somebody keeps in these folders is theirs.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from biom3d_workflow.project import Project

TRASH = Path("trash")
_FOLD = re.compile(r"fold_(\d+)(\.partial.*)?")
_LOGS = (".log", ".jsonl", ".tsv")


def find(project: Project) -> list[Path]:
    """Return the leftovers of a project's folder, which is the working folder; whole folders where all of it is."""
    found = {*_checks(project), *_results(project), *_predictions(project), *_models(project), *_logs(project)}
    used = [Path(path).resolve() for model in project.models.values() for path in model.paths]
    # a model that is given may be one that was trained here, under a name that no model has any more
    return sorted(path for path in found if not any(one.is_relative_to(path.resolve()) for one in used))


def is_of(path: Path, dataset: str) -> bool:
    """Say whether a leftover bears the name of a data set."""
    return path.name in (dataset, f"{dataset}.partial") or (path.suffix in (*_LOGS, ".json") and path.stem == dataset)


def owner(path: Path, project: Project) -> str:
    """Return whose a leftover is, in words: a row, a model, or a part of a model."""
    parts = path.parts
    names = list(parts[3:] if parts[:2] == ("logs", "steps") else parts[2:] if parts[0] == "data" else parts[1:])
    names[-1] = names[-1].removesuffix(path.suffix) if path.suffix in (*_LOGS, ".json", ".unreadable") else names[-1]
    names = names[1:] if parts[:2] == ("results", "check") else names
    *models, last = names
    if models and (fold := _FOLD.fullmatch(last)):
        is_set_aside = (fold[2] or "").startswith(".partial-")
        return f"model '{models[0]}', {'trainings by other options, set aside' if is_set_aside else f'fold {fold[1]}'}"
    name = last.removesuffix(".partial")
    if models and name in project.datasets:
        return f"row '{name}' by model '{models[0]}'"
    if models or parts[:2] == ("results", "check") or (parts[:2] == ("logs", "steps") and parts[2] == "check"):
        return f"row '{name}'"
    return f"model '{name}'"


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all in a folder."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total


def throw_away(paths: list[Path]) -> Path:
    """Move leftovers to a folder of now, below which they have the names they had; return it.

    Raises:
        OSError: one cannot be moved; those before it have been.
    """
    folder = TRASH / time.strftime("%Y-%m-%d-%H%M%S")
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path)
    return folder


def _checks(project: Project) -> Iterator[Path]:
    for path in _in(Path("results/check")):
        if path.suffix in (".json", ".unreadable") and path.stem not in project.datasets:
            yield path


def _results(project: Project) -> Iterator[Path]:
    for model in _in(Path("results")):
        if model.name == "check" or not model.is_dir():
            continue
        if model.name not in project.models:
            if _is_result(model):
                yield model
            continue
        for path in _in(model):
            if path.is_dir() and (model.name, path.name) not in project.asked_pairs() and _is_row(path):
                yield path


def _predictions(project: Project) -> Iterator[Path]:
    for model in _in(Path("data/pred")):
        if model.name not in project.models:
            yield model
            continue
        for path in _in(model):
            if (model.name, path.name.removesuffix(".partial")) not in project.asked_pairs():
                yield path
    yield from (path for path in _in(Path("data/preprocessed")) if path.name not in project.models)


def _models(project: Project) -> Iterator[Path]:
    for model in _in(Path("logs")):
        if model.name == "steps" or not model.is_dir():
            continue
        folds = [(path, match) for path in _in(model) if (match := _FOLD.fullmatch(path.name))]
        if model.name not in project.models:
            if folds or (model / "plan.yaml").is_file():
                yield model
            continue
        for path, match in folds:  # a training by other options that was stopped is set aside as fold_K.partial-DATE
            is_set_aside = (match[2] or "").startswith(".partial-")
            if is_set_aside or int(match[1]) not in project.models[model.name].folds:
                yield path


def _logs(project: Project) -> Iterator[Path]:
    """Yield logs of steps: RULE/DATASET, RULE/MODEL, RULE/MODEL/DATASET or RULE/MODEL/fold_K."""
    for rule in _in(Path("logs/steps")):
        for path in _in(rule):
            if path.is_dir():
                if path.name not in project.models:
                    yield path
                    continue
                yield from (log for log in _in(path) if not _is_of_pair(path.name, log, project))
            elif path.suffix in _LOGS and path.stem not in {*project.models, *project.datasets, "all"}:
                yield path


def _is_of_pair(model: str, log: Path, project: Project) -> bool:
    if log.suffix not in _LOGS:
        return True
    fold = _FOLD.fullmatch(log.stem)
    if fold and int(fold[1]) in project.models[model].folds:
        return True
    return (model, log.stem) in project.asked_pairs()


def _is_result(model: Path) -> bool:
    """Say whether a folder is that of a model's results."""
    own = [model / "curves.png", model / f"{model.name}.zip"]
    return any(path.exists() for path in own) or any(_is_row(path) for path in _in(model))


def _is_row(folder: Path) -> bool:
    """Say whether a folder is that of a data set's results."""
    return any((folder / name).exists() for name in ("labels", "overlays", "metrics.json", "metrics.csv"))


def _in(folder: Path) -> list[Path]:
    """Return what is in a folder that a step could have made."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
