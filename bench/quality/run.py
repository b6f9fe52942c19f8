"""Quality of ours against Biom3d 0.1.2, MONAI and nnU-Net v2 on real labelled volumes: `python bench/quality/run.py`.

One result file per (set, method, seed) in out/<budget>; what is there is not done again, so the run can be stopped
and taken up at any time, and two may run side by side. The tables in README.md are written after every result.
"""

import argparse
import fcntl
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from methods import BUDGETS, METHODS, Budget, Job, Trained, call
from sets import SETS, DataSet, Prepared, prepare
from table import write_tables

from biom3d.files import remove, write_json

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = {
    "biom3d": ("torch==2.13.0", "biom3d==0.1.2"),
    "monai": ("torch==2.13.0", "monai==1.6.1", "tifffile"),
    "nnunet": ("torch==2.13.0", "nnunetv2==2.8.1"),
}
DEFAULT_METHODS = ("threshold", "ours", "biom3d", "monai_dynunet")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [data.name for data in SETS]
    parser.add_argument("--data", type=Path, help="folder of the labelled data sets (not needed for cells)")
    parser.add_argument("--sets", nargs="+", choices=names, default=names, metavar="SET", help=", ".join(names))
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=DEFAULT_METHODS, metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--budget", choices=BUDGETS, default="tiny", help="tiny: CPU; full: GPU")
    parser.add_argument("--tuning", action="store_true", help="leave test/ alone: a part of train/ stands in for it")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "quality", help="prepared data and models")
    parser.add_argument("--out", type=Path, help="result files (default: out/<budget>, with --tuning in --work)")
    parser.add_argument("--peer-env", type=Path, help="environment with Biom3d 0.1.2 (default: made)")
    parser.add_argument("--monai-env", type=Path, help="environment with MONAI (default: made)")
    parser.add_argument("--nnunet-env", type=Path, help="environment with nnU-Net v2 (default: made)")
    parser.add_argument("--keep", action="store_true", help="keep models and predictions of each run in --work")
    parser.add_argument("--table", action="store_true", help="only write the tables anew")
    return parser


def main() -> int:
    """Run what is missing; return the exit code: 1 where a training failed."""
    args = build_parser().parse_args()
    budget, work = BUDGETS[args.budget], args.work.resolve()
    out = (args.out or (work / "tuning" / budget.name if args.tuning else HERE / "out" / budget.name)).resolve()
    if args.table:
        write_tables(HERE)
        return 0
    failed = 0
    chosen = [data for data in SETS if data.name in args.sets]
    for seed, data, method in itertools.product(args.seeds, chosen, args.methods):
        result = out / f"{data.name}-{method}-{seed}.json"
        if result.exists() or (method == "threshold" and seed != args.seeds[0]):
            continue
        with locked(work / "locks" / f"{budget.name}-{args.tuning}-{result.stem}") as mine:
            if not mine or result.exists():
                continue
            folder = work / ("tuning" if args.tuning else "runs") / f"{budget.name}-{result.stem}"
            place = work / ("prepared-tuning" if args.tuning else "prepared") / data.name
            with locked(place.with_suffix(".lock"), wait=True):
                prepared = prepare(data, source_of(data, args.data), place, args.tuning)
            failed += not run_job(prepared, method, seed, budget, folder, result, args)
            if not args.tuning and args.out is None:
                write_tables(HERE)
    return int(failed > 0)


