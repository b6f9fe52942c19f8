"""Projects that were finished before results had an identity (until 2026-11): their notes get one, nothing runs again.

Such a note holds the step's command line and the digest of an image. What the command line asks for is compared with
what is asked for today; the digest, which changed with every comment in our sources, is left out. Where both ask for
the same, the note gets the identity of today; where not, Snakemake finds the result old, and it is.

All tables here are of that time, and stay.
"""

import ast
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from biom3d_workflow import commands, records
from biom3d_workflow.identity import NEUTRAL, Identities
from biom3d_workflow.project import Project

DONE = Path(".biom3d/has-identities")  # looking at the notes of 2,000 rows takes seconds; once is enough
OPTIONS = (
    *("preset", "device", "num_classes", "instances", "folds", "num_epochs", "num_steps", "max_dim", "ct_norm"),
    *("memory_target_gb", "is_2d", "patch_size", "batch_size", "width", "optimizer", "learning_rate", "seed", "tta"),
    *("keep", "plan", "fine_tune", "formats", "location"),
)
_DATA = ("--img_path", "--msk_path", "--spacing")
_PLAN = (*(f"--{name}" for name in commands.PLAN_OPTIONS if name in OPTIONS and name != "memory_target_gb"),)
FLAGS = {
    "check": (*_DATA, "--num_classes", "--instances"),
    "preprocess": (*_DATA, *_PLAN, "--memory_target", "--base_config", "--ct_norm", "--is_2d", "--instances"),
    "train": ("--log",),
    "predict": ("--path_in", "--tta", "--no_tta", "--keep", "--spacing"),
    "evaluate": ("--path_lab", "--num_classes", "--instances", "--spacing"),
    "export_labels": ("--path_in", "--formats", "--spacing"),
    "overlay": ("--path_in", "--path_lab", "--instances", "--spacing"),
    "export_model": (),
    "curves": (),
    "summary": (),
}
_NAME = r"([A-Za-z0-9][A-Za-z0-9._-]*)"
PATTERNS = [
    ("check", re.compile(rf"results/check/{_NAME}\.json")),
    ("preprocess", re.compile(rf"data/preprocessed/{_NAME}|logs/{_NAME}/plan\.yaml")),
    ("train", re.compile(rf"logs/{_NAME}/fold_(\d+)")),
    ("predict", re.compile(rf"data/pred/{_NAME}/{_NAME}")),
    ("evaluate", re.compile(rf"results/{_NAME}/{_NAME}/metrics\.(?:csv|json)")),
    ("export_labels", re.compile(rf"results/{_NAME}/{_NAME}/labels")),
    ("export_model", re.compile(rf"results/{_NAME}/\1\.zip")),
    ("curves", re.compile(rf"results/{_NAME}/curves\.png")),
    ("overlay", re.compile(rf"results/{_NAME}/{_NAME}/overlays")),
    ("summary", re.compile(r"results/summary\.csv")),
]
_OURS = ("results/", "logs/", "data/pred/", "data/preprocessed/")
Words = dict[str, tuple[str, ...]]


def give_identities(identities: Identities) -> int:
    """Write the identity into the notes that lack one and ask for what is asked for today; return how many."""
    if DONE.exists():
        return 0
    old = {name: record for name in records.names() if (record := records.read(name)) and _is_former(record)}
    project = _with_options_of_then(identities.project)
    then = replace(identities, project=project, _known={}, _known_files={})
    changed: set[str] = set()  # models that are asked for with other options or data
    count = 0
    # trainings first: what follows from another one is another
    for name in sorted(old, key=lambda name: str(old[name].get("rule")) not in ("preprocess", "train")):
        subject = _subject(str(old[name].get("rule")), name, project)
        if subject is None:
            continue
        rule, *wildcards = subject
        if not _asks_the_same(rule, wildcards, old[name], project):
            changed |= {wildcards[0]} if rule in ("preprocess", "train") else set()
        elif rule == "check" or not wildcards or wildcards[0] not in changed:
            records.write(name, {**old[name], "params": [repr(then.of(rule, *wildcards))]})
            count += 1
    DONE.parent.mkdir(exist_ok=True)
    DONE.touch()
    return count


