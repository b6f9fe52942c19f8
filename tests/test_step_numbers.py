"""The figures of small fixed runs of each step, beside the step's number: other figures need a higher number.

Figures are rounded so far that CPUs agree. When this fails: if the step is meant to compute something else now, raise
its number in biom3d/steps.py, say so in CHANGELOG.md, and write `python -m tests.test_step_numbers` over the table.
"""

import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from biom3d import check, pred, preprocess, quality, report, synth, train
from biom3d import eval as evaluation
from biom3d.export import __main__ as export
from biom3d.io import read_volume
from biom3d.models import build_network
from biom3d.steps import NUMBERS
from biom3d.training.checkpoint import best_path, load_run_plan, save_checkpoint

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("step_numbers.json")
pytestmark = pytest.mark.system
Figures = list[float] | dict[str, float]


def figures(folder: Path) -> dict[str, Figures]:
    """Run every step once on small cells; return some figures of what each makes."""
    with contextlib.chdir(folder):
        _call(synth, "cells --count 3 --shape 16 24 24 --cells 4 --seed 3")
        _call(check, "--img_path cells/images --msk_path cells/masks --num_classes 1 --out check.json")
        plan = "--num_classes 1 --folds 2 --num_epochs 1 --num_steps 4 --width 4 --max_dim 16"
        plan += " --memory_target 4 --device cpu"
        data = "--desc m --out_dir data --plan_out plan.yaml"
        _call(preprocess, f"--img_path cells/images --msk_path cells/masks {plan} {data}")
        _call(train, "--config plan.yaml --data_dir data --run_dir run --threads 1 --precision float32")
        curve = _rows("run/log/log.csv")
        _set_weights(Path("run"))
        _call(pred, "--log run --path_in cells/images --out_dir predicted --no_tta --threads 1")
        _call(
            evaluation, "--path_pred predicted --path_lab cells/masks --num_classes 1 --out_csv m.csv --out_json m.json"
        )
        _call(quality, "--path_pred predicted --path_in cells/images --log run --num_classes 1 --out_csv quality.csv")
        _call(export, "labels --path_pred predicted --path_in cells/images --formats ome-tiff --out_dir labels")
        _call(export, "model --log run --out m.zip")
        _call(report, "curves --log run --out curves.png")
        _call(report, "overlay --path_pred predicted --path_in cells/images --out_dir overlays")
        _call(report, "summary --metrics m.json --out summary.csv")
        return {
            "check": _numbers(json.loads(Path("check.json").read_text())),
            "preprocess": [f for path in sorted(Path("data").rglob("*.npy")) for f in _facts(np.load(path))],
            "train": [float(curve[0][name]) for name in ("train_loss", "val_loss", "val_dice")],
            "pred": [f for path in sorted(Path("predicted").glob("*.tif")) for f in _facts(read_volume(path).array)],
            "eval": _numbers(json.loads(Path("m.json").read_text())),
            "quality": _numbers(_rows("quality.csv")),
            "export labels": [f for path in sorted(Path("labels").glob("*")) for f in _facts(read_volume(path).array)],
            "export model": [float(len(zipfile.ZipFile("m.zip").namelist()))],
            "report curves": _facts(imread("curves.png")),
            "report overlay": [f for path in sorted(Path("overlays").glob("*.png")) for f in _facts(imread(path))],
            "report summary": _numbers(_rows("summary.csv")),
        }


def _call(step, words: str) -> None:
    assert step.main(words.split()) == 0


def _set_weights(run: Path) -> None:
    """Give the model weights that do not come from a training, whose last digits depend on the processor."""
    network = build_network(load_run_plan(run))
    rng = np.random.default_rng(0)
    weights = {
        name: torch.from_numpy(rng.normal(0, 0.3, tuple(value.shape)).astype(np.float32))
        for name, value in network.state_dict().items()
    }
    path = best_path(run, "m")
    save_checkpoint(path, {"epoch": 0, "model": weights, "prior_shift": [0.0, 0.0]})


def _rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _facts(array: np.ndarray) -> list[float]:
    """Return mean, spread and the centre of an array."""
    array = np.asarray(array, float)
    total = array.sum() or 1.0
    centres = [
        float((array.sum(tuple(set(range(array.ndim)) - {a})) @ np.arange(n)) / total)
        for a, n in enumerate(array.shape)
    ]
    return [float(array.mean()), float(array.std()), *(centres if array.min() >= 0 else [])]


def _numbers(value, place: str = "") -> dict[str, float]:
    """Return all numbers in a JSON value by their places, so that what is new beside them does not count."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: number for key, item in items for name, number in _numbers(item, f"{place}/{key}").items()}
    with contextlib.suppress(TypeError, ValueError):
        return {place: float(value)} if np.isfinite(float(value)) else {}
    return {}


def _rounded(values: Figures) -> Figures:
    if isinstance(values, dict):
        return {place: round(value, 6) for place, value in values.items()}
    return [round(value, 6) for value in values]


TOLERANCE = {"pred": 0.02, "eval": 0.05, "export labels": 0.02, "report curves": 0.02, "report overlay": 0.02}
TOLERANCE |= {"quality": 0.05, "report summary": 0.05, "train": 0.01}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The figures of now, from a process of its own: oneDNN reads once, for ever, which instructions it may use."""
    file = tmp_path_factory.mktemp("steps") / "figures.json"
    command = [sys.executable, "-m", "tests.test_step_numbers", str(file)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)
    return json.loads(file.read_text())


@pytest.mark.parametrize("step", sorted(NUMBERS))
def test_other_figures_have_another_number(found, step):
    known = json.loads(TABLE.read_text())[step]
    assert known["number"] == NUMBERS[step], "the number was raised: write the table anew, see the top"
    seen = found[step]
    if isinstance(seen, dict):
        seen = {place: seen.get(place) for place in known["figures"]}
    wanted = pytest.approx(known["figures"], rel=TOLERANCE.get(step, 1e-3), abs=1e-3)
    assert seen == wanted, f"{step} computes something else: raise its number in biom3d/steps.py"


if __name__ == "__main__":
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    with tempfile.TemporaryDirectory() as place:
        made = figures(Path(place))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(made))
        raise SystemExit
    table = {step: {"number": NUMBERS[step], "figures": _rounded(values)} for step, values in made.items()}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
