"""Models that are there already (`path` of a model): used, not trained. A zip, run folders, or a folder of Biom3d."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from biom3d_workflow.table import UNFIT, UNFIT_TEXT

MANIFEST, PLAN, THEIRS = "manifest.json", "plan.yaml", "log/config.yaml"
WANTED = "give a zip made by `biom3d export model`, a model folder (logs/MODEL or one of its folds), or one of Biom3d"
_CLASSES = re.compile(r"^NUM_CLASSES: (\d+)\s*$", re.MULTILINE)  # its file has tags that we do not read
MAX_BYTES = 1 << 24  # of a file that is looked at here


def find_runs(path: str) -> tuple[str, ...]:
    """Return what `biom3d pred --log` takes of a path: the folds of a folder that holds some, else the path itself."""
    folds = [fold for fold in Path(path).glob("fold_*") if re.fullmatch(r"fold_\d+", fold.name) and fold.is_dir()]
    return tuple(str(fold) for fold in sorted(folds, key=lambda fold: int(fold.name[5:]))) or (path,)


def find_problem(path: str) -> str:
    """Return what is wrong with the path of a model; empty if nothing is."""
    if set(UNFIT) & set(path):
        return f"{UNFIT_TEXT}; rename the file or folder"
    if not Path(path).exists():
        return f"'{path}' not found; {WANTED}"
    for run in find_runs(path):
        try:
            if _read(run) is None:
                return f"'{run}' holds neither {PLAN} nor {THEIRS}; {WANTED}"
        except (OSError, zipfile.BadZipFile, ValueError, yaml.YAMLError) as error:
            return f"'{run}' cannot be read ({type(error).__name__}); {WANTED}"
    return ""


def num_classes(path: str) -> int | None:
    """Return how many classes a model finds; None where it cannot be told."""
    try:
        found = _read(find_runs(path)[0])
        return None if found is None else found[0]
    except (OSError, zipfile.BadZipFile, ValueError, yaml.YAMLError):
        return None


def content(runs: Sequence[str]) -> str:
    """Return a short text that changes with what is in model folders or zips, not with where they lie or how old."""
    return hashlib.sha256("\n".join(_content(run) for run in runs).encode()).hexdigest()[:12]


def _read(run: str) -> tuple[int | None, str] | None:
    """Return the number of classes of a model and the text of its plan or configuration; None where it has neither."""
    if run.lower().endswith(".zip"):
        with zipfile.ZipFile(run) as archive:
            names = [name for name in archive.namelist() if name.endswith((f"/{PLAN}", f"/{THEIRS}"))]
            if MANIFEST not in archive.namelist() or not names:
                return None
            name = min(names, key=lambda name: (not name.endswith(PLAN), name))
            with archive.open(name) as file:
                text = file.read(MAX_BYTES).decode("utf-8")
            return _classes(text, name.endswith(PLAN)), text
    for name in (PLAN, THEIRS):
        if Path(run, name).is_file():
            with open(Path(run, name), encoding="utf-8") as file:
                text = file.read(MAX_BYTES)
            return _classes(text, name == PLAN), text
    return None


def _classes(text: str, is_ours: bool) -> int | None:
    if not is_ours:
        found = _CLASSES.search(text)
        return int(found[1]) if found else None
    plan: Any = yaml.safe_load(text)
    number = plan.get("num_classes") if isinstance(plan, Mapping) else None
    return number if isinstance(number, int) else None


@cache
def _content(run: str) -> str:
    if run.lower().endswith(".zip"):
        try:
            with zipfile.ZipFile(run) as archive:  # it names the SHA-256 of every file in it
                return json.dumps(json.loads(archive.read(MANIFEST)).get("files"), sort_keys=True)
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, AttributeError):
            return run
    digest = hashlib.sha256()
    for path in _files(Path(run)):
        with open(path, "rb") as file:
            digest.update(f"{path.relative_to(run)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _files(run: Path) -> Iterator[Path]:
    """Yield the files of a model folder that predictions read."""
    for name in (PLAN, THEIRS, "log/training_set.json"):
        if (run / name).is_file():
            yield run / name
    yield from sorted((run / "model").glob("*_best.pth"))
