"""By which version each trained model was made, told where this version would make another: none trains by itself."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from biom3d_workflow import VERSION
from biom3d_workflow.project import Project

FILE = "log/made_by.json"  # in a model folder; the training writes it
STEPS = ("preprocess", "train")


def describe(project: Project, numbers: Mapping[str, int], version: str = VERSION) -> list[str]:
    """Return a line for each model that another version made, with what that means and how to train it again."""
    lines = []
    for name in project.trained():
        made = _made_by(project.models[name].runs)
        if not made or (made.get("biom3d") == version and not _other(made, numbers)):
            continue
        other = _other(made, numbers)
        means = f"which computes {' and '.join(other)} in another way" if other else "which trains the same way"
        lines.append(
            f"model '{name}' was made by version {made.get('biom3d')}; this is {version}, {means}. It is used as it is;"
            f" to train it again: snakemake ... --forcerun logs/{name}/plan.yaml"
        )
    return lines


def _other(made: Mapping[str, object], numbers: Mapping[str, int]) -> list[str]:
    return [step for step in STEPS if step in numbers and made.get(step) != numbers[step]]


def _made_by(runs: Iterable[str]) -> dict[str, object]:
    """Return what the first fold says that says something; nothing for models from before it was written."""
    for run in runs:
        try:
            found = json.loads((Path(run) / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}
