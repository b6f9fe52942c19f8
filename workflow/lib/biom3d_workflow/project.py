"""The whole request, checked: models with their options, data sets, and who learns from and segments what."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from biom3d_workflow import given, schema, server, volumes
from biom3d_workflow.hints import foreign_hint, windows_hint
from biom3d_workflow.problems import Problem, suggestion
from biom3d_workflow.settings import Locator, check_config, read_source
from biom3d_workflow.table import UNFIT, UNFIT_TEXT, Dataset, read_table

DEMO = "data/demo"
# Names that would meet other files of ours below logs/ and results/.
RESERVED_MODELS = (
    "steps",
    "check",
    "summary.csv",
    "quality.csv",
    "outcome.txt",
    "outcome.json",
    "outcome.csv",
    "datasets.tsv",
)
LONGEST_PATTERN = 1000  # of names written out; 14 kB, of 2,000 data sets, made `snakemake -n` 15 % slower
GOOD_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")  # else what the table says of it is a consequence
RESERVED_DATASETS = ("curves.png",)


@dataclass(frozen=True)
class Model:
    """A model to train: its name, all its options, and which of them are its own, not defaults."""

    name: str
    options: Mapping[str, Any]
    own: frozenset[str] = frozenset()

    @property
    def folds(self) -> range:
        """Return the numbers of the folds."""
        return range(self.options["folds"])

    @property
    def runs(self) -> list[str]:
        """Return the model folders, one a fold; of a model that is given what `biom3d pred --log` takes."""
        if self.is_given:
            return [run for path in self.paths for run in given.find_runs(path)]
        return [f"logs/{self.name}/fold_{fold}" for fold in self.folds]

    @property
    def paths(self) -> list[str]:
        """Return where a model lies that is given."""
        path = self.options["path"]
        return [] if path is None else [path] if isinstance(path, str) else list(path)

    @property
    def is_given(self) -> bool:
        """Say whether it is there already: then it is used, not trained."""
        return bool(self.paths)

    @property
    def is_on_server(self) -> bool:
        """Say whether it lies there already: then it is used, not trained."""
        return bool(self.options["location"] == server.SERVER)


@dataclass(frozen=True)
class Project:
    """Everything the rules ask for. Empty where `problems` kept it from being understood."""

    models: Mapping[str, Model] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    engine: str = "biom3d"
    image: str = "cpu"
    gpu: int = 0
    problems: tuple[Problem, ...] = ()
    # Data sets that cannot be read now, and why: they fail alone, and no job looks at their files.
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def training_sets(self, model: str) -> list[Dataset]:
        """Return the data sets that a model learns from, in the order of the table."""
        return [dataset for dataset in self.datasets.values() if model in dataset.train]

    def trained(self) -> list[str]:
        """Return the models to train; the others are given, or lie on the server."""
        return [name for name, model in self.models.items() if not (model.is_on_server or model.is_given)]

    @functools.cached_property
    def stuck(self) -> dict[str, str]:
        """Return the models that cannot be trained now, and why: what they learn or start from cannot be read."""
        found: dict[str, str] = {}
        for name in self.trained():
            lost = [row.name for row in self.training_sets(name) if row.name in self.unreadable]
            if lost:
                found[name] = f"{_listed('data set', lost)} cannot be read"
        while more := {name: why for name in self.trained() if name not in found and (why := self._lost(name, found))}:
            found |= more
        return found

    def _lost(self, model: str, stuck: Mapping[str, str]) -> str:
        start = self.models[model].options["fine_tune"]
        lost = [name for name in stuck if start in self.models[name].runs and not Path(start).exists()]
        return f"it starts from model '{lost[0]}', which is not trained yet" if lost else ""

    def trainable(self) -> list[str]:
        """Return the models that are trained where that is necessary."""
        return [name for name in self.trained() if name not in self.stuck]

    @functools.cached_property
    def unusable(self) -> dict[str, str]:
        """Return the models that cannot be trained now and were not trained before, and why."""
        runs = {name: self.models[name].runs for name in self.stuck}
        return {name: self.stuck[name] for name, run in runs.items() if not all(Path(fold).exists() for fold in run)}

    def inputs(self, dataset: Dataset) -> tuple[list[str], list[str]]:
        """Return what Snakemake should watch of the images and of the masks of a data set."""
        if dataset.name in self.unreadable:
            return [], []
        images, masks = (
            ([server.stand_in(path)] if dataset.is_on_server else volumes.inputs(path)) if path else []
            for path in (dataset.images, dataset.masks)
        )
        return images, masks

    def stamp(self, datasets: Iterable[Dataset]) -> str:
        """Return what Snakemake does not see of the data sets, see `volumes.stamp`; of the server's it sees all."""
        here = [row for row in datasets if not row.is_on_server and row.name not in self.unreadable]
        paths = [path for row in here for path in (row.images, row.masks) if path]
        return volumes.stamp(*paths)

    @functools.cached_property
    def partial(self) -> list[str]:
        """Return the data sets whose masks cover a part of the images: the others teach nothing."""
        here = [row for row in self.datasets.values() if not row.is_on_server and row.name not in self.unreadable]
        return [
            row.name
            for row in here
            if row.masks and len(volumes.list_teaching(row.images, row.masks)) < len(volumes.list_volumes(row.images))
        ]

    def needed_checks(self, model: str) -> list[str]:
        """Return the data sets whose check comes before a training.

        Where a check tells of images that teach nothing, and the model is there, it would train again for nothing
        (Snakemake runs again whatever comes after a job that does); preprocessing looks at what teaches by itself.
        """
        is_planned = Path(f"logs/{model}/plan.yaml").exists()
        names = [row.name for row in self.training_sets(model)]
        return [name for name in names if not (is_planned and name in self.partial)]

    def training_inputs(self, model: str) -> list[str]:
        """Return what Snakemake should watch of what a model learns from: images that have a mask, and the masks."""
        files: list[str] = []
        for row in self.training_sets(model):
            images, masks = self.inputs(row)
            files += [*(self.teaching(row) if row.name in self.partial else images), *masks]
        return files

    def teaching(self, dataset: Dataset) -> list[str]:
        """Return what Snakemake should watch of the images that have a mask, of a data set where a part has one."""
        return volumes.teaching_inputs(dataset.images, dataset.masks)

    def teaching_stamp(self, dataset: Dataset) -> str:
        """Return the stamp of these images and of the masks."""
        only = (*volumes.list_teaching(dataset.images, dataset.masks), *volumes.list_volumes(dataset.masks))
        return volumes.stamp(dataset.images, dataset.masks, only=only)

    def watched_run(self, run: str) -> str:
        """Return what Snakemake should watch of a model folder."""
        there = {run for model in self.models.values() if model.is_on_server for run in model.runs}
        return server.stand_in(run) if run in there else run

    def on_server(self) -> dict[str, server.IsWanted]:
        """Return the paths on the server that are used, and which files count there."""
        sets = [row for row in self.datasets.values() if row.is_on_server]
        wanted = {path: server.wanted_at(path) for row in sets for path in (row.images, row.masks) if path}
        starts = {model.options["fine_tune"] for model in self.models.values()}
        used = {name for name, _ in self.pairs()}
        for name, model in self.models.items():
            if model.is_on_server:
                wanted |= {run: server.is_anything for run in model.runs if name in used or run in starts}
        return wanted

    def asked_pairs(self) -> list[tuple[str, str]]:
        """Return every (model, data set) of the table to predict."""
        return [(model, d.name) for d in self.datasets.values() for model in d.predict]

    def pairs(self) -> list[tuple[str, str]]:
        """Return every (model, data set) to predict that can be predicted now."""
        return [
            (model, name)
            for model, name in self.asked_pairs()
            if name not in self.unreadable and model not in self.unusable
        ]

    def evaluated_pairs(self) -> list[tuple[str, str]]:
        """Return the pairs whose prediction can be compared with masks."""
        return [(model, name) for model, name in self.pairs() if self.datasets[name].masks]


