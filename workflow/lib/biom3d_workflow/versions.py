"""Versions of trained models that were replaced: listed, and brought back as a model of their own.

A version lies in `.biom3d/replaced`, its plan and its folds as entries (see `kept`) that were made of the same. When
config.yaml asks for a version, a run takes it by itself; `lay_out` is for using one beside the model that replaced it.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biom3d_workflow import kept, replaces
from biom3d_workflow.identity import MARK, of_all_folds

MODELS = Path("models")  # where a version is laid, for `path:` of a model


@dataclass(frozen=True)
class Version:
    """A trained model that was replaced: its folds by number, when, and what it was made of."""

    model: str
    made_of: str
    folds: dict[str, Path]
    replaced: float

    @property
    def name(self) -> str:
        """Return what people call it: the model, and a word that stands for its data and options."""
        return f"{self.model}-{hashlib.sha256(self.made_of.encode()).hexdigest()[:6]}"

    @property
    def line(self) -> str:
        """Say what it is: `nuclei-3f2a1b  replaced 2026-11-30 14:02  2 folds of 100 epochs, Dice 0.91, 3 h 10 min`."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.replaced))
        return f"{self.name}  replaced {when}  {replaces.describe_model(self.folds.values())}"


def find(folder: Path = kept.REPLACED) -> list[Version]:
    """Return the versions that have a trained fold, the last replaced first."""
    found: dict[tuple[str, str], dict[str, kept.Entry]] = {}
    for entry in kept.entries(folder):
        if entry.job.rule == "train":
            model, fold = entry.job.wildcards
            made_of = of_all_folds(entry.identity).removeprefix(MARK)
            found.setdefault((model, made_of), {})[fold] = entry
    versions = [
        Version(
            model,
            made_of,
            {fold: entry.folder / "0" for fold, entry in sorted(folds.items())},
            max((entry.folder / kept.ENTRY).stat().st_mtime for entry in folds.values()),
        )
        for (model, made_of), folds in found.items()
    ]
    return sorted(versions, key=lambda version: -version.replaced)


def is_asked_for(version: Version, identify: Callable[..., str]) -> bool:
    """Say whether config.yaml asks for a version now, so that the next run takes it."""
    try:
        wanted = [identify("train", version.model, fold) for fold in version.folds]
    except KeyError:  # no such model any more
        return False
    return all(of_all_folds(text).removeprefix(MARK) == version.made_of for text in wanted)


def lay_out(version: Version) -> Path:
    """Lay a version into a folder of its own, which a model may name as `path`; nothing else is touched.

    Raises:
        OSError: it cannot be written.
    """
    target = MODELS / version.name
    new = target.with_name(f".{target.name}.new")
    if target.exists():
        return target  # it has been laid there before; the name stands for what it is made of
    kept.remove(new)
    for fold, source in version.folds.items():
        kept.link(source, new / f"fold_{fold}")
    new.rename(target)
    return target
