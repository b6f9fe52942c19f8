"""What became of a run: each row passed, kept, not run, skipped, stopped or failed, and why; and what each job is."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biom3d_workflow import records, slurm
from biom3d_workflow.outcome_table import (
    FAILED,
    KEPT,
    OPEN,
    PARTLY,
    PASSED,
    SKIPPED,
    STOPPED,
    TRAINING,
    Line,
    write_outcome,
)
from biom3d_workflow.project import Project
from biom3d_workflow.reasons import End, in_our_words, read_end
from biom3d_workflow.scores import left_out, mean_dice, missing_volumes, validation_dice

SUMMARY = ("summary all",)
WORST_FIRST = (FAILED, STOPPED, SKIPPED, OPEN)


@dataclass(frozen=True)
class Step:
    """One job of the workflow, as far as its outcome goes. `needs` are names of other steps."""

    name: str
    log: str
    output: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table: a model's training, or a model's prediction of a data set."""

    dataset: str
    model: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """State of a step or row, why, and the log that says more."""

    state: str
    why: str = ""
    log: str = ""


@dataclass
class Run:
    """One run of the workflow: `start()` before the first job, `tell()` after the last."""

    project: Project
    _before: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    _before_in_slurm: frozenset[Path] = frozenset()

    def start(self) -> None:
        """Remember the logs that are there, so that those of an earlier run are not taken for this one's."""
        self._before = {step.log: _signature(step.log) for step in plan_steps(self.project)}
        self._before_in_slurm = slurm.list_logs()

    def tell(self, was_stopped: bool = False) -> list[Line]:
        """Print the table, and keep it as text, JSON and CSV beside the logs; return its rows."""
        lines = self.lines(was_stopped)
        print(f"\n{write_outcome(lines)}", file=sys.stderr)
        return lines

    def lines(self, was_stopped: bool = False) -> list[Line]:
        """Return the rows of the table with what became of them."""
        results = self._judge(was_stopped)
        steps = {step.name: step for step in plan_steps(self.project)}
        rows = [(row, judge_row(row, results)) for row in plan_rows(self.project)]
        return [
            self._line(row, result, [steps[name] for name in row.steps if name in steps])
            for row, result in rows
            if row.steps != SUMMARY or result.state == FAILED
        ]

    def _line(self, row: Row, result: Result, steps: Sequence[Step]) -> Line:
        line = Line(row.dataset, row.model, result.state, result.why, result.log)
        own = [step for step in steps if not step.name.startswith("check ")]
        if not own or not all(Path(step.output).exists() for step in own):
            return line
        made = max(Path(step.output).stat().st_mtime for step in own)
        line.since = time.strftime("%Y-%m-%d %H:%M", time.localtime(made))
        if row.dataset == TRAINING:
            line.results = f"results/{row.model}/"
            line.scores = [(dice, "validation") for dice in validation_dice(self.project.models[row.model].runs)]
            line.left_out = left_out(f"logs/{row.model}/plan.yaml")
        else:
            line.results = f"results/{row.model}/{row.dataset}/"
            line.scores = mean_dice(f"{line.results}metrics.json")
            self._tell_missing(line)
        return line

    def _tell_missing(self, line: Line) -> None:
        """Say of a row that is done which of its volumes are bad: it failed in part, unless that was agreed to."""
        count, bad = missing_volumes(f"data/pred/{line.model}/{line.dataset}", f"{line.results}metrics.json")
        if not bad or line.why or line.state not in (PASSED, KEPT):
            return
        model = self.project.models[line.model]
        if model.options["skip_bad"]:
            line.left_out = list(bad.values())
            return
        first, more = next(iter(bad.values())), f" (and {len(bad) - 1} more: see the log)" if len(bad) > 1 else ""
        line.state, line.log = PARTLY, f"logs/steps/predict/{line.model}/{line.dataset}.log"
        line.why = f"{count}; {in_our_words(first, [line.model])}{more}"

    def summarise_passed(self) -> None:
        """Write results/summary.csv and quality.csv of what there is, when a failure kept their rules from running."""
        results = self._judge()

        def passed(whole: str, step: str, pairs: list[tuple[str, str]], file: str) -> list[str]:
            if whole not in results or _is_well(results[whole]):
                return []
            names = ["/".join(pair) for pair in pairs]
            return [f"results/{name}/{file}" for name in names if _is_well(results[f"{step} {name}"])]

        if metrics := passed(*SUMMARY, "evaluate", self.project.evaluated_pairs(), "metrics.json"):
            _make_of_passed(
                "summary", "results/summary.csv", "biom3d.report", "summary", "--metrics", *metrics, "--out"
            )
        if tables := passed("qualities all", "quality", self.project.pairs(), "quality.csv"):
            _make_of_passed("qualities", "results/quality.csv", "biom3d.quality", "--tables", *tables, "--out_csv")

    def _judge(self, was_stopped: bool = False) -> dict[str, Result]:
        return judge(
            plan_steps(self.project),
            self._is_of_this_run,
            lambda step: slurm.explain_end(step.name, self._before_in_slurm),
            foreseen(self.project),
            lambda step: models_of(self.project, step),
            was_stopped,
        )

    def _is_of_this_run(self, log: str) -> bool:
        return _signature(log) is not None and _signature(log) != self._before.get(log)


