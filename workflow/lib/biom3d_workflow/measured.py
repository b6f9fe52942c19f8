"""How long a fold of a model takes here, by a few batches of made-up data; measured once for the same options."""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from biom3d_workflow import commands
from biom3d_workflow.project import Project

NOTES = Path(".biom3d/speed.json")
AT_MOST_S = 300


def fold_seconds(project: Project, model: str, threads: int, say: Callable[[str], None]) -> float | None:
    """Return the seconds of one fold on this machine; None where it cannot be measured: the run will say why."""
    sets = project.training_sets(model)
    if project.engine != "biom3d" or any(row.is_on_server for row in sets):
        return None
    options = [word for word in shlex.split(commands.preprocess(project.models[model], sets)) if word != "--skip_bad"]
    key = shlex.join([*options, "--threads", str(threads)])
    notes = _read()
    if key not in notes:
        say(f"measuring how long trainings of '{model}' take here, a few batches ...")
        seconds = _measure([*options, "--threads", str(threads)])
        if seconds is None:
            return None
        notes[key] = seconds
        NOTES.parent.mkdir(exist_ok=True)
        new = NOTES.with_suffix(".new")
        new.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        new.replace(NOTES)
    return notes[key]


def _measure(options: list[str]) -> float | None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "speed.json")
        words = [sys.executable, "-m", "biom3d.plan", *options, "--measure", str(out)]
        try:
            subprocess.run(words, capture_output=True, timeout=AT_MOST_S, check=True)
            return float(json.loads(out.read_text(encoding="utf-8"))["fold_s"])
        except (OSError, ValueError, LookupError, subprocess.SubprocessError):
            return None


def _read() -> dict[str, float]:
    try:
        found = json.loads(NOTES.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, int | float)} if found else {}
