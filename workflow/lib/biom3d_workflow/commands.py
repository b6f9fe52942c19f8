"""Options of the model and the data set -> words of the step's command line, quoted for the shell."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from biom3d_workflow.project import Model, goes_without_bad, is_strict
from biom3d_workflow.table import Dataset, Spacing

# Options that go to `preprocess` as `--name value`; it writes them into the plan, which all later steps read.
PLAN_OPTIONS = (
    "preset",
    "device",
    "num_classes",
    "folds",
    "num_epochs",
    "num_steps",
    "max_minutes",
    "max_dim",
    "memory_target_gb",
    "patch_size",
    "batch_size",
    "width",
    "optimizer",
    "learning_rate",
    "seed",
)
# They lead to a plan's values; a given plan has those already.
NOT_IN_A_PLAN = ("preset", "device", "max_dim", "memory_target_gb")
FLAGS = {"memory_target_gb": "--memory_target"}  # named otherwise on the command line


def preprocess(model: Model, sets: Iterable[Dataset]) -> str:
    """Return the options of `biom3d.preprocess`.

    Where a plan is given, by `plan` or with the model to fine-tune, its values count and not the defaults; only
    what the model itself says changes them.
    """
    sets = list(sets)
    words = [
        "--img_path",
        *(_path(row.image_arrays) for row in sets),
        "--msk_path",
        *(_path(row.mask_arrays) for row in sets),
    ]
    base = base_plan(model)
    if base:
        words += ["--base_config", _path(base)]
        chosen = [key for key in PLAN_OPTIONS if key not in NOT_IN_A_PLAN and key in {*model.own, "folds"}]
        words += _options(model.options, chosen)
    else:
        # A preset has a max_dim of its own, which our default must not undo.
        left_out = {"max_dim"} - model.own if model.options["preset"] else set()
        words += _options(model.options, [key for key in PLAN_OPTIONS if key not in left_out])
        words += ["--ct_norm"] if model.options["ct_norm"] else []
    words += ["--is_2d", "True"] if model.options["is_2d"] else []
    words += ["--skip_bad"] if model.options["skip_bad"] else []
    words += _strict(model)
    return shlex.join(words + _coding(model) + _spacing(sets[0].spacing_um))


def base_plan(model: Model) -> str | None:
    """Return the plan to start from: `plan`, or that of the model to fine-tune."""
    if model.options["plan"] or not model.options["fine_tune"]:
        return str(model.options["plan"]) if model.options["plan"] else None
    return f"{model.options['fine_tune']}/plan.yaml"


def train(model: Model, gpus: int = 0, earlier: Iterable[str] = ()) -> str:
    """Return the options of `biom3d.train` that are not in the plan; a process for each of several graphics cards.

    `earlier`: the folder of a shorter training to go on with, if there is one.
    """
    start = model.options["fine_tune"]
    words = ["--log", _path(start)] if start else []
    words += [word for run in earlier for word in ("--continue_from", run)]
    return shlex.join([*words, *(["--processes", str(gpus)] if gpus > 1 else [])])


def check(dataset: Dataset, models: Mapping[str, Model], is_ours: bool = True) -> str:
    """Return the options of `biom3d.check`; models that use the masks agree about the classes.

    project.py sees to that. Without a model nobody knows the classes, and only the images are looked at.
    """
    words = ["--img_path", _path(dataset.image_arrays)]
    users = (*dataset.train, *dataset.predict)
    if dataset.masks and users:
        user = models[users[0]]
        words += ["--msk_path", _path(dataset.mask_arrays), *_options(user.options, ["num_classes"]), *_coding(user)]
    words += ["--skip_bad"] if goes_without_bad(dataset, models, is_ours) else []
    words += ["--strict"] if is_strict(dataset, models) else []
    return shlex.join(words + _spacing(dataset.spacing_um))


def runs(model: Model) -> str:
    """Return the model's folders; on the server they are no files that Snakemake could name."""
    return shlex.join(map(_path, model.runs))


def predict(model: Model, dataset: Dataset, is_ours: bool = True, earlier: Iterable[str] = ()) -> str:
    """Return the options of `biom3d.pred`, or of another engine where it is not ours.

    `earlier`: the folder of what the model predicted of the data set before, if there is one. `--models unseen` is its
    default: said where the model learns from the data set, since predictions by all folds, made before there was the
    option, are no longer right.
    """
    words = ["--path_in", _path(dataset.image_arrays), "--tta" if model.options["tta"] else "--no_tta"]
    if is_ours:
        words += ["--models", "unseen"] if model.name in dataset.train else []
        words += ["--scores"] if model.options["scores"] else []
        words += _strict(model) or ["--skip_bad"]
        words += [word for folder in earlier for word in ("--earlier", folder)]
    return shlex.join([*words, *_options(model.options, ["keep"]), *_spacing(dataset.spacing_um)])


def evaluate(model: Model, dataset: Dataset, is_ours: bool = True) -> str:
    """Return the options of `biom3d.eval`, or of another engine where it is not ours."""
    words = ["--path_lab", _path(dataset.mask_arrays), *_options(model.options, ["num_classes"]), *_coding(model)]
    words += _strict(model) or (["--skip_bad"] if is_ours else [])
    return shlex.join(words + _spacing(dataset.spacing_um))


def quality(model: Model, dataset: Dataset) -> str:
    """Return the options of `biom3d.quality`."""
    words = ["--path_in", _path(dataset.image_arrays), "--log", *map(_path, model.runs)]
    return shlex.join([*words, *_options(model.options, ["num_classes"]), *_spacing(dataset.spacing_um)])


def export_labels(model: Model, dataset: Dataset) -> str:
    """Return the options of `biom3d.export labels`."""
    words = ["--path_in", _path(dataset.image_arrays), *_options(model.options, ["formats", "class_names"])]
    words += _options(model.options, ["label_values"]) if model.options["class_names"] else []
    return shlex.join(words + _spacing(dataset.spacing_um))


def overlay(model: Model, dataset: Dataset, metrics: Iterable[str] = (), quality: Iterable[str] = ()) -> str:
    """Return the options of `biom3d.report overlay`; without masks what looks odd comes first."""
    words = ["--path_in", _path(dataset.image_arrays)]
    if dataset.masks:
        words += ["--path_lab", _path(dataset.mask_arrays), "--metrics", *metrics, *_coding(model)]
    words += [word for table in quality for word in ("--quality", str(table))]
    return shlex.join(words + _spacing(dataset.spacing_um))


def _options(options: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    words: list[str] = []
    for key in keys:
        value = options[key]
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [FLAGS.get(key, f"--{key}"), *map(_text, values)]
    return words


def _coding(model: Model) -> list[str]:
    """Return what the values of masks stand for."""
    words = ["--instances"] if model.options["instances"] else []
    return words + _options(model.options, ["ignore_label", "label_values"])


def _strict(model: Model) -> list[str]:
    return ["--strict"] if model.options["strict"] else []


def _text(value: Any) -> str:
    """Write 100.0 as 100, which a command line takes for a whole number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _spacing(spacing_um: Spacing | None) -> list[str]:
    return ["--spacing", *map(_text, spacing_um)] if spacing_um else []


def _path(path: str) -> str:
    """Keep a path that starts with a dash from being taken for an option."""
    return f"./{path}" if path.startswith("-") else path
