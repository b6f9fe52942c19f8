"""Time and peak memory of `pred` over classes, plane and depth, beside those of an earlier commit.

  python bench/memory.py --before 1cad2db          # an hour or two on 2 cores; --rows 0 1 for some of them

Each prediction runs by itself under `ulimit -v`, so that what asks for more fails as it would on a small machine. The
result is bench/memory.json; `--keep` writes its table into bench/memory.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).parent
TABLE, DATA = HERE / "memory.md", HERE / "memory.json"
LATEST = "<!-- latest -->\n"
ALLOWED = 8e9  # bytes of address space


@dataclass(frozen=True)
class Case:
    """One prediction: classes of objects, shape and patch (z, y, x), features of the network's first stage."""

    classes: int
    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    width: int = 4


CASES = (
    Case(2, (16, 1024, 1024), (16, 128, 128)),
    Case(2, (1, 6000, 6000), (1, 512, 512)),
    Case(2, (16, 2048, 2048), (16, 256, 256)),
    Case(300, (24, 128, 128), (24, 24, 24)),
    Case(300, (8, 1024, 1024), (8, 32, 32)),
    Case(300, (24, 512, 512), (24, 24, 24)),
    Case(2, (4, 6000, 6000), (4, 512, 512)),
    Case(2, (8, 6000, 6000), (8, 512, 512)),
    Case(2, (64, 6000, 6000), (64, 128, 128)),
    Case(300, (24, 1024, 1024), (24, 24, 24)),
)


@dataclass(frozen=True)
class Cost:
    """What a run took, and whether it ended well."""

    wall_s: float
    peak_mb: float
    ended_well: bool
    cpu_s: float = 0


def make_model(case: Case, folder: Path, tree: Path) -> Path:
    """Train for two steps, by the program in `tree`, on volumes that hold every class; return the model folder."""
    rng = np.random.default_rng(0)
    is_2d = case.shape[0] == 1
    shape = case.patch
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for k in range(2):
        mask = np.zeros(shape, np.uint16)
        flat = mask.reshape(-1)
        flat[: 4 * case.classes] = np.repeat(np.arange(case.classes) + 1, 4)
        image = (rng.integers(50, 90, shape) + 2 * mask).astype(np.uint16)
        for part, array in (("images", image), ("masks", mask)):
            tifffile.imwrite(folder / part / f"{k}.tif", array[0] if is_2d else array, photometric="minisblack")
    words = f"--num_classes {case.classes} --folds 1 --num_epochs 1 --num_steps 2 --batch_size 1 --width {case.width}"
    patch = " ".join(map(str, case.patch))
    places = "--img_path images --msk_path masks --out_dir pre --plan_out plan.yaml --run_dir run"
    command = [sys.executable, "-m", "biom3d.preprocess_train", *f"{words} --patch_size {patch} {places}".split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(tree)})
    return folder / "run"


def measure(case: Case, model: Path, tree: Path, folder: Path) -> Cost:
    """Predict a volume of noise with the program in `tree`; return what it took."""
    volume = folder / "volume"
    if not volume.exists():
        volume.mkdir()
        planes = (
            np.random.default_rng(z).integers(50, 90, case.shape[1:]).astype(np.uint16) for z in range(case.shape[0])
        )
        tifffile.imwrite(
            volume / "a.tif",
            planes,
            shape=case.shape if case.shape[0] > 1 else case.shape[1:],
            dtype=np.uint16,
            photometric="minisblack",
        )
    out = folder / f"out-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "biom3d.pred", "--log", model, "--path_in", volume, "--out_dir", out]
    start = time.perf_counter()
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (int(ALLOWED), int(ALLOWED)))  # noqa: E731
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=tree,
            stdout=log,
            stderr=log,
            env=environment,
            preexec_fn=limit,
        )
        _, status, usage = os.wait4(process.pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6, status == 0, cpu)


def table(rows: Sequence[dict]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| classes | z x y x x | patch | before | | now | | time | CPU |", "|---|---|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        case, before, now = row["case"], row["before"], row["now"]
        sizes = " | ".join(" x ".join(map(str, case[key])) for key in ("shape", "patch"))
        old = f"{before['peak_mb']:.0f} MB | {before['wall_s']:.0f} s" if before["ended_well"] else "does not fit |"
        ratio = f"{now['wall_s'] / before['wall_s']:.2f} x" if before["ended_well"] else ""
        new = f"{now['peak_mb']:.0f} MB | {now['wall_s']:.0f} s" if now["ended_well"] else "does not fit |"
        both = before["ended_well"] and before.get("cpu_s") and now.get("cpu_s")
        share = f"{now['cpu_s'] / before['cpu_s']:.2f} x" if both else ""
        lines.append(f"| {case['classes']} | {sizes} | {old} | {new} | {ratio} | {share} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, keep the numbers."""
    parser = argparse.ArgumentParser(description="Time and peak memory of pred over classes, plane and depth.")
    parser.add_argument("--before", required=True, metavar="COMMIT", help="commit to compare with")
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(CASES))), help="numbers of cases")
    parser.add_argument("--keep", action="store_true", help="put the table into bench/memory.md")
    args = parser.parse_args()
    rows = json.loads(DATA.read_text())["rows"] if DATA.exists() else []
    with tempfile.TemporaryDirectory(prefix="biom3d-memory-") as name:
        old = Path(name) / "before"
        old.mkdir()
        archive = subprocess.run(
            ["git", "-C", HERE.parent, "archive", args.before, "biom3d"], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", old], input=archive.stdout, check=True)
        for number in args.rows:
            case = CASES[number]
            folder = Path(name) / str(number)
            costs = {}
            for key, tree in (("before", old), ("now", HERE.parent)):
                model = make_model(case, folder / key, tree)
                costs[key] = measure(case, model, tree, folder)
            row = json.loads(json.dumps({"case": asdict(case), **{key: asdict(cost) for key, cost in costs.items()}}))
            rows = [*(other for other in rows if other["case"] != row["case"]), row]
            print(row, flush=True)
    about = {"cores": os.cpu_count(), "load at the end": f"{os.getloadavg()[0]:.1f}", "before": args.before}
    rows.sort(key=lambda row: (row["case"]["classes"], row["case"]["shape"]))
    DATA.write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")
    print(table(rows), end="")
    if args.keep:
        TABLE.write_text(TABLE.read_text().split(LATEST)[0] + LATEST + "\n" + table(rows))


if __name__ == "__main__":
    main()
