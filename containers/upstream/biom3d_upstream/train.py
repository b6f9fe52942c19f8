"""`python -m biom3d_upstream.train`: Biom3d's training, into the run folder that is named."""

import argparse
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from biom3d_upstream import mapping
from biom3d_upstream.contract import (
    InputError,
    Reporter,
    StepError,
    clear,
    refuse_taken,
    run_step,
    step_parser,
    working_folder,
    write_text,
    yaml_text,
)
from biom3d_upstream.options import add_threads
from biom3d_upstream.preprocess import read_plan
from biom3d_upstream.theirs import run_theirs

CONFIG, IDENTITY = "config.yaml", "identity.txt"


@dataclass(frozen=True)
class Job:
    """One training: Biom3d's configuration, and a hash of all that decides its result."""

    config: mapping.Config
    identity: str

    @property
    def desc(self) -> str:
        """The name of the model, which its files have."""
        return str(self.config["DESC"])


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options with which the rules call `biom3d.train`."""
    parser = step_parser("train", "Train a model with Biom3d 0.1.2.")
    parser.add_argument("-c", "--config", required=True, type=Path, metavar="PLAN", help="plan written by preprocess")
    parser.add_argument("-l", "--log", type=Path, metavar="RUN", help="model folder to start from (fine-tuning)")
    parser.add_argument("--data_dir", required=True, type=Path, metavar="DIR", help="folder made by preprocess")
    parser.add_argument("--fold", type=int, default=0, help="which fold is kept for validation (default 0)")
    parser.add_argument("--run_dir", required=True, type=Path, metavar="DIR", help="model folder to make")
    add_threads(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Train, or go on with a training that was interrupted, and give the run folder its name."""
    plan = read_plan(args.config)
    threads = args.threads or len(os.sched_getaffinity(0))
    _check_fold(args.data_dir / "folds.csv", args.fold)
    refuse_taken(args.run_dir, "--run_dir")
    workers = mapping.choose_workers(threads, shared_memory(), mapping.bytes_of_batch(plan))
    config = mapping.training_config(plan, args.data_dir.resolve(), args.fold, workers)
    job = Job(config, identity_of(mapping.training_config(plan, Path(), args.fold, 0), args))
    started = time.monotonic()
    with working_folder(args.run_dir, keep=True) as work:
        words = resume_words(work, job, report) or start_words(work, job, args.log)
        curve = Curve(work, int(config["NB_EPOCHS"]), report)
        run_theirs("train", words, work, threads, curve.follow)
        curve.follow()
        finish(work, job, args)
    best = max((row["val_dice"] for row in curve.rows), default=None)
    report.info(f"done in {time.monotonic() - started:.0f} s; '{args.run_dir}'")
    report.event("done", best_dice=best, run=str(args.run_dir))


class Curve:
    """Tells of every epoch when its line appears in log.csv."""

    def __init__(self, work: Path, epochs: int, report: Reporter) -> None:
        self.work, self.epochs, self.report = work, epochs, report
        self.rows = self._read()
        self.last = time.monotonic()

    def follow(self, line: str = "") -> None:
        """Look for new epochs; Biom3d prints something before and after each."""
        rows = self._read()
        for row in rows[len(self.rows) :]:
            seconds, self.last = time.monotonic() - self.last, time.monotonic()
            done = int(row["epoch"]) + 1
            loss, dice = row["train_loss"], row.get("val_dice")
            eta = round(seconds * (self.epochs - done), 1)
            self.report.info(f"epoch {done}/{self.epochs}  loss {loss:.3f}  {seconds:.0f} s")
            fields = {**row, "epoch": done, "seconds": round(seconds, 3)}
            self.report.event("epoch", **fields, of=self.epochs, loss=loss, dice=dice, eta_s=eta)
        self.rows = rows

    def _read(self) -> list[dict[str, float]]:
        logs = sorted(self.work.glob("logs/*/log/log.csv"))
        return mapping.curve_rows(logs[-1].read_text(encoding="utf-8")) if logs else []


