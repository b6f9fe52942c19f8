"""Options of the model and the data set -> words of the step's command line, quoted for the shell."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from biom3d_workflow.project import Model
from biom3d_workflow.table import Dataset, Spacing

# Options that go to `preprocess` as `--name value`; it writes them into the plan, which all later steps read.
PLAN_OPTIONS = (
    "num_classes",
    "folds",
    "num_epochs",
    "num_steps",
    "max_dim",
    "memory_target_gb",
    "patch_size",
    "batch_size",
    "width",
    "seed",
)
FLAGS = {"memory_target_gb": "--memory_target", "plan": "--base_config"}  # named otherwise on the command line


def preprocess(model: Model, sets: Iterable[Dataset]) -> str:
    """Return the options of `biom3d.preprocess`."""
    sets = list(sets)
    words = ["--img_path", *(_path(row.images) for row in sets), "--msk_path", *(_path(row.masks) for row in sets)]
    words += _options(model.options, PLAN_OPTIONS)
    words += ["--ct_norm"] if model.options["ct_norm"] else []
    words += ["--is_2d", "True"] if model.options["is_2d"] else []
    if model.options["plan"]:
        words += [FLAGS["plan"], _path(model.options["plan"])]
    return shlex.join(words + _spacing(sets[0].spacing_um))


def train(model: Model) -> str:
    """Return the options of `biom3d.train` that are not in the plan."""
    start = model.options["fine_tune"]
    return shlex.join(["--log", _path(start)] if start else [])


def check(dataset: Dataset, models: Mapping[str, Model]) -> str:
    """Return the options of `biom3d.check`; models that use the masks agree about the classes (see project.py)."""
    words = ["--img_path", _path(dataset.images)]
    if dataset.masks:
        user = models[(*dataset.train, *dataset.predict)[0]]
        words += ["--msk_path", _path(dataset.masks), *_options(user.options, ["num_classes"])]
    return shlex.join(words + _spacing(dataset.spacing_um))


def predict(model: Model, dataset: Dataset) -> str:
    """Return the options of `biom3d.pred`."""
    words = ["--path_in", _path(dataset.images), "--tta" if model.options["tta"] else "--no_tta"]
    return shlex.join([*words, *_options(model.options, ["keep"]), *_spacing(dataset.spacing_um)])


def evaluate(model: Model, dataset: Dataset) -> str:
    """Return the options of `biom3d.eval`."""
    words = ["--path_lab", _path(dataset.masks), *_options(model.options, ["num_classes"])]
    return shlex.join(words + _spacing(dataset.spacing_um))


def export_labels(model: Model, dataset: Dataset) -> str:
    """Return the options of `biom3d.export labels`."""
    words = ["--path_in", _path(dataset.images), *_options(model.options, ["formats"])]
    return shlex.join(words + _spacing(dataset.spacing_um))


def overlay(dataset: Dataset, *metrics: str) -> str:
    """Return the options of `biom3d.report overlay`; without masks there is no truth and no worst case."""
    words = ["--path_in", _path(dataset.images)]
    return shlex.join([*words, "--path_lab", _path(dataset.masks), "--metrics", *metrics] if dataset.masks else words)


def _options(options: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    words: list[str] = []
    for key in keys:
        value = options[key]
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [FLAGS.get(key, f"--{key}"), *map(_text, values)]
    return words


def _text(value: Any) -> str:
    """Write 100.0 as 100, which a command line takes for a whole number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _spacing(spacing_um: Spacing | None) -> list[str]:
    return ["--spacing", *map(_text, spacing_um)] if spacing_um else []


def _path(path: str) -> str:
    """Keep a path that starts with a dash from being taken for an option."""
    return f"./{path}" if path.startswith("-") else path
