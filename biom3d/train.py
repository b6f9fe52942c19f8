"""`python -m biom3d.train`: train, resume or fine-tune a model."""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d import __version__
from biom3d.cli import run_step, step_parser
from biom3d.compat.options import add_foreign_options, answer_foreign_options
from biom3d.config import DataPaths, Plan, load_plan, save_plan
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter, duration_text
from biom3d.files import is_taken, output_error, remove, replace
from biom3d.options import MAX_MINUTES, add_processes_option, add_threads_option
from biom3d.planning.length import continued, fit_length, is_open, restored
from biom3d.steps import NUMBERS
from biom3d.training import launch

if TYPE_CHECKING:
    from biom3d.data.patches import Case
    from biom3d.training.group import Group
    from biom3d.training.loop import Compute, Training

SET_ASIDE = 2  # unfinished trainings by other plans that are kept beside a run
DESCRIPTION = """Train a model on preprocessed data.

  --config PLAN              a new training
  --log RUN                  go on with an interrupted training, or add epochs (raise num_epochs in its plan)
  --config PLAN --log RUN    fine-tune: start from the weights of RUN

Every finished epoch is kept: an interrupted training loses at most the running one."""


@dataclass(frozen=True)
class TrainJob:
    """One training as asked for. `final` is set where the run folder gets its name only when it is whole."""

    plan: Plan
    fold: int
    data: DataPaths
    run: Path
    final: Path | None = None
    weights_from: Path | None = None
    any_length: bool = False
    precision: str = "auto"
    earlier: Path | None = None  # a finished training, as long or shorter, to go on with


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options of Biom3d 0.1.2 and explicit paths."""
    parser = step_parser("train", DESCRIPTION)
    parser.add_argument(
        "-n",
        "--name",
        default="train",
        metavar="NAME",
        help="only 'train': predict with pred, evaluate with eval",
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="PLAN",
        help="plan written by preprocess, or a configuration (.py, .yaml) of Biom3d 0.1.2",
    )
    parser.add_argument("-l", "--log", metavar="RUN", help="model folder to resume, or with -c to fine-tune")
    parser.add_argument("--fold", type=int, default=0, help="which fold is kept for validation (default 0)")
    parser.add_argument("--data_dir", metavar="DIR", help="folder made by `preprocess --out_dir`")
    parser.add_argument(
        "--run_dir",
        metavar="DIR",
        help="model folder to make; DIR.partial holds the work and an interrupted training goes on from it "
        "(default: logs/<time>-<name>_fold<fold>)",
    )
    parser.add_argument(
        "--max_minutes",
        type=float,
        metavar="MINUTES",
        help=f"{MAX_MINUTES} (default: that of the plan); with --config only",
    )
    parser.add_argument(
        "--continue_from",
        metavar="RUN",
        help="with --run_dir: go on with the epochs of this finished model folder, if its plan and arrays are the same "
        "but for fewer epochs; with as many it is taken as it is; it is only read",
    )
    add_compute_options(parser)
    parser.add_argument("--meeting", type=Path, help=argparse.SUPPRESS)  # of the processes that --processes starts
    add_foreign_options(parser, "train")
    return parser


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """Add how a training uses the machine."""
    add_threads_option(parser)
    add_processes_option(parser)
    parser.add_argument(
        "--precision",
        choices=["auto", "float32"],
        default="auto",
        help="auto: 16-bit numbers where the device is fast at them; float32: single precision, up to twice the time",
    )


def compute_options(args: argparse.Namespace) -> list[str]:
    """Return the options of `add_compute_options` as words again."""
    words = ["--processes", str(args.processes), "--precision", args.precision]
    return [*words, "--threads", str(args.threads)] if args.threads else words


def execute(args: argparse.Namespace, report: Reporter, argv: Sequence[str] = ()) -> None:
    """Run the training that the options, from `argv`, ask for."""
    answer_foreign_options(args, "train", report)
    run(argv, report)


def run(argv: Sequence[str], report: Reporter) -> Path:
    """Train with the options `argv`, in one process or in several; return the model folder."""
    args = build_parser().parse_args(argv)
    job = job_from(args)
    if args.processes > 1 and args.meeting is None:
        named = args.run_dir or args.config is None
        _start_processes(job, args.processes, argv if named else [*argv, "--run_dir", str(job.run)])
        return job.final or job.run
    from biom3d.training.group import LostProcess, group_from

    group = group_from(os.environ)
    if args.meeting is not None:
        launch.end_with_launcher()
    if not group.is_first:
        report = _silent(report)
    try:
        return train(job, report, args.threads, group, args.meeting)
    except LostProcess:
        if args.meeting is not None:
            raise SystemExit(launch.LOST) from None  # the launcher knows who was first, and says it
        raise


def _start_processes(job: TrainJob, count: int, argv: Sequence[str]) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--processes was given to a process that torchrun started; leave it out")
    _refuse_small_batch(job.plan, count)
    launch.train_together(argv, count)


def _refuse_small_batch(plan: Plan, count: int) -> None:
    if count > plan.batch_size:
        raise ConfigError(
            f"a batch of {plan.batch_size} patch(es) cannot be shared by {count} processes; plan with --batch_size "
            f"{count} or more, or use {plan.batch_size} process(es)"
        )


def _silent(report: Reporter) -> Reporter:
    """Return a reporter that says nothing, and let the given one tell only of our own mistakes, without events."""
    report.close()
    return Reporter("train", stream=open(os.devnull, "w"))


def job_from(args: argparse.Namespace) -> TrainJob:
    """Turn options into a job; ConfigError where they contradict each other."""
    if args.config is None and args.log is None:
        raise ConfigError("give --config PLAN for a new training or --log RUN to resume one")
    if args.config is None:
        if args.max_minutes is not None:
            raise ConfigError("--max_minutes limits a new training; give it with --config, or leave it out")
        run = Path(args.log)
        plan = load_plan(_existing(run / "plan.yaml", "a model folder made by train"))
        plan = dataclasses.replace(plan, max_minutes=None)  # its number of epochs counts, which may have been raised
        data = _data_paths(plan, args.data_dir)
        return TrainJob(plan, _fold_of(run), data, run, any_length=True, precision=args.precision)
    plan = _limited(_load_any_plan(Path(args.config), args.data_dir), args.max_minutes)
    weights = Path(args.log) if args.log else None
    data = _data_paths(plan, args.data_dir)
    if args.run_dir is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        run = Path("logs") / f"{stamp}-{plan.desc}_fold{args.fold}"
        return TrainJob(plan, args.fold, data, run, weights_from=weights, precision=args.precision)
    final = Path(args.run_dir)
    partial = final.parent / f"{final.name}.partial"
    earlier = Path(args.continue_from) if args.continue_from else None
    return TrainJob(plan, args.fold, data, partial, final, weights, precision=args.precision, earlier=earlier)


def train(
    job: TrainJob,
    report: Reporter,
    threads: int | None = None,
    group: "Group | None" = None,
    meeting: Path | None = None,
) -> Path:
    """Train one model to its end and return its folder; see `TrainJob`.

    In a `group` every process calls this; only the first one writes.
    """
    import torch

    from biom3d.training import loop
    from biom3d.training.checkpoint import load_checkpoint
    from biom3d.training.device import choose_device, describe_device, half_precision, prepare_cpu
    from biom3d.training.group import ALONE, device_of, joined

    group = group or ALONE
    _refuse_small_batch(job.plan, group.size)
    if job.final is not None and is_taken(job.final):
        raise DataError(f"'{job.final}' exists; choose another --run_dir, or resume it with --log")
    if group.size > 1:
        threads = max(1, (threads or torch.get_num_threads()) // group.size)
    prepare_cpu(threads)
    device = device_of(group, choose_device())
    compute = loop.Compute(device, half_precision(device) if job.precision == "auto" else None, group)
    cases = _load_cases(job)
    _refuse_nothing_to_learn(cases, job, report)
    weights = load_checkpoint(_best_of(job.weights_from), device)["model"] if job.weights_from else None
    with _only_one(job.run) if group.is_first else contextlib.nullcontext(), joined(group, device, meeting):
        job = _continued(_with_length(job, cases, compute, report), group, report)
        if weights is not None:
            _tell_new_outputs(job, loop.outputs_of(weights), report)
        training = loop.start(job.plan, job.fold, cases, job.run, compute, weights)
        training.origin = _sha256(_best_of(job.weights_from)) if job.weights_from else ""
        _take_up(training, job, report)
        if group.is_first:
            _write_description(job)
            _write_record(job)
        shared = f", {group.size} processes" if group.size > 1 else ""
        report.info(
            f"{job.plan.desc} fold {job.fold}: {len(cases[0])} volumes train, {len(cases[1])} validate; patch "
            f"{list(job.plan.patch_size)}, batch {job.plan.batch_size}, on {device.type} "
            f"({compute.half or torch.float32}, {torch.get_num_threads()} threads{shared})"
        )
        report.event("device", **describe_device(device))
        if any(training.prior_shift):
            shift = ", ".join(f"{value:g}" for value in training.prior_shift[1:])
            report.info(f"patches hold another share of objects than the volumes; predictions allow for it: {shift}")
        started = time.monotonic()
        loop.fit(training, report)
        report.info(f"done in {duration_text(time.monotonic() - started)}; best Dice {training.best_dice:.3f}")
        report.event("done", best_dice=training.best_dice, run=str(job.final or job.run))
    if job.final is None:
        return job.run
    if group.is_first:
        replace(job.run, job.final)
    return job.final


def _tell_new_outputs(job: TrainJob, found: int | None, report: Reporter) -> None:
    wanted = job.plan.num_classes + 1
    if found is not None and found != wanted:
        report.info(
            f"'{job.weights_from}' knows {found - 1} class(es), the plan {wanted - 1}: the last layer starts anew, all "
            "others from its weights"
        )


def _take_up(training: "Training", job: TrainJob, report: Reporter) -> None:
    """Go on with what is left of the same training, if there is; the first process decides for all."""
    from biom3d.training import loop

    group = training.compute.group
    resumed = bool(group.same(int(group.is_first and loop.resume(training, job.any_length))))
    if resumed and not group.is_first and not loop.resume(training, job.any_length):
        raise DataError(f"'{job.run}' is not the same for all processes; give a folder that all of them see")
    if resumed:
        report.info(f"resuming '{job.run}' after epoch {len(training.rows)} of {job.plan.num_epochs}")
    elif job.any_length:
        raise DataError(f"'{job.run}' holds no state of its plan to resume; train it anew with --config")
    elif group.is_first:
        _set_aside_another(job.run, report)


def _limited(plan: Plan, max_minutes: float | None) -> Plan:
    """Return the plan with another limit of time, to be fitted anew."""
    if max_minutes is None:
        return dataclasses.replace(plan, max_minutes=None) if plan.fitted_from else plan  # its length is decided
    if not 0 < max_minutes < math.inf:
        raise ConfigError(f"--max_minutes {max_minutes}: wanted more than 0, and finite")
    return dataclasses.replace(plan, max_minutes=max_minutes, fitted_from="", earlier_lengths=())


def _with_length(
    job: TrainJob, cases: "tuple[list[Case], list[Case]]", compute: "Compute", report: Reporter
) -> TrainJob:
    """Return the job with the length that its limit of time allows: that of what is left of it, else by measuring."""
    from biom3d.training.checkpoint import last_path, load_checkpoint
    from biom3d.training.speed import measure_speed

    if not is_open(job.plan):
        return job
    for run in filter(None, (job.run, job.earlier)):
        left = last_path(run, job.plan.desc)
        if left.is_file() and (plan := restored(job.plan, load_checkpoint(left, compute.device).get("plan", {}))):
            return dataclasses.replace(job, plan=plan)
    speed = measure_speed(job.plan, job.fold, cases, job.run, compute)
    plan = fit_length(job.plan, speed)
    report.info(f"max_minutes: {plan.why['num_epochs']}")
    return dataclasses.replace(job, plan=plan)


def _continued(job: TrainJob, group: "Group", report: Reporter) -> TrainJob:
    """Return the job as it goes on with an earlier training, whose state is copied to where it works.

    One of the same plan, arrays and length is complete: it is taken as it is.
    """
    if job.earlier is None:
        return job
    import torch

    from biom3d.training.checkpoint import known_facts, last_path, load_checkpoint, plan_facts

    desc = job.plan.desc
    saved = load_checkpoint(last_path(job.earlier, desc), torch.device("cpu"))
    found = known_facts(saved.get("plan", {}))
    plan = job.plan if found == plan_facts(job.plan) else continued(job.plan, found)
    if plan is None:
        report.info(f"'{job.earlier}' is of another plan, of other images or longer; this training starts anew")
        return job
    facts = plan_facts(plan)
    left = last_path(job.run, desc)
    is_begun = left.is_file() and known_facts(load_checkpoint(left, torch.device("cpu")).get("plan", {})) == facts
    if group.is_first and not is_begun:
        if (job.run / "model").exists():
            _set_aside_another(job.run, report)
        _copy_state(job, saved, facts)
        if len(saved["rows"]) < plan.num_epochs:
            report.info(f"goes on with the {len(saved['rows'])} epochs of '{job.earlier}', to {plan.num_epochs}")
        else:
            report.info(f"'{job.earlier}' is this training, of the same arrays; it is taken as it is")
    return dataclasses.replace(job, plan=plan)


def _copy_state(job: TrainJob, saved: dict[str, Any], facts: dict[str, Any]) -> None:
    """Put weights, curve and state of an earlier training where this one works, the state last: it begins there."""
    from biom3d.files import atomic_path
    from biom3d.training.checkpoint import best_path, last_path, save_checkpoint

    assert job.earlier is not None
    with atomic_path(best_path(job.run, job.plan.desc)) as temporary:
        shutil.copyfile(best_path(job.earlier, job.plan.desc), temporary)
    content = {name: value for name, value in saved.items() if name != "version"}
    save_checkpoint(last_path(job.run, job.plan.desc), {**content, "plan": facts})


def _load_any_plan(path: Path, data_dir: str | None) -> Plan:
    """Return the plan of a file of ours, or the one that stands for a configuration of Biom3d 0.1.2."""
    from biom3d.compat.model import read_plan
    from biom3d.compat.read import is_biom3d_config

    if not is_biom3d_config(path):
        return load_plan(path)
    if data_dir is not None:
        raise ConfigError(f"'{path}' is of Biom3d and names its data itself; leave --data_dir out")
    return read_plan(path)


def _data_paths(plan: Plan, data_dir: str | None) -> DataPaths:
    if data_dir is not None:
        return DataPaths.below(data_dir)
    if plan.data is None:
        raise ConfigError("the plan does not say where the preprocessed data lie; give --data_dir")
    return plan.data


def _load_cases(job: TrainJob) -> "tuple[list[Case], list[Case]]":
    """Open the preprocessed volumes of the fold and check that they fit the plan."""
    from biom3d.data.folds import read_split

    data = job.data
    _refuse_arrays_of_another(job)
    split = read_split(Path(data.folds), job.fold)
    training, validation = ([_load_case(job, name) for name in names] for names in split)
    for case in [*training, *validation]:
        if case.image.shape[0] != job.plan.num_channels:
            raise DataError(
                f"preprocessed case '{case.name}' has {case.image.shape[0]} channel(s), the plan "
                f"{job.plan.num_channels}; run preprocess again with this plan (--base_config)"
            )
        highest = max(case.foreground, default=0)
        if highest > job.plan.num_classes:
            raise DataError(
                f"preprocessed case '{case.name}' has label {highest}, the plan {job.plan.num_classes} class(es); "
                "set num_classes in the plan or preprocess again"
            )
    return training, validation


def _refuse_arrays_of_another(job: TrainJob) -> None:
    """Raise DataError where the arrays were made anew, for another plan, since this plan was."""
    from biom3d.data.learned import NAME, read_training_set

    record = read_training_set(Path(job.data.folds).with_name(NAME))
    planned = job.plan.fingerprint.digest if job.plan.fingerprint else ""
    if record is not None and record.arrays and planned and record.arrays != planned:
        raise DataError(
            f"the preprocessed arrays beside '{job.data.folds}' are those of another plan, not of this one: preprocess "
            "was run again since, on other images, masks or options; train with its plan, or preprocess again with "
            "--base_config and this one"
        )


def _load_case(job: TrainJob, filename: str) -> "Case":
    """Open one volume; Biom3d's have no foreground voxels that we would read."""
    from biom3d.compat.data import load_biom3d_case
    from biom3d.data.patches import load_case

    images, masks, foreground = Path(job.data.images), Path(job.data.masks), job.data.foreground
    pickled = Path(foreground) / f"{filename.removesuffix('.npy')}.pkl"
    if filename.endswith(".npy") and foreground and not pickled.exists():
        return load_case(images, masks, Path(foreground), filename)
    return load_biom3d_case(images, masks, filename, job.plan.num_classes, job.plan.seed)