def load_project(
    config: Mapping[str, Any],
    files: Sequence[str],
    overrides: Mapping[str, Any],
    look_at_files: bool = True,
    has_server: Callable[[], bool] = lambda: True,
) -> Project:
    """Understand the configuration; what is wrong with it is in `problems` of the result.

    Args:
        config: all of it, as Snakemake merged it.
        files: where it came from, highest precedence first.
        overrides: what was given on the command line.
        look_at_files: False leaves the existence of images unchecked.
        has_server: says whether jobs run on a host that may have data of its own; asked only where that matters.
    """
    locator = Locator([read_source(file) for file in files], frozenset(overrides))
    problems = list(check_config(config, locator))
    if problems:  # the table is read all the same: one message for all there is to correct
        return Project(problems=(*problems, *_table_problems(config, look_at_files, locator)))
    defaults = schema.option_defaults() | (config.get("defaults") or {})
    models = {name: _model(name, defaults, options or {}) for name, options in config["models"].items()}
    table = table_name(config)
    rows, problems = read_table(table)
    datasets = {row.name: row for row in reversed(rows)}
    project = Project(
        models,
        {row.name: row for row in rows if datasets[row.name] is row},
        config.get("engine", "biom3d"),
        config.get("image", "cpu"),
        config.get("gpu", 0),
    )
    for check in _CHECKS:
        problems += check(project, rows, table, locator)
    if all(problem.is_warning for problem in problems):  # else it may be a mere consequence of a row left out
        problems += _check_trained(project, table, locator)
    if project.on_server() and not has_server():
        problems += _refuse_server(project, table, locator)
    if look_at_files:
        problems += _check_starts(project, locator)
        problems += _check_passed_over(rows, table)
        return _set_aside(project, rows, table, problems)
    return replace(project, problems=tuple(problems))


