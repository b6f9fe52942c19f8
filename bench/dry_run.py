"""Time, memory and lines of `snakemake -n` for many rows: python bench/dry_run.py [--checkout DIR] [ROWS ...]."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEADER = "dataset\timages\tmasks\ttrain\tpredict"


def make_project(folder: Path, rows: int) -> None:
    """Write a table of `rows` data sets of three empty files each, every second one with masks, and one model."""
    lines = [HEADER, "train\tdata/train/images\tdata/train/masks\tm\t"]
    put(folder / "data/train/images")
    put(folder / "data/train/masks")
    for number in range(rows):
        name = f"data/d{number}"
        put(folder / name / "images")
        if number % 2:
            put(folder / name / "masks")
        lines.append(f"d{number}\t{name}/images\t{f'{name}/masks' if number % 2 else ''}\t\tm")
    (folder / "config").mkdir()
    (folder / "config/datasets.tsv").write_text("\n".join(lines) + "\n")
    (folder / "config/config.yaml").write_text("models:\n  m: {folds: 2}\n")


def put(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in "123":
        (folder / f"{name}.tif").touch()


def measure(checkout: Path, folder: Path) -> tuple[float, float, float, int]:
    """Return wall and CPU seconds, MB and lines of a dry run; of children so far the largest memory is known."""
    snakemake = Path(sys.executable).parent / "snakemake"
    words = [snakemake, "-s", checkout / "workflow/Snakefile", "--workflow-profile", checkout / "profiles/local", "-n"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1e3, len((done.stdout + done.stderr).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("rows", type=int, nargs="*", default=[300, 2000])
    args = parser.parse_args()
    print("| rows | wall s | CPU s | MB | lines |\n|---|---|---|---|---|")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            make_project(Path(folder), rows)
            wall, cpu, memory, lines = measure(args.checkout, Path(folder))
            print(f"| {rows} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | {lines} |", flush=True)


if __name__ == "__main__":
    main()