def _make_of_passed(rule: str, output: str, *command: str) -> None:
    """Make what a rule would make of all of what passed, and note that, so that the next run makes it anew."""
    if subprocess.run(["python", "-m", *command, output], check=False).returncode == 0:
        note = {"rule": rule, "params": [repr("made of: what passed")]}
        records.write(output, {**note, "record_format_version": records.FORMAT})


def plan_steps(project: Project) -> list[Step]:
    """Return every job of the workflow, each after those it needs."""
    readable = [name for name in project.datasets if name not in project.unreadable]
    steps = [_step("check", name, f"results/check/{name}.json") for name in readable]
    for name in project.trained():
        if name in project.unusable:
            continue
        model = project.models[name]
        trained: list[str] = []
        if name in project.trainable():
            checks = [f"check {dataset}" for dataset in project.needed_checks(name)]
            steps.append(_step("preprocess", name, f"logs/{name}/plan.yaml", checks))
            folds = [f"{name}/fold_{fold}" for fold in model.folds]
            steps += [_step("train", fold, f"logs/{fold}", [f"preprocess {name}"]) for fold in folds]
            trained = [f"train {fold}" for fold in folds]
        steps.append(_step("curves", name, f"results/{name}/curves.png", trained))
        steps.append(_step("export_model", name, f"results/{name}/{name}.zip", trained))
    for name, dataset in project.pairs():
        steps += _prediction_steps(project, name, dataset)
    if project.evaluated_pairs():
        needs = [f"evaluate {model}/{dataset}" for model, dataset in project.evaluated_pairs()]
        steps.append(_step("summary", "all", "results/summary.csv", needs))
    if project.pairs():
        needs = [f"quality {model}/{dataset}" for model, dataset in project.pairs()]
        steps.append(_step("qualities", "all", "results/quality.csv", needs))
    return steps


def _prediction_steps(project: Project, model: str, dataset: str) -> Iterator[Step]:
    pair, folder = f"{model}/{dataset}", f"results/{model}/{dataset}"
    is_trained = model in project.trainable()
    trained = [f"train {model}/fold_{fold}" for fold in project.models[model].folds] if is_trained else []
    yield _step("predict", pair, f"data/pred/{pair}", [f"check {dataset}", *trained])
    predicted = [f"predict {pair}"]
    if project.datasets[dataset].masks:
        yield _step("evaluate", pair, f"{folder}/metrics.json", predicted)
        yield _step("overlay", pair, f"{folder}/overlays", [*predicted, f"evaluate {pair}"])
    yield _step("quality", pair, f"{folder}/quality.csv", predicted)
    if not project.datasets[dataset].masks:
        yield _step("overlay", pair, f"{folder}/overlays", [*predicted, f"quality {pair}"])
    yield _step("export_labels", pair, f"{folder}/labels", predicted)


def _step(rule: str, subject: str, output: str, needs: Iterable[str] = ()) -> Step:
    """Every rule writes its log to logs/steps/RULE/SUBJECT.log; a test compares with the rules."""
    return Step(f"{rule} {subject}", f"logs/steps/{rule}/{subject}.log", output, tuple(needs))


def find_unfinished(project: Project) -> list[str]:
    """Return outputs that are missing though their step began after what other steps once made of them.

    It failed then, and Snakemake removed its output. Asked for the later results only, which are still there,
    Snakemake would say that nothing is to be done.
    """
    steps = plan_steps(project)
    users: dict[str, list[Step]] = {step.name: [] for step in steps}
    for step in steps:
        for need in step.needs:
            users[need].append(step)
    missing = [step for step in steps if not Path(step.output).exists()]
    return [step.output for step in missing if any(_is_older(user.output, step.log) for user in users[step.name])]


def plan_rows(project: Project) -> list[Row]:
    """Return the lines of the table."""
    rows: list[Row] = []
    for name in project.trained():
        own = [f"{rule} {name}" for rule in ("preprocess", "curves", "export_model")]
        if name in project.stuck:
            rows.append(Row(TRAINING, name, (f"model {name}", *([] if name in project.unusable else own[1:]))))
            continue
        checks = [f"check {dataset}" for dataset in project.needed_checks(name)]
        trained = [f"train {name}/fold_{fold}" for fold in project.models[name].folds]
        rows.append(Row(TRAINING, name, (*checks, *own[:1], *trained, *own[1:])))
    asked = {dataset for _, dataset in project.asked_pairs()}
    rows += [Row(name, "", (f"check {name}",)) for name in project.unreadable if name not in asked]
    for model_name, dataset in project.asked_pairs():
        steps: tuple[str, ...] = (f"check {dataset}",)
        if model_name in project.unusable and dataset not in project.unreadable:
            steps = (f"model {model_name}",)
        elif dataset not in project.unreadable:
            steps += tuple(step.name for step in _prediction_steps(project, model_name, dataset))
        rows.append(Row(dataset, model_name, steps))
    if project.evaluated_pairs():
        rows.append(Row("(summary)", "all", SUMMARY))
    return rows


