"""Time and peak memory of every step on synthetic volumes: `make bench` prints a table and keeps it.

Each step runs as the workflow runs it, in a process of its own, so start-up and imports count.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import psutil

from biom3d.files import remove, write_json, write_text

OUT = Path(__file__).parent / "out"
README = Path(__file__).parent / "README.md"
LATEST = "## Latest\n"  # what follows it in the README is replaced
SAMPLE_S = 0.02
PACKAGES = ("torch", "numpy", "scipy", "tifffile", "zarr")

# Step -> (command after `python -m biom3d.`, what to remove before it, so that no run finds its work done).
# They run in this order in one folder, on two volumes: one to train on, one to validate with.
STEPS = {
    "synth": ("synth data --count 2 --shape {size} {size} {size} --cells 20", "data"),
    "check": ("check --img_path data/images --msk_path data/masks --out check.json", "check.json"),
    "preprocess": (
        "preprocess --img_path data/images --msk_path data/masks --num_classes 1 --desc bench --folds 2 "
        "--num_epochs 1 --num_steps 5 --out_dir arrays --plan_out logs/plan.yaml",
        "arrays",
    ),
    "train, 5 steps": (
        "train --config logs/plan.yaml --data_dir arrays --fold 0 --run_dir logs/fold_0",
        "logs/fold_0",
    ),
    "pred": ("pred --log logs/fold_0 --path_in data/images --out_dir pred --no_tta", "pred"),
    "eval": (
        "eval --path_pred pred --path_lab data/masks --num_classes 1 --out_csv m.csv --out_json m.json",
        "m.json",
    ),
    "export labels": (
        "export labels --path_pred pred --path_in data/images --out_dir labels --formats ome-tiff ome-zarr",
        "labels",
    ),
    "report overlay": (
        "report overlay --path_in data/images --path_pred pred --path_lab data/masks --metrics m.json "
        "--out_dir overlays",
        "overlays",
    ),
}


@dataclass(frozen=True)
class Cost:
    """What a run took: seconds on the clock, seconds of CPU (user + system), peak memory in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    step: str
    size: int
    runs: int
    cost: Cost


def measure(command: Sequence[str], folder: Path) -> Cost:
    """Run `command` in `folder` to its end and return what it took; end with its output if it fails."""
    start = time.perf_counter()
    peak = 0
    with (folder / "log.txt").open("w") as log:
        process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, tree_memory(process))
            time.sleep(SAMPLE_S)
    wall_s = time.perf_counter() - start
    _, process.returncode, usage = ended
    if process.returncode != 0:
        raise SystemExit(f"bench: failed: {' '.join(command)}\n{(folder / 'log.txt').read_text()}")
    # The kernel knows the exact peak of the largest process; samples add up the tree.
    peak = max(peak, usage.ru_maxrss * 1024)
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, peak / 1e6)


def tree_memory(process: psutil.Process) -> int:
    """Return the resident bytes of a process and all its descendants; 0 if it has just ended."""
    try:
        return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0


def bench_size(size: int, runs: int, long_s: float) -> list[Row]:
    """Measure every step on volumes of size^3; a step that took longer than `long_s` is run once."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="biom3d-bench-") as name:
        folder = Path(name)
        for step, (arguments, output) in STEPS.items():
            module, *rest = arguments.format(size=size).split()
            command = [sys.executable, "-m", f"biom3d.{module}", *rest]
            costs: list[Cost] = []
            while len(costs) < runs and not (costs and costs[0].wall_s > long_s):
                remove(folder / output)
                costs.append(measure(command, folder))
            rows.append(Row(step, size, len(costs), median(costs)))
            print(f"bench: {size}^3 {step}: {rows[-1].cost.wall_s:.2f} s", file=sys.stderr, flush=True)
    return rows


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each number on its own."""
    return Cost(*map(statistics.median, zip(*map(astuple, costs), strict=True)))


def machine() -> dict[str, str]:
    """Say where the numbers come from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    git = ["git", "-C", str(OUT.parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    return {
        "processor": f"{os.cpu_count()} x {model}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "commit": commit or "unknown",
        "date": time.strftime("%Y-%m-%d"),
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table; `ratio` is a step's time over its time on the first size."""
    first = {row.step: row.cost.wall_s for row in reversed(rows)}
    lines = ["| step | volumes | time (s) | ratio | CPU (s) | peak memory (MB) | runs |"]
    lines += ["| --- | --- | --: | --: | --: | --: | --: |"]
    for row in rows:
        wall_s, cpu_s, peak_mb = astuple(row.cost)
        numbers = f"{wall_s:.2f} | {wall_s / first[row.step]:.1f} | {cpu_s:.2f} | {peak_mb:.0f} | {row.runs}"
        lines.append(f"| {row.step} | 2 x {row.size}³ | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, keep everything as JSON."""
    parser = argparse.ArgumentParser(description="Time and peak memory of every step on synthetic volumes.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="edges (default 128 256)")
    parser.add_argument("--runs", type=int, default=3, help="runs of a step; the median counts (default 3)")
    parser.add_argument(
        "--long", type=float, default=30.0, metavar="S", help="a step longer than this runs once (default 30)"
    )
    parser.add_argument("--keep", action="store_true", help="put the table into bench/README.md")
    args = parser.parse_args()
    about = machine()
    rows = [row for size in args.sizes for row in bench_size(size, args.runs, args.long)]
    write_json(OUT / "steps.json", {"machine": about, "rows": [asdict(row) for row in rows]})
    text = "\n".join(f"- {key}: {value}" for key, value in about.items()) + "\n\n" + table(rows) + "\n"
    print(text, end="")
    if args.keep:
        write_text(README, README.read_text().split(LATEST)[0] + LATEST + "\n" + text)


if __name__ == "__main__":
    main()