def skips_bad(dataset: Dataset, models: Mapping[str, Model]) -> bool:
    """Say whether all models that learn from a data set are to leave out its bad volumes."""
    trained = [models[name] for name in dataset.train if name in models]
    return bool(trained) and all(model.options["skip_bad"] for model in trained)


def is_strict(dataset: Dataset, models: Mapping[str, Model]) -> bool:
    """Say whether all models that use a data set take warnings about it for errors."""
    users = [models[name] for name in (*dataset.train, *dataset.predict) if name in models]
    return bool(users) and all(model.options["strict"] for model in users)


def goes_without_bad(dataset: Dataset, models: Mapping[str, Model], is_ours: bool = True) -> bool:
    """Say whether the good volumes of a data set are used where others are bad.

    Our engine segments them all the same; a model learns without the bad ones only where it is told to.
    """
    return skips_bad(dataset, models) or (is_ours and not dataset.train and not is_strict(dataset, models))


def _model(name: str, defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Model:
    """Return a model; one that is given says itself how many classes it has, unless told."""
    model = Model(name, {**defaults, **own}, frozenset(own))
    if model.is_given and "num_classes" not in own:
        found = given.num_classes(model.paths[0])
        model = replace(model, options={**model.options, "num_classes": found or model.options["num_classes"]})
    return model


def _set_aside(project: Project, rows: Sequence[Dataset], table: str, problems: list[Problem]) -> Project:
    """Leave out the data sets that cannot be read; they are errors where nothing is left, or others are."""
    lost = _check_images(rows, table, project.models, project.engine == "biom3d")
    if any(not problem.is_warning for problem in problems) or len(lost) == len(project.datasets):
        return replace(project, problems=(*problems, *(problem for row in lost.values() for problem in row)))
    told = [replace(row[0], text=f"{row[0].text}; the other rows go on", is_warning=True) for row in lost.values()]
    unreadable = {row.name: lost[row.line][0].text for row in rows if row.line in lost}
    return replace(project, problems=(*problems, *told), unreadable=unreadable)


def without_lost(project: Project, lost: Mapping[str, str]) -> Project:
    """Leave out the data sets of which the server has nothing to use now.

    `lost`: paths there, and why. Raises ValueError where it is a model that is missing, or nothing is left.
    """
    unreadable = {
        row.name: f"{column}: {lost[path]}"
        for row in project.datasets.values()
        for column, path in (("masks", row.masks), ("images", row.images))
        if row.is_on_server and path in lost
    }
    sets = {path for row in project.datasets.values() if row.is_on_server for path in (row.images, row.masks)}
    others = [why for path, why in lost.items() if path not in sets]
    found = {**project.unreadable, **unreadable}
    if others or len(found) == len(project.datasets):
        raise ValueError("\n".join(others or lost.values()))
    return replace(project, unreadable=found)


def table_name(config: Mapping[str, Any]) -> str:
    """Return the file of the table."""
    name: str = config.get("datasets", schema.load("config")["properties"]["datasets"]["default"])
    return name


def _table_problems(config: Mapping[str, Any], look_at_files: bool, locator: Locator) -> list[Problem]:
    """Return what is wrong with the table where the configuration is not understood: what needs its names only."""
    table = table_name(config)
    rows, problems = read_table(table) if isinstance(table, str) else ([], [])
    named = config.get("models")
    if isinstance(named, Mapping) and named and all(isinstance(n, str) and GOOD_NAME.fullmatch(n) for n in named):
        defaults = schema.option_defaults()
        models = {name: Model(name, defaults) for name in named}
        project = Project(models, {row.name: row for row in rows})
        for check in (_check_dataset_names, _check_model_names, _check_links):
            # a warning may come of an option that is not understood
            problems += [problem for problem in check(project, rows, table, locator) if not problem.is_warning]
    lost = _check_images(rows, table) if look_at_files else {}
    return [*problems, *(problem for row in lost.values() for problem in row)]


def _check_dataset_names(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    first: dict[str, Dataset] = {}
    for row in rows:
        other = first.setdefault(row.name.lower(), row)
        if other is not row:
            same = "this name is" if other.name == row.name else f"'{other.name}', the same but for case, is"
            yield Problem(table, row.line, f"dataset: '{row.name}': {same} on line {other.line}; choose another")
        if row.name.lower() in (*RESERVED_DATASETS, *(f"{name}.zip".lower() for name in project.models)):
            yield Problem(table, row.line, f"dataset: '{row.name}' is kept for a result of ours; choose another")


def _check_model_names(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name in project.models:
        other = first.setdefault(name.lower(), name)
        if other != name:
            yield locator.problem(("models", name), f"differs from '{other}' by case only; choose another name")
        if name.lower() in RESERVED_MODELS or name.lower().endswith(".partial"):
            yield locator.problem(("models", name), "is kept for files of ours; choose another name")


def _check_links(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    """Models and data sets must name each other rightly."""
    for row in rows:
        for column, models in (("train", row.train), ("predict", row.predict)):
            for model in models:
                if model in project.models and project.models[model].is_on_server and column == "train":
                    text = f"train: '{model}' lies on the server and only predicts; take it out of this column"
                    yield Problem(table, row.line, text)
                if model in project.models and project.models[model].is_given and column == "train":
                    text = f"train: '{model}' is given by its path and only predicts; take it out of this column"
                    yield Problem(table, row.line, text)
                if model not in project.models:
                    text = f"{column}: unknown model '{model}'; {suggestion(model, project.models)}"
                    yield Problem(table, row.line, text)
        if project.engine != "biom3d" and (row.image_key or row.mask_key):
            text = f"image_key, mask_key: engine {project.engine} reads no single arrays of files; leave them empty"
            yield Problem(table, row.line, text)
        if row.train and not row.masks:
            text = f"masks: empty, but '{row.name}' trains {', '.join(row.train)}; give masks or empty train"
            yield Problem(table, row.line, text)
        yield from _check_both(project, row, table)
        if not row.train and not row.predict:
            text = f"'{row.name}' neither trains a model nor is predicted; nothing is done with it"
            yield Problem(table, row.line, text, is_warning=True)


def _check_both(project: Project, row: Dataset, table: str) -> Iterator[Problem]:
    """Say where a model that learns from a data set and segments it cannot do so by folds that did not see it."""
    for name in (name for name in row.train if name in row.predict and name in project.models):
        start = f"predict: '{name}' also learns from '{row.name}'"
        if project.engine != "biom3d":
            text = (
                f"{start}; engine {project.engine} predicts with all folds, so its scores say nothing about new images"
            )
            yield Problem(table, row.line, text, is_warning=True)
        elif project.models[name].options["folds"] == 1:
            text = (
                f"{start} with folds: 1; only the fifth of its images that is kept for validation gets a score that "
                "says something about new images (kind: cross-validated); with folds: 5 all do"
            )
            yield Problem(table, row.line, text, is_warning=True)


def _check_trained(project: Project, table: str, locator: Locator) -> Iterator[Problem]:
    """A model must have something to learn from."""
    trained = {model for row in project.datasets.values() for model in row.train}
    for name in project.trained():
        if name not in trained:
            text = f"no data set trains it; write '{name}' in column train of {table}, or take the model out"
            yield locator.problem(("models", name), text)


def _check_agreement(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    """One preprocessing has one spacing; one mask has one number of classes."""
    for name in project.models:
        sets = [row for row in rows if name in row.train]
        odd = next((row for row in sets if row.spacing_um != sets[0].spacing_um), None)
        if odd:
            text = f"spacing_um: differs from '{sets[0].name}' (line {sets[0].line}), and both train '{name}'"
            yield Problem(table, odd.line, f"{text}; one model learns from one spacing")
    for row in rows:
        users = [name for name in (*row.train, *row.predict) if name in project.models]
        for option in ("num_classes", "instances", "ignore_label", "label_values"):
            values = {name: project.models[name].options[option] for name in users}
            if row.masks and len({str(value) for value in values.values()}) > 1:
                listed = ", ".join(f"{name}: {value}" for name, value in values.items())
                text = f"masks: models with different {option} use them ({listed}); give each its own row"
                yield Problem(table, row.line, text)


def _check_class_names(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    """As many names as classes."""
    for name, model in project.models.items():
        names, count = model.options["class_names"], model.options["num_classes"]
        if names and count is not None and len(names) != count:
            text = f"{len(names)} names for {count} class(es) (num_classes); wanted as many"
            yield locator.problem(("models", name, "class_names"), text)


def _check_given(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    """A model that is given must be there, and be what the options say."""
    for name, model in project.models.items():
        if model.is_given and model.is_on_server:
            text = "a path is one of this machine, location: server a place on the server; leave one of them out"
            yield locator.problem(("models", name, "path"), text)
            continue
        for path in model.paths:
            if wrong := given.find_problem(path):
                yield locator.problem(("models", name, "path"), wrong)
            else:
                found = given.num_classes(path)
                if found is not None and found != model.options["num_classes"]:
                    text = (
                        f"num_classes is {model.options['num_classes']}, the model in '{path}' has {found}; set {found}"
                    )
                    yield locator.problem(("models", name, "path"), text)


def _check_option_paths(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    for model in project.models.values():
        for key in ("plan", "fine_tune"):
            if set(UNFIT) & set(model.options[key] or ""):
                yield locator.problem(("models", model.name, key), f"{UNFIT_TEXT}; rename the file or folder")


def _check_images(
    rows: Sequence[Dataset], table: str, models: Mapping[str, Model] | None = None, is_ours: bool = True
) -> dict[int, list[Problem]]:
    """Return what keeps the images or masks of rows from being read, by the rows' lines."""
    found: dict[int, list[Problem]] = {}
    for row in rows:
        for column, path in (("images", row.images), ("masks", row.masks)):
            skips = goes_without_bad(row, models or {}, is_ours)
            wrong = _path_problem(path, column, skips) if path and not row.is_on_server else ""
            if wrong:
                found.setdefault(row.line, []).append(Problem(table, row.line, f"{column}: {wrong}"))
    return found


def _check_engine(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    """Biom3d itself leaves nothing out, and warns of nothing."""
    for model in project.models.values():
        if model.options["strict"] and project.engine != "biom3d":
            text = f"engine '{project.engine}' warns of nothing; write strict: false, or engine: biom3d"
            yield locator.problem(("models", model.name, "strict"), text)
        if model.options["skip_bad"] and project.engine != "biom3d":
            text = f"engine '{project.engine}' cannot leave out bad volumes; write skip_bad: false, or engine: biom3d"
            yield locator.problem(("models", model.name, "skip_bad"), text)


def _check_server_paths(project: Project, rows: Sequence[Dataset], table: str, locator: Locator) -> Iterator[Problem]:
    """What lies on the server has no place among our results, and no namesake here."""
    here = {path: row for row in rows if not row.is_on_server for path in (row.images, row.masks) if path}
    for row in rows:
        for column, path in (("images", row.images), ("masks", row.masks)) if row.is_on_server else ():
            wrong = server.path_problem(path) if path else ""
            if path in here:
                wrong = f"'{path}' is also a path of '{here[path].name}' (line {here[path].line}), which is here"
                wrong += "; a job would find both under one name, so rename one"
            if wrong:
                yield Problem(table, row.line, f"{column}: {wrong}")


def _refuse_server(project: Project, table: str, locator: Locator) -> Iterator[Problem]:
    for row in project.datasets.values():
        if row.is_on_server:
            yield Problem(table, row.line, f"location: data set '{row.name}' {server.PROFILE}")
    for name, model in project.models.items():
        if model.is_on_server:
            yield locator.problem(("models", name, "location"), f"model '{name}' {server.PROFILE}")


def _check_passed_over(rows: Sequence[Dataset], table: str) -> Iterator[Problem]:
    """Images in formats that are not read, beside others that are: nobody should miss them in the results."""
    for row in rows:
        with suppress(OSError):  # told by _check_images
            if not row.is_on_server and volumes.list_volumes(row.images) and (hint := foreign_hint(row.images)):
                yield Problem(table, row.line, f"images: passed over: {hint}", is_warning=True)


def _check_starts(project: Project, locator: Locator) -> Iterator[Problem]:
    """Plans and models that trainings start from must be there, or come to be in this run."""
    runs = {run for model in project.models.values() for run in model.runs}
    for model in project.models.values():
        plan, start = model.options["plan"], model.options["fine_tune"]
        if plan and not Path(plan).is_file():
            yield locator.problem(("models", model.name, "plan"), f"file '{plan}' not found; give a plan file")
        if start in model.runs:
            text = f"'{start}' is what this model becomes; name another model's folder"
            yield locator.problem(("models", model.name, "fine_tune"), text)
        elif start and start not in runs and not Path(start).exists():
            text = f"'{start}' not found; give a model folder, or logs/MODEL/fold_0 of a model listed here"
            yield locator.problem(("models", model.name, "fine_tune"), text)


def _path_problem(path: str, column: str, skips_bad: bool = False) -> str:
    """Return why a path of the table cannot be read; empty if it can, or a part of it where that is enough."""
    try:
        wrong = _absence(path, column) or _unreadable_files(path)
        return "" if wrong and skips_bad and volumes.inputs(path) else wrong
    except OSError as error:  # a folder on the way that is closed, a share that does not answer
        return f"'{path}' cannot be read: {error.strerror}; ask its owner for the right to read it, or mount it"


def _absence(path: str, column: str) -> str:
    if re.match(r"(https?|s3):/", path):
        return "a URL: the workflow reads what lies here or on the server; copy it, or use `biom3d pred` by itself"
    if not _exists(path):
        if path.startswith(DEMO + "/"):
            return f"'{path}' not found; `make demo` fetches the demo data (python -m biom3d.demo {DEMO})"
        rest = ", or leave it empty" if column == "masks" else ""
        windows = windows_hint(path)
        return f"folder '{path}' not found; {windows or f'give a folder or file{rest}'}"
    if volumes.is_slice(path):
        return f"'{path}' is one slice of a DICOM series; give the folder of the series"
    empty = not volumes.list_volumes(path)
    if empty and (foreign := foreign_hint(path)):
        return f"no image that can be read: {foreign}"
    return f"no image in '{path}'; wanted files that end in {', '.join(volumes.SUFFIXES)}" if empty else ""


def _exists(path: str) -> bool:
    """Say whether a path is there; OSError where nobody can tell, which `Path.exists` may call absent."""
    try:
        return bool(Path(path).stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _unreadable_files(path: str) -> str:
    lost = volumes.find_unreadable(path)
    if not lost:
        return ""
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    if Path(lost[0]).is_symlink() and not _exists(lost[0]):
        return f"'{lost[0]}'{more} is a link that leads nowhere; take it away, or bring back what it leads to"
    return f"no permission to read '{lost[0]}'{more}; ask its owner for it, or take it away"


def _listed(what: str, names: Sequence[str]) -> str:
    """Write names for a message: `data sets 'a', 'b'`."""
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


_CHECKS: tuple[Callable[[Project, Sequence[Dataset], str, Locator], Iterator[Problem]], ...] = (
    _check_dataset_names,
    _check_model_names,
    _check_links,
    _check_agreement,
    _check_class_names,
    _check_engine,
    _check_given,
    _check_option_paths,
    _check_server_paths,
)


def wildcard(names: Mapping[str, Any]) -> str:
    """Return a regular expression of these names, for `wildcard_constraints`.

    Exactly these, so that Snakemake names a file of another as one that no rule makes. Of very many names it is what
    all names are like: Snakemake copies the expression into each pattern and searches it for every file.
    """
    exact = "|".join(map(re.escape, names)) or "(?!)"
    return exact if len(exact) <= LONGEST_PATTERN else r"[A-Za-z0-9][A-Za-z0-9._-]*"