def foreseen(project: Project) -> dict[str, Result]:
    """Return what was known before the first job: data sets that cannot be read, models that wait for them."""
    results = {f"check {name}": Result(FAILED, why) for name, why in project.unreadable.items()}
    for name, why in project.stuck.items():
        is_there = name not in project.unusable
        text = f"not trained anew, the model that is there is used: {why}" if is_there else f"not trained: {why}"
        results[f"model {name}"] = Result(KEPT if is_there else SKIPPED, text)
    return results


def models_of(project: Project, step: Step) -> tuple[str, ...]:
    """Return the models whose options a step was given."""
    rule, _, subject = step.name.partition(" ")
    if rule != "check":
        return (subject.partition("/")[0],)
    row = project.datasets[subject]
    return tuple(dict.fromkeys((*row.train, *row.predict)))


def judge(
    steps: Sequence[Step],
    is_of_this_run: Callable[[str], bool],
    end_of: Callable[[Step], str] = lambda step: "",
    foreseen: Mapping[str, Result] | None = None,
    models: Callable[[Step], Iterable[str]] = lambda step: (),
    was_stopped: bool = False,
) -> dict[str, Result]:
    """Say what became of each step: its output and its log tell, and the steps that it needs.

    `end_of` says who ended a step that did not end by itself, or ''; its own log could not. `models` are those whose
    options a step was given; `foreseen` are results that were known before.
    """
    results = dict(foreseen or {})
    renewed = {step.name: is_of_this_run(step.log) for step in steps}
    # A step that others went on from has ended well; a group that fails later does not bring its output home.
    gone_on_from = {need for step in steps if renewed[step.name] for need in step.needs}
    for step in steps:
        is_there, is_new = Path(step.output).exists(), renewed[step.name]
        cause = next((why for need in step.needs if (why := _cause(need, results[need]))), "")
        if cause:
            results[step.name] = Result(KEPT if is_there and not is_new else SKIPPED, cause)
        elif not is_there and (end := end_of(step)):
            results[step.name] = Result(FAILED, f"{step.name}: {end}", step.log)
        elif not is_new and any(renewed[need] for need in step.needs):
            # What it needs was made anew and it was not: its output, if there, is of yesterday.
            results[step.name] = Result(OPEN, f"{step.name} was not reached")
        elif is_there or (is_new and step.name in gone_on_from):
            results[step.name] = Result(PASSED if is_new else KEPT)
        elif is_new:
            results[step.name] = _ended(step, read_end(step.log), models(step), was_stopped)
        else:
            results[step.name] = Result(OPEN, f"{step.name} was not reached")
    return results


def _is_well(result: Result) -> bool:
    """Say whether a step's result is there and of today's data and options."""
    return result.state == PASSED or (result.state == KEPT and not result.why)


def _cause(need: str, result: Result) -> str:
    """Say why what needs a step was not made; empty where it could be."""
    if result.state in (FAILED, STOPPED):
        return f"{need} {'failed' if result.state == FAILED else 'was stopped'}"
    return result.why if result.state in (SKIPPED, KEPT) else ""


def _ended(step: Step, end: End, models: Iterable[str], was_stopped: bool) -> Result:
    """Return the result of a step of this run that made nothing."""
    if end.kind == "stopped" or (end.kind == "silent" and was_stopped):
        who = f"{end.text}; " if end.kind == "stopped" and end.text else ""
        return Result(STOPPED, f"{step.name}: {who}goes on {end.progress or 'from what is done'}", step.log)
    return Result(FAILED, f"{step.name}: {in_our_words(end.text, models)}", step.log)


def judge_row(row: Row, results: dict[str, Result]) -> Result:
    """Return the worst of a row's steps: what failed, else what was stopped, skipped, not reached; else passed or kept.

    Kept is what no step of this run made; where one should have, it says why not.
    """
    own = [results[step] for step in row.steps]
    for state in WORST_FIRST:
        for result in own:
            if result.state == state:
                return result
    made = [result for result in own if result.state == PASSED]
    why = next((result.why for result in own if result.why), "")
    return Result(PASSED if made and not why else KEPT, why)


def _is_older(output: str, log: str) -> bool:
    """Say whether both are there, and the output was made before the log was last written to."""
    ends = _signature(output), _signature(log)
    return ends[0] is not None and ends[1] is not None and ends[0][0] < ends[1][0]


def _signature(log: str) -> tuple[int, int] | None:
    try:
        facts = Path(log).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
