"""What became of a run: per model and data set passed, failed (why, where the log is) or skipped (because of what)."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biom3d_workflow import slurm
from biom3d_workflow.project import Project

OUTCOME = "logs/outcome.txt"
ADVICE = "Correct what failed, or put a # before its row in the table, and run again: what is done is kept.\n"
SUMMARY = ("summary all",)
PASSED, FAILED, SKIPPED, OPEN = "passed", "failed", "skipped", "not run"


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
    """State of a step or row, and why."""

    state: str
    why: str = ""


@dataclass
class Run:
    """One run of the workflow: `start()` before the first job, `text()` after the last."""

    project: Project
    _before: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    _before_in_slurm: frozenset[Path] = frozenset()

    def start(self) -> None:
        """Remember the logs that are there, so that those of an earlier run are not taken for this one's."""
        self._before = {step.log: _signature(step.log) for step in plan_steps(self.project)}
        self._before_in_slurm = slurm.list_logs()

    def tell(self) -> None:
        """Print the table, and keep it."""
        text = self.text()
        print(f"\n{text}", file=sys.stderr)
        Path(OUTCOME).parent.mkdir(exist_ok=True)  # no step may have got so far as to write a log
        Path(OUTCOME).write_text(text, encoding="utf-8")

    def text(self) -> str:
        """Return the table, the worst at the end, where the eyes are."""
        results = self._judge()
        rows = [(row, judge_row(row, results)) for row in plan_rows(self.project)]
        rows = [(row, result) for row, result in rows if row.steps != SUMMARY or result.state == FAILED]
        order = [PASSED, OPEN, SKIPPED, FAILED]
        rows.sort(key=lambda item: order.index(item[1].state))
        cells = [("data set", "model", "result", "why")]
        cells += [(row.dataset, row.model, result.state, result.why) for row, result in rows]
        counts = [(sum(result.state == state for _, result in rows), state) for state in order]
        total = ", ".join(f"{count} {state}" for count, state in counts if count)
        failed = any(result.state == FAILED for _, result in rows)
        return f"{align(cells)}\n\n{total or 'nothing to do'}\n{ADVICE if failed else ''}"

    def summarise_passed(self) -> None:
        """Write results/summary.csv of what there is, when a failure kept the rule `summary` from running."""
        results = self._judge()
        if "summary all" not in results or results["summary all"].state == PASSED:
            return
        pairs = ["/".join(pair) for pair in self.project.evaluated_pairs()]
        metrics = [f"results/{p}/metrics.json" for p in pairs if results[f"evaluate {p}"].state == PASSED]
        if metrics:
            out = ["--out", "results/summary.csv"]
            subprocess.run(["python", "-m", "biom3d.report", "summary", "--metrics", *metrics, *out], check=False)

    def _judge(self) -> dict[str, Result]:
        return judge(
            plan_steps(self.project),
            self._is_of_this_run,
            lambda step: slurm.explain_end(step.name, self._before_in_slurm),
        )

    def _is_of_this_run(self, log: str) -> bool:
        return _signature(log) is not None and _signature(log) != self._before.get(log)


def plan_steps(project: Project) -> list[Step]:
    """Return every job of the workflow, each after those it needs."""
    steps = [_step("check", name, f"results/check/{name}.json") for name in project.datasets]
    for name in project.trained():
        model = project.models[name]
        checks = [f"check {dataset.name}" for dataset in project.training_sets(name)]
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
    return steps


def _prediction_steps(project: Project, model: str, dataset: str) -> Iterator[Step]:
    pair, folder = f"{model}/{dataset}", f"results/{model}/{dataset}"
    is_trained = model in project.trained()
    trained = [f"train {model}/fold_{fold}" for fold in project.models[model].folds] if is_trained else []
    yield _step("predict", pair, f"data/pred/{pair}", [f"check {dataset}", *trained])
    predicted = [f"predict {pair}"]
    if project.datasets[dataset].masks:
        yield _step("evaluate", pair, f"{folder}/metrics.json", predicted)
        yield _step("overlay", pair, f"{folder}/overlays", [*predicted, f"evaluate {pair}"])
    else:
        yield _step("overlay", pair, f"{folder}/overlays", predicted)
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
    rows = []
    for name in project.trained():
        model = project.models[name]
        checks = [f"check {dataset.name}" for dataset in project.training_sets(name)]
        own = [f"{rule} {name}" for rule in ("preprocess", "curves", "export_model")]
        trained = [f"train {name}/fold_{fold}" for fold in model.folds]
        rows.append(Row("(training)", name, (*checks, *own[:1], *trained, *own[1:])))
    for model_name, dataset in project.pairs():
        own = [step.name for step in _prediction_steps(project, model_name, dataset)]
        rows.append(Row(dataset, model_name, (f"check {dataset}", *own)))
    if project.evaluated_pairs():
        rows.append(Row("(summary)", "all", SUMMARY))
    return rows


def judge(
    steps: Sequence[Step], is_of_this_run: Callable[[str], bool], end_of: Callable[[Step], str] = lambda step: ""
) -> dict[str, Result]:
    """Say what became of each step: its output and its log tell, and the steps that it needs.

    `end_of` says who ended a step that did not end by itself, or ''; its own log could not.
    """
    results: dict[str, Result] = {}
    renewed = {step.name: is_of_this_run(step.log) for step in steps}
    # A step that others went on from has ended well; a group that fails later does not bring its output home.
    gone_on_from = {need for step in steps if renewed[step.name] for need in step.needs}
    for step in steps:
        blocker = next((need for need in step.needs if results[need].state in (FAILED, SKIPPED)), None)
        if blocker:
            cause = results[blocker].why if results[blocker].state == SKIPPED else f"{blocker} failed"
            results[step.name] = Result(SKIPPED, cause)
        elif not Path(step.output).exists() and (end := end_of(step)):
            results[step.name] = Result(FAILED, f"{step.name}: {end}; log: {step.log}")
        elif not renewed[step.name] and any(renewed[need] for need in step.needs):
            # What it needs was made anew and it was not: its output, if there, is of yesterday.
            results[step.name] = Result(OPEN, f"{step.name} was not reached")
        elif Path(step.output).exists() or (renewed[step.name] and step.name in gone_on_from):
            results[step.name] = Result(PASSED)
        elif renewed[step.name]:
            results[step.name] = Result(FAILED, f"{step.name}: {error_line(step.log)}; log: {step.log}")
        else:
            results[step.name] = Result(OPEN, f"{step.name} was not reached")
    return results


def judge_row(row: Row, results: dict[str, Result]) -> Result:
    """Return the worst of a row's steps: what failed, else what was skipped, else what was not reached."""
    own = [results[step] for step in row.steps]
    for state in (FAILED, SKIPPED, OPEN):
        for result in own:
            if result.state == state:
                return result
    return Result(PASSED)


def error_line(log: str) -> str:
    """Return what a log says about its failure: the last `error:` line, else the last line."""
    try:
        lines = [line.strip() for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        return f"no log ({error.strerror})"
    lines = [line for line in lines if line]
    errors = [line.partition("error: ")[2] for line in lines if ": error: " in line]
    last = re.sub(r"^\w+: ", "", lines[-1]) if lines else "the log is empty"
    return errors[-1] if errors else last


def align(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as a table with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


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