def run_job(
    prepared: Prepared, method: str, seed: int, budget: Budget, folder: Path, result: Path, args: argparse.Namespace
) -> bool:
    """Train, predict, score, and write the result file; say whether it went well."""
    remove(folder)
    folder.mkdir(parents=True)
    job = Job(prepared, method, seed, budget, folder, environments(method, args))
    started = time.monotonic()
    try:
        trained = METHODS[method](job)
        scores = score(job, trained)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"{result.stem}: failed: {error}", file=sys.stderr, flush=True)
        return False
    facts = {
        "set": prepared.data.name,
        "method": method,
        "seed": seed,
        "budget": {**asdict(budget), "patch": job.patch, "samples": budget.samples},
        "volumes": [len(prepared.training), len(prepared.validation), len(scores["cases"]) // len(scores["mean"])],
        "seconds": {"train": trained.train_s, "train_cpu": trained.train_cpu_s, "predict": trained.predict_s},
        "versions": versions(job),
        "date": time.strftime("%Y-%m-%d"),
        **scores,
    }
    write_json(result, rounded(facts))
    dice = ", ".join(f"{mean['dice']:.3f}" for mean in scores["mean"].values())
    print(f"{result.stem}: Dice {dice}; {time.monotonic() - started:.0f} s", flush=True)
    if not args.keep:
        remove(folder)
    return True


def score(job: Job, trained: Trained) -> dict[str, Any]:
    """Return cases and means of our `eval`; the classes of a threshold may overlap and are scored one by one."""
    classes = range(1, len(job.prepared.data.classes) + 1)
    if job.method != "threshold":
        return evaluate(job, trained.predictions)
    parts = [(str(label), evaluate(job, trained.predictions / str(label))) for label in classes]
    cases = [row for label, part in parts for row in part["cases"] if str(row["class"]) == label]
    return {"cases": cases, "mean": {label: part["mean"][label] for label, part in parts}}


def evaluate(job: Job, predictions: Path) -> dict[str, Any]:
    """Run `biom3d eval` on a folder of predictions."""
    out = job.folder / "scores.json"
    options = ["--path_pred", str(predictions), "--path_lab", str(job.prepared.path("test", "masks"))]
    command = [sys.executable, "-m", "biom3d.eval", *options, f"--out_json={out}"]
    call(job, [*command, f"--num_classes={len(job.prepared.data.classes)}"])
    found = json.loads(out.read_text())
    return {"cases": found["cases"], "mean": found["mean"]}


def environments(method: str, args: argparse.Namespace) -> dict[str, Path]:
    """Return the Python of the program that the method needs, if it is not ours."""
    program = method.partition("_")[0]
    if program not in PACKAGES:
        return {}
    given = {"biom3d": args.peer_env, "monai": args.monai_env, "nnunet": args.nnunet_env}[program]
    if given is not None:
        return {program: given.resolve() / "bin" / "python"}
    return {program: make_environment(ROOT / ".cache" / f"quality-{program}", PACKAGES[program])}


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Make an environment with the packages unless it is there; return its Python."""
    python, ready = folder / "bin" / "python", folder / ".ready"
    with locked(folder.with_suffix(".lock"), wait=True):
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            for package in packages:  # one after the other: a later one must not bring another torch
                subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
            ready.touch()
    return python


def source_of(data: DataSet, folder: Path | None) -> Path:
    """Return where the data set lies; SystemExit where it was not told."""
    if data.synth[0]:
        return Path()
    if folder is None or not (folder / data.name).is_dir():
        raise SystemExit(f"quality: set '{data.name}' not found in {folder}; give --data DIR, or --sets cells")
    return folder


def versions(job: Job) -> dict[str, str]:
    """Say which versions ran."""
    names = {"biom3d": ("biom3d", "torch"), "monai": ("monai", "torch"), "nnunet": ("nnunetv2", "torch")}
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    program = job.method.partition("_")[0]
    python = str(job.environments.get(program, sys.executable))
    wanted = names.get(program, ("torch",) if program == "ours" else ("scipy",))
    found = json.loads(subprocess.check_output([python, "-I", "-c", code, *wanted], text=True))
    return {**found, "commit": os.environ.get("QUALITY_COMMIT") or commit()}


def commit() -> str:
    """Return the commit of this repository, `-dirty` where the code that runs differs from it."""
    code = ["biom3d", *(str(path.relative_to(ROOT)) for path in HERE.glob("*.py"))]  # not tables and results
    found, changed = (
        subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()
        for words in (["describe", "--always"], ["status", "--porcelain", "--", *code])
    )
    return f"{found or 'unknown'}{'-dirty' if changed else ''}"


def rounded(value: Any) -> Any:
    """Round numbers to four digits, so that result files stay readable."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a lock of this name; yield whether it was free (always true with `wait`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


if __name__ == "__main__":
    raise SystemExit(main())