def _is_former(record: records.Record) -> bool:
    """Say whether a note is of a rule of that time."""
    params = record.get("params")
    return isinstance(params, list) and not (len(params) == 1 and str(params[0])[1:].startswith("made of: "))


def _with_options_of_then(project: Project) -> Project:
    """Return the project with every newer option as it is neutral: then nobody could ask for anything else."""
    models = {
        name: replace(model, options={k: v if k in OPTIONS else NEUTRAL.get(k, v) for k, v in model.options.items()})
        for name, model in project.models.items()
    }
    return replace(project, models=models)


def _subject(rule: str, output: str, project: Project) -> list[str] | None:
    """Return rule and wildcards of an output; None if the project has no such job any more."""
    for name, pattern in PATTERNS:
        if name == rule and (match := pattern.fullmatch(output)):
            wildcards = [part for part in match.groups() if part is not None]
            return [rule, *wildcards] if _is_wanted(rule, wildcards, project) else None
    return None


def _is_wanted(rule: str, wildcards: list[str], project: Project) -> bool:
    if rule == "check":
        return wildcards[0] in project.datasets
    if rule in ("predict", "evaluate", "export_labels", "overlay"):
        return tuple(wildcards) in project.pairs()
    return rule == "summary" or wildcards[0] in project.trained()


def _asks_the_same(rule: str, wildcards: list[str], record: records.Record, project: Project) -> bool:
    if rule == "predict" and wildcards[0] in project.datasets[wildcards[1]].train:
        return False  # then by all folds, today by those that did not see a volume
    texts = [_literal(param) for param in record["params"]]
    options = next((text for text in texts if text.startswith("--")), "")
    stamp = next((text for text in texts if re.fullmatch("[0-9a-f]{16}", text)), "")
    rows = _rows(rule, wildcards, project)
    data = {file for file in record.get("input") or () if not file.startswith(_OURS)}
    wanted = {file for row in rows for files in _watched(rule, project.inputs(row)) for file in files}
    wanted = {file for file in wanted if not file.startswith(_OURS)}
    plan = {project.models[wildcards[0]].options["plan"]} if rule == "preprocess" else set()
    if data - plan != wanted or (rows and stamp != project.stamp(rows)):
        return False
    return _words(options, FLAGS[rule]) == _words(_options(rule, wildcards, project), FLAGS[rule])


def _rows(rule: str, wildcards: list[str], project: Project) -> list[Any]:
    if rule == "preprocess":
        return project.training_sets(wildcards[0])
    is_of_a_row = rule in ("check", "predict", "evaluate", "export_labels", "overlay")
    return [project.datasets[wildcards[-1]]] if is_of_a_row else []


def _watched(rule: str, inputs: tuple[list[str], list[str]]) -> Iterable[list[str]]:
    images, masks = inputs
    return {"evaluate": (masks,), "predict": (images,), "export_labels": (images,)}.get(rule, (images, masks))


def _options(rule: str, wildcards: list[str], project: Project) -> str:
    """Return the command line of today."""
    if rule == "check":
        return commands.check(project.datasets[wildcards[0]], project.models)
    if rule in ("preprocess", "train"):
        model = project.models[wildcards[0]]
        sets = project.training_sets(model.name)
        return commands.preprocess(model, sets) if rule == "preprocess" else commands.train(model)
    if rule in ("predict", "evaluate", "export_labels", "overlay"):
        make: Callable[..., str] = getattr(commands, rule)
        return make(project.models[wildcards[0]], project.datasets[wildcards[1]])
    return ""


def _words(options: str, flags: Iterable[str]) -> Words:
    """Return the options that count, each with its values; the order of data sets does not."""
    found: dict[str, list[str]] = {}
    flag = ""
    for word in shlex.split(options):
        if word.startswith("--"):
            flag = word
            found[flag] = []
        elif flag:
            found[flag].append(word)
    unordered = ("--img_path", "--msk_path")
    return {name: tuple(sorted(v) if name in unordered else v) for name, v in found.items() if name in flags}


def _literal(param: Any) -> str:
    try:
        return str(ast.literal_eval(param))
    except (ValueError, SyntaxError):
        return str(param)