def _refuse_nothing_to_learn(cases: "tuple[list[Case], list[Case]]", job: TrainJob, report: Reporter) -> None:
    """Raise DataError where no training volume has an object; warn where no validation volume has."""
    training, validation = (any(case.foreground for case in part) for part in cases)
    where = f"fold {job.fold} of '{job.data.folds}'"
    if not training:
        raise DataError(
            f"{where}: the only volumes with objects are kept for validation; nothing can be learned; take empty masks "
            "out, add volumes, or preprocess with another --seed or fewer --folds"
        )
    learned, checked = ({label for case in part for label in case.foreground} for part in cases)
    unseen = sorted(checked - learned)
    is_told = any(Path(job.data.foreground).glob("*.npz"))  # by our preprocess, of all folds; Biom3d does not say it
    if unseen and not is_told:
        report.warn(
            f"{where}: class {', '.join(map(str, unseen))} occurs in its validation volumes only: it is not learned; "
            "add volumes that hold it, or preprocess with another --seed or fewer --folds"
        )
    if not validation:
        names = ", ".join(f"'{case.name}'" for case in cases[1])
        report.warn(f"{where}: no object in its validation volumes ({names}): Dice stays 0, the last epoch is kept")


def _set_aside_another(run: Path, report: Reporter) -> None:
    """Keep what is left in `run` of a training by another plan in a folder beside it, which --log can resume."""
    if not any(not path.name.endswith("_best.pth") for path in (run / "model").glob("*.pth")):
        remove(run / "model")  # killed in its first epoch
        return
    aside = run.with_name(f"{run.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        aside.mkdir()
        for name in ("model", "log", "plan.yaml"):
            if (run / name).exists():
                (run / name).rename(aside / name)
    except OSError as error:
        raise output_error(aside, error) from error
    # under any other name it may be a run of somebody's own
    others = run.parent.glob(f"{run.name}-[0-9]*") if run.name.endswith(".partial") else iter(())
    older = sorted(others)[:-SET_ASIDE]
    for path in older:
        remove(path)
    gone = f"; older ones are removed: {', '.join(path.name for path in older)}" if older else ""
    report.warn(f"'{run}' holds a training by another plan; it is kept as '{aside}', this one starts anew{gone}")


def _write_description(job: TrainJob) -> None:
    """Put beside the weights what made them: plan, folds, configuration in the words of Biom3d."""
    from biom3d.compat.write import write_biom3d_config
    from biom3d.files import atomic_path, write_json

    plan = dataclasses.replace(job.plan, data=job.data)
    save_plan(plan, job.run / "plan.yaml")
    write_biom3d_config(job.run / "log" / "config.yaml", plan, job.fold)
    made_by = {"biom3d": __version__, **{step: NUMBERS[step] for step in ("preprocess", "train")}}
    write_json(job.run / "log" / "made_by.json", made_by)
    with atomic_path(job.run / "log" / "folds.csv") as temporary:
        shutil.copyfile(job.data.folds, temporary)


def _write_record(job: TrainJob) -> None:
    """Put beside the weights what they learned from; where nobody knows, no record is better than half of one."""
    from biom3d.data.folds import read_split
    from biom3d.data.learned import NAME, describes, of_run, read_of_run, read_training_set, write_training_set

    if job.any_length:  # goes on: what it learned from before stays true
        return
    folds = Path(job.data.folds)
    known = read_training_set(folds.with_name(NAME))
    if known is not None and describes(known, [name for part in read_split(folds, job.fold) for name in part]):
        start = read_of_run(job.weights_from) if job.weights_from else None
        record = of_run(known, job.fold, start, is_fine_tuned=job.weights_from is not None)
        write_training_set(job.run / "log" / NAME, record)


@contextlib.contextmanager
def _only_one(run: Path) -> Iterator[None]:
    """Hold the run folder for this process; a second training in it is refused."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = open(run / ".lock", "w", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise output_error(run, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another training works in '{run}'; wait for it or choose another folder") from error
        try:
            yield
        finally:
            (run / ".lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # nothing came of it
                run.rmdir()


def _fold_of(run: Path) -> int:
    """Return the fold of a run folder, from its Biom3d configuration."""
    from biom3d.config import read_yaml

    path = _existing(run / "log" / "config.yaml", "a model folder made by train")
    fold = read_yaml(path).get("FOLD")
    if not isinstance(fold, int):
        raise ConfigError(f"'{path}': FOLD is {fold!r}; wanted the number of the fold that was trained")
    return fold


def _best_of(run: Path) -> Path:
    from biom3d.training.checkpoint import best_path, load_run_plan

    return best_path(run, load_run_plan(run).desc)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(path: Path, wanted: str) -> Path:
    if not path.is_file():
        raise DataError(f"'{path}' not found; give {wanted}")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return run_step("train", build_parser(), functools.partial(execute, argv=argv), argv)


if __name__ == "__main__":
    raise SystemExit(main())