def identity_of(config: mapping.Config, args: argparse.Namespace) -> str:
    """Return a hash of the configuration, the arrays, and the weights to start from."""
    digest = hashlib.sha256(yaml_text(config).encode())
    folders = [args.data_dir / name for name in mapping.PATHS.values()] + ([args.log / "model"] if args.log else [])
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def resume_words(work: Path, job: Job, report: Reporter) -> list[str] | None:
    """Return the options that go on with what is in `work`, or None where that is nothing, or another training."""
    runs = sorted((work / "logs").glob("*"))
    known = work / IDENTITY
    is_this = known.is_file() and known.read_text(encoding="utf-8") == job.identity
    last = runs[-1] / "model" / f"{job.desc}.pth" if runs else work / "none"
    if is_this and zipfile.is_zipfile(last):  # the end of a zip is written last: a whole checkpoint
        report.info(f"resuming after epoch {len(mapping.curve_rows(_text(runs[-1] / 'log' / 'log.csv')))}")
        write_text(runs[-1] / "log" / "config.yaml", yaml_text(job.config))
        return ["--log", str(runs[-1].relative_to(work))]
    if runs and last.is_file() and not is_this:
        aside = work.with_name(f"{work.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        shutil.copytree(work, aside)
        report.warn(f"'{work}' holds another training; it is kept as '{aside}', this one starts anew")
    clear(work)
    return None


def start_words(work: Path, job: Job, weights: Path | None) -> list[str]:
    """Write the configuration and return the options of a new training."""
    write_text(work / IDENTITY, job.identity)
    write_text(work / CONFIG, yaml_text(job.config))
    if weights is None:
        return ["--config", CONFIG]
    read_plan(weights / "plan.yaml")  # says what is missing
    (work / "start").symlink_to(weights.resolve())
    return ["--config", CONFIG, "--log", "start"]


def finish(work: Path, job: Job, args: argparse.Namespace) -> None:
    """Give the files of Biom3d's run folder our names, below `run_dir`."""
    runs = sorted((work / "logs").glob("*"))
    if not runs:
        raise StepError("Biom3d's train left no run folder; see its output above")
    run = runs[-1]
    keep_better_checkpoint(run, job.desc)
    if not (run / "model" / f"{job.desc}_best.pth").is_file():
        raise StepError("no epoch has a loss that is a number; look for NaN voxels in the images (biom3d check)")
    made = work / "run"
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = mapping.run_name(path.relative_to(run).as_posix())
        if name is not None:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(made / name)
    trained = yaml.safe_load(_text(made / "log" / CONFIG))
    write_text(made / "log" / CONFIG, yaml_text(trained | with_paths(trained, args)))
    made.replace(args.run_dir)


def with_paths(trained: mapping.Config, args: argparse.Namespace) -> mapping.Config:
    """Return the configuration with the data folder as it was given, not where it was on this machine."""
    named = mapping.training_config(trained, args.data_dir, args.fold, int(trained["NUM_WORKERS"]))
    return {key: value for key, value in named.items() if key != "LOG_DIR"} | {"LOG_DIR": str(args.run_dir.parent)}


def keep_better_checkpoint(run: Path, desc: str) -> None:
    """Put back the best checkpoint from before a resume where no later epoch is better: Biom3d forgets its loss."""
    best = mapping.best_epoch(mapping.curve_rows(_text(run / "log" / "log.csv")))
    copies = {int(p.stem.split("_")[-2]): p for p in (run / "model").glob(f"{desc}_*_best.pth") if _is_copy(p, desc)}
    later = sorted(start for start in copies if best is not None and best < start)
    if later:  # the first resume after the best epoch copied it
        copies[later[0]].replace(run / "model" / f"{desc}_best.pth")


def shared_memory() -> int:
    """Return the free bytes of /dev/shm, through which loader processes hand over batches."""
    try:
        facts = os.statvfs("/dev/shm")  # noqa: S108 - only asked for its size
    except OSError:
        return 0
    return facts.f_bavail * facts.f_frsize


def _is_copy(path: Path, desc: str) -> bool:
    return path.stem.removeprefix(f"{desc}_").removesuffix("_best").isdecimal()


def _check_fold(table: Path, fold: int) -> None:
    if not table.is_file():
        raise InputError(f"'{table}' not found; give --data_dir a folder made by preprocess")
    folds = mapping.folds_in(_text(table))
    if fold not in folds:
        raise InputError(f"--fold {fold}: '{table}' has the folds {', '.join(map(str, folds))}")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("train", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
