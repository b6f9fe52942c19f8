"""What makes a result old: one short text a job; only another text, or changed input files, reruns it.

The text holds what was asked for (files, options that differ from `NEUTRAL`), the number of the step, and the versions
of the packages that compute. It holds no wording of a rule and no command line, so that a newer version of ours, which
has other words and more options, finds the old results good. A new option gets its neutral value, with which a result
is what it was before the option existed, in `NEUTRAL`; existing entries there are never edited.

Training is too dear to be done again because a number or a version is another: these are in the run folder, and a line
at the start of a run says so (`made_by`). So is what comes before it: the check of a data set is made of its files
alone, since whatever comes after a job that runs again runs again too.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from biom3d_workflow import commands, given, records
from biom3d_workflow.project import Model, Project, skips_bad
from biom3d_workflow.table import Dataset

MARK = "made of: "  # begins every text
# The values that an option has where a text does not name it. Frozen, see above.
NEUTRAL: Mapping[str, Any] = {
    "preset": None,
    "device": None,
    "num_classes": 1,
    "instances": False,
    "folds": 5,
    "num_epochs": 100,
    "num_steps": 250,
    "max_dim": 128,
    "memory_target_gb": None,
    "ct_norm": False,
    "is_2d": False,
    "patch_size": None,
    "batch_size": None,
    "width": None,
    "optimizer": None,
    "learning_rate": None,
    "seed": 0,
    "tta": False,
    "keep": "none",
    "plan": None,
    "fine_tune": None,
    "formats": ["ome-tiff", "ome-zarr"],
    "skip_bad": False,
    "max_minutes": None,
    "scores": False,
    "ignore_label": None,
    "label_values": None,
    "strict": False,
    "class_names": None,
}
CODING = ("ignore_label", "label_values")  # what values of masks stand for, beside `instances`
PLAN = (*commands.PLAN_OPTIONS, "ct_norm", "is_2d", "instances", "skip_bad", "plan", "fine_tune", *CODING)
# What reads and writes volumes, and what computes, by step.
VOLUMES = ("numpy", "tifffile", "imagecodecs", "nibabel", "h5py", "zarr")
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "pred": (*VOLUMES, "torch", "scipy", "connected-components-3d"),
    "eval": (*VOLUMES, "scipy", "surface-distance"),
    "quality": (*VOLUMES, "connected-components-3d"),
    "export labels": (*VOLUMES, "ome-zarr-models"),
    "export model": (),
    "report curves": ("matplotlib",),
    "report overlay": (*VOLUMES, "matplotlib"),
    "report summary": (),
}
LENGTH = "num_epochs "
Facts = dict[str, Any]


@dataclass(frozen=True)
class Software:
    """What computes: versions of packages, by name; `content` stands for them where only an image is known."""

    versions: Mapping[str, str] = field(default_factory=dict)
    content: str = ""

    def facts(self, step: str) -> Facts:
        """Return what of it counts for a step."""
        if self.content:
            return {"image": self.content}
        names = [name for name in PACKAGES[step] if name in self.versions]
        # "2.13.0+cpu" and "2.13.0" are builds of the same version
        return {"with": ", ".join(f"{name} {self.versions[name].partition('+')[0]}" for name in names)} if names else {}


@dataclass(frozen=True)
class Identities:
    """Makes the texts. `steps` and `learner`: software of our own steps, and of what learns and predicts."""

    project: Project
    numbers: Mapping[str, int]
    steps: Software = Software()
    learner: Software = Software()
    _known: dict[str, str] = field(default_factory=dict)
    _known_files: dict[str, tuple[Facts, Facts]] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def of(self, rule: str, *subject: str) -> str:
        """Return the text of a job, named by its wildcards: `of("predict", "nuclei", "plate7")`."""
        name = " ".join((rule, *subject))
        if name not in self._known:
            self._known[name] = MARK + _text(getattr(self, f"_{rule}")(*subject))
        return self._known[name]

    def _check(self, dataset: str) -> Facts:
        row = self.project.datasets[dataset]
        users = [self.project.models[name] for name in (*row.train, *row.predict)]
        masks = _options(users[0], ["num_classes", "instances", *CODING]) if row.masks and users else {}
        passes = {"skip_bad": True} if skips_bad(row, self.project.models) else {}
        return {**self._files(row), **masks, **passes}

    def _preprocess(self, model: str) -> Facts:
        return self._training(model)

    def _train(self, model: str, fold: str) -> Facts:
        return {**self._training(model), "fold": fold}

    def _predict(self, model: str, dataset: str) -> Facts:
        found, row = self.project.models[model], self.project.datasets[dataset]
        chosen = _options(found, ["tta", "keep", "scores"])
        facts = {"model": self._model(model), **self._files(row, masks=False), **chosen}
        # Before there were kinds of scores, all folds predicted what they had learned from.
        by = {"by": "unseen"} if model in row.train and self.project.engine == "biom3d" else {}
        return {**facts, **by, **self._theirs("pred")}

    def _evaluate(self, model: str, dataset: str) -> Facts:
        found, row = self.project.models[model], self.project.datasets[dataset]
        facts = {"prediction": self._short("predict", model, dataset), **self._files(row)}
        return {**facts, **_options(found, ["num_classes", "instances", *CODING]), **self._theirs("eval")}

    def _quality(self, model: str, dataset: str) -> Facts:
        found, row = self.project.models[model], self.project.datasets[dataset]
        facts = {"prediction": self._short("predict", model, dataset), **self._files(row, masks=False)}
        return {**facts, **_options(found, ["num_classes"]), **self._ours("quality")}

    def _qualities(self) -> Facts:
        return {"of": _digest(sorted("/".join(pair) for pair in self.project.pairs())), **self._ours("quality")}

    def _export_labels(self, model: str, dataset: str) -> Facts:
        found, row = self.project.models[model], self.project.datasets[dataset]
        facts = {"prediction": self._short("predict", model, dataset), **self._files(row, masks=False)}
        return {**facts, **_options(found, ["formats", "class_names"]), **self._ours("export labels")}

    def _overlay(self, model: str, dataset: str) -> Facts:
        found, row = self.project.models[model], self.project.datasets[dataset]
        facts = {"prediction": self._short("predict", model, dataset), **self._files(row)}
        return {**facts, **_options(found, ["instances", *CODING]), **self._ours("report overlay")}

    def _export_model(self, model: str) -> Facts:
        return {"model": self._model(model), **self._ours("export model")}

    def _curves(self, model: str) -> Facts:
        return {"model": self._model(model), **self._ours("report curves")}

    def _summary(self) -> Facts:
        pairs = sorted("/".join(pair) for pair in self.project.evaluated_pairs())
        return {"of": _digest(pairs), **self._ours("report summary")}

    def _training(self, model: str) -> Facts:
        """Return what a model learns from, and how: nothing of the software, see the top."""
        found, sets = self.project.models[model], self.project.training_sets(model)
        facts: Facts = {} if self.project.engine == "biom3d" else {"engine": self.project.engine}
        facts |= {"sets": sorted(_text(self._teaching(row)) for row in sets)}
        return facts | self._start(found) | _plan_options(found)

    def _start(self, model: Model) -> Facts:
        """Return what stands for the model of ours that a fine-tuning starts from."""
        parents = (other for other in self.project.models.values() if model.options["fine_tune"] in other.runs)
        parent = next(parents, None)
        if parent is None or parent.name in self._open:
            return {}  # a circle; Snakemake says so
        self._open.add(parent.name)
        try:
            return {"start": self._model(parent.name)}
        finally:
            self._open.discard(parent.name)

    def _model(self, model: str) -> str:
        """Return what stands for a whole model: what it is made of, or its place on the server."""
        found = self.project.models[model]
        if found.is_given:
            return f"given, {given.content(found.runs)}"
        if found.is_on_server:
            return f"{model} on the server, {len(found.folds)} folds"
        known = self._of_its_note(found) if model in self.project.stuck else None
        return _digest([known or _text(self._training(model))])

    def _of_its_note(self, model: Model) -> str:
        """Return what a model that is there was made of: its data cannot be looked at now, and it is used as it is."""
        return of_all_folds(records.identity(records.read(model.runs[0]))).removeprefix(MARK)

    def _short(self, rule: str, *subject: str) -> str:
        return _digest([self.of(rule, *subject)])

    def _files(self, row: Dataset, masks: bool = True) -> Facts:
        """Return the files of a data set by their names (what is in them Snakemake watches), and their spacing."""
        if row.name not in self._known_files:
            images, labels = self.project.inputs(row)
            facts: Facts = {"images": _names(row.images, images)}
            facts |= {"image_key": row.image_key} if row.image_key else {}
            if row.spacing_um:
                facts["spacing"] = ",".join(f"{value:g}" for value in row.spacing_um)
            if inside := self.project.stamp([row]):
                facts["inside"] = inside
            more = {"masks": _names(row.masks, labels)} if row.masks else {}
            more |= {"mask_key": row.mask_key} if row.mask_key else {}
            self._known_files[row.name] = facts, more
        facts, more = self._known_files[row.name]
        return facts | more if masks else dict(facts)

    def _teaching(self, row: Dataset) -> Facts:
        """Return the files that teach: of a data set with masks for a part of its images those images."""
        if row.name not in self.project.partial:
            return self._files(row)
        files = {**self._files(row), "images": _names(row.images, self.project.teaching(row))}
        files.pop("inside", None)
        inside = self.project.teaching_stamp(row)
        return files | ({"inside": inside} if inside else {})

    def _ours(self, step: str) -> Facts:
        return {"step": self.numbers.get(step, 0), **self.steps.facts(step)}

    def _theirs(self, step: str) -> Facts:
        return {"step": self.numbers.get(step, 0), **self.learner.facts(step)}


def fact(text: str, name: str) -> str:
    """Return one fact of a text, such as that of its model; empty if it names none."""
    facts = text.removeprefix(MARK).split("; ")
    return next((each.removeprefix(f"{name} ") for each in facts if each.startswith(f"{name} ")), "")


def of_all_folds(identity: str | None) -> str:
    """Return what the folds of a model have in common of what one is made of; nothing where that is not known."""
    return (identity or "").rpartition("; fold ")[0]


def longer(old: str | None, new: str) -> tuple[int, int] | None:
    """Return the numbers of epochs where `new` is a training as `old`, only longer: it can go on with that one."""
    if old is None:
        return None
    lengths = []
    rests = []
    for text in (old, new):
        facts = text.split("; ")
        numbers = [fact.removeprefix(LENGTH) for fact in facts if fact.startswith(LENGTH)]
        lengths.append(int(numbers[0]) if numbers and numbers[0].isdecimal() else NEUTRAL["num_epochs"])
        rests.append([fact for fact in facts if not fact.startswith(LENGTH)])
    return (lengths[0], lengths[1]) if rests[0] == rests[1] and lengths[0] < lengths[1] else None


def _options(model: Model, keys: Iterable[str]) -> Facts:
    found = {key: _plain(model.options[key]) for key in keys if key in model.options}
    return {key: value for key, value in found.items() if value != _plain(NEUTRAL[key])}


def _plan_options(model: Model) -> Facts:
    """Return the options that make the plan, as `commands.preprocess` gives them.

    Beside a given plan or preset what the model itself says counts, also where it says what is neutral.
    """
    if commands.base_plan(model):
        said = [key for key in PLAN if key in {*model.own, "folds", "ct_norm", "is_2d", "instances", "skip_bad"}]
        own = {key: _plain(model.options[key]) for key in said if key in model.own}
        return _options(model, ["plan", "fine_tune", *said]) | own
    if model.options["preset"]:
        own = {"max_dim": _plain(model.options["max_dim"])} if "max_dim" in model.own else {}
        return _options(model, [key for key in PLAN if key != "max_dim"]) | own
    return _options(model, PLAN)


def _plain(value: Any) -> Any:
    """Return 100.0 as 100: the same to every step."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _names(path: str, files: list[str]) -> str:
    """Return a folder, however it is written, with the number and the names of its volumes."""
    here = os.path.relpath(path)
    return f"{here if not here.startswith('..') else path} ({len(files)}, {_digest(map(_base, files))})"


def _base(file: str) -> str:
    return file.rpartition("/")[2]


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _text(facts: Facts) -> str:
    return "; ".join(f"{key} {_value(value)}" for key, value in facts.items())


def _value(value: Any) -> str:
    return f"[{' | '.join(map(str, value))}]" if isinstance(value, list) else str(value)
