"""Our steps beside those of the real Biom3d 0.1.2, in one run on one machine: `make bench-peers`.

Both programs run as commands, in processes of their own, in turns (theirs, ours, theirs, ours, ...). The medians go
into bench/peers.md, all numbers into bench/peers.json; rows that are not run again keep their last numbers, with
the load at which they were taken. Biom3d lives in an environment of its own, made in .cache/upstream as `make
test-upstream` does.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tifffile
from steps import Cost, machine, measure, median

from biom3d.compat.write import biom3d_config
from biom3d.config import dump, load_plan
from biom3d.files import remove, write_json, write_text

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "peers.json"
PAGE = HERE / "peers.md"
LATEST = "## Latest\n"  # what follows it in the page is replaced
SMALL, LARGE = ((32, 64, 64), (3, 4, 4)), ((32, 128, 128), (3, 5, 5))  # patch and pools of its network
FORWARDS_256 = 16 * 4 * 4 * 8  # windows of 32x128x128 in 256^3 as Biom3d lays them, times 8 mirrored views
FORWARDS_ONE = 2 * 2 * 2 * 8  # the same in one patch
START_S = {"theirs": 5.5, "ours": 1.5}  # of a prediction before its first window; small beside what is measured
HELP = {"theirs": ("preprocess", "train", "pred", "eval"), "ours": ("preprocess", "train", "pred", "eval", "plan")}


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds or MB of both programs (None: not run), and what the issue wants of the ratio."""

    work: str
    unit: str
    theirs: float | None
    ours: float
    wanted: str
    runs: int
    theirs_cpu: float | None = None
    ours_cpu: float | None = None
    note: str = ""
    load: float = 0.0
    date: str = ""

    @property
    def ratio(self) -> float | None:
        """Theirs over ours."""
        return None if self.theirs is None else self.theirs / self.ours


class Bench:
    """A folder with data and models, and the two programs."""

    def __init__(self, folder: Path, theirs: Path, runs: int) -> None:
        self.folder, self.runs = folder, runs
        self.python = {"theirs": [str(theirs), "-I"], "ours": [sys.executable]}

    def command(self, side: str, step: str, options: str) -> list[str]:
        """Return the command of a step."""
        return [*self.python[side], "-m", f"biom3d.{step}", *options.split()]

    def once(self, side: str, step: str, options: str, *stale: str) -> Cost:
        """Run a step after removing what an earlier run left."""
        for name in stale:
            remove(self.folder / name)
        (self.folder / "theirs").mkdir(exist_ok=True)  # where its predictions go has to be there
        cost = measure(self.command(side, step, options), self.folder)
        print(f"  {side:6} {step}: {cost.wall_s:.2f} s, CPU {cost.cpu_s:.2f} s, {cost.peak_mb:.0f} MB", flush=True)
        return cost

    def in_turns(self, theirs: Callable[[], Cost], *ours: Callable[[], Cost]) -> list[Cost]:
        """Return the medians of theirs and of each of ours, run one after the other and again."""
        rounds = [[run() for run in (theirs, *ours)] for _ in range(self.runs)]
        return [median(column) for column in zip(*rounds, strict=True)]


# Data and models


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Call `work` in a process of its own: what this one once held counts as a peak of the programs it starts."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed")


def balls(shape: Sequence[int], rng: np.random.Generator, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (z, y, x) uint16 of bright balls in noise, and its mask uint8."""
    mask = np.zeros(shape, np.uint8)
    radius = max(3, min(shape) // 6)
    offsets = np.indices([2 * radius + 1] * 3) - radius
    ball = (offsets**2).sum(0) <= radius**2
    for _ in range(count):
        start = [int(rng.integers(0, n - 2 * radius)) for n in shape]
        place = tuple(slice(s, s + 2 * radius + 1) for s in start)
        mask[place] |= ball[tuple(slice(0, n) for n in mask[place].shape)]
    image = rng.normal(200, 60, shape) if mask.size < 1e7 else np.broadcast_to(rng.normal(200, 60, shape[1:]), shape)
    return (image + 150 * mask).clip(0).astype(np.uint16), mask


def write_volumes(folder: Path, count: int, shape: Sequence[int], masks: bool = True) -> None:
    """Write volumes, and their masks beside them, as ImageJ TIFF."""
    rng = np.random.default_rng(0)
    for i in range(count):
        for kind, array in zip(("images", "masks") if masks else ("images",), balls(shape, rng), strict=False):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / f"v{i:02}.tif", array, imagej=True, metadata={"axes": "ZYX"})


def write_model(bench: Bench, name: str, patch: Sequence[int], pools: Sequence[int], width: int = 32) -> None:
    """Make a folder as Biom3d's training leaves it: its network, its configuration with 8 mirrored views."""
    import torch

    from biom3d.models import UNet

    data = bench.folder / "tiny"
    if not data.exists():
        write_volumes(data, 3, (32, 64, 64))
    arrays, plan_file = f"arrays_{name}", f"{name}.yaml"
    options = f"--img_path tiny/images --msk_path tiny/masks --num_classes 1 --out_dir {arrays} --plan_out {plan_file}"
    size = " ".join(map(str, patch))
    bench.once("ours", "preprocess", f"{options} --desc {name} --patch_size {size} --batch_size 2", arrays)
    plan = dataclasses.replace(load_plan(bench.folder / plan_file), num_pools=tuple(pools), width=width, data=None)
    config = biom3d_config(plan, 0)
    config["PREDICTOR"]["kwargs"]["tta"] = True
    config["TRAINED_ON_VERSION"] = "0.1.2"
    torch.manual_seed(0)
    network = UNet(1, 2, tuple(pools), width)
    run = bench.folder / "models" / name
    (run / "model").mkdir(parents=True)
    write_text(run / "log" / "config.yaml", dump(config))
    torch.save({"epoch": 0, "model": network.state_dict()}, run / "model" / f"{name}_best.pth")


# Rows


def preprocess_many(bench: Bench) -> list[Row]:
    """20 volumes of 128^3, start-up included."""
    apart(write_volumes, bench.folder / "many", 20, (128, 128, 128))
    given = "--img_path many/images --msk_path many/masks --num_classes 1"
    theirs, ours = bench.in_turns(
        lambda: bench.once("theirs", "preprocess", f"{given} --config_dir theirs", "many/images_out", "many/masks_out"),
        lambda: bench.once("ours", "preprocess", f"{given} --out_dir arrays --plan_out plan.yaml", "arrays"),
    )
    return [timed("preprocess 20 volumes of 128³, imports included", theirs, ours, ">= 5", bench.runs)]


def preprocess_memory(bench: Bench) -> list[Row]:
    """Peak memory of large volumes; two of them, since Biom3d refuses one."""
    apart(write_volumes, bench.folder / "large", 2, (256, 512, 512))
    given = "--img_path large/images --msk_path large/masks --num_classes 1"
    theirs, ours = bench.in_turns(
        lambda: bench.once("theirs", "preprocess", f"{given} --config_dir theirs"),
        lambda: bench.once("ours", "preprocess", f"{given} --out_dir arrays --plan_out plan.yaml", "arrays"),
    )
    note = f"two volumes, one after the other: Biom3d refuses one; {theirs.wall_s:.1f} and {ours.wall_s:.1f} s"
    work = "preprocess, peak memory, volumes of 256x512x512 uint16"
    return [Row(work, "MB", theirs.peak_mb, ours.peak_mb, ">= 2.5 (0.4 x)", bench.runs, note=note)]


def training_step(bench: Bench) -> list[Row]:
    """A step of its network on its configuration and data: loading, augmentation, forward, backward, update."""
    apart(write_volumes, bench.folder / "train", 4, (40, 80, 80))
    given = "--img_path train/images --msk_path train/masks --num_classes 1 --num_epochs 1 --desc step"
    bench.once("theirs", "preprocess", f"{given} --config_dir theirs")
    (config,) = (bench.folder / "theirs").glob("*-step.py")
    text = config.read_text()
    for key, value in (("PATCH_SIZE", [32, 64, 64]), ("AUG_PATCH_SIZE", [48, 96, 96]), ("NUM_POOLS", [3, 4, 4])):
        text = re.sub(rf"(?m)^{key} = .*", f"{key} = {value}", text)
    for old, new in (("nbof_steps = 250", "nbof_steps = 9"), ("nbof_steps = 50", "nbof_steps = 1")):
        text = text.replace(old, new)
    config.write_text(re.sub(r"(?m)^NUM_WORKERS = .*", "NUM_WORKERS = 2", text))
    options = ["--config", str(config.relative_to(bench.folder))]

    def steps(side: str, *more: str) -> Cost:
        remove(bench.folder / "run")
        command = [*bench.python[side], str(HERE / "step_times.py"), "biom3d.train", *options, *more]
        whole = measure(command, bench.folder)
        wall, cpu = json.loads((bench.folder / "log.txt").read_text().splitlines()[-1])
        cost = Cost(statistics.median(wall), statistics.median(cpu), whole.peak_mb)
        print(f"  {side:6} step: {cost.wall_s:.2f} s, CPU {cost.cpu_s:.2f} s, {cost.peak_mb:.0f} MB", flush=True)
        return cost

    theirs, ours = bench.in_turns(lambda: steps("theirs"), lambda: steps("ours", "--run_dir", "run"))
    note = "median of 7 steps a run; CPU of the main process"
    work = "training step, its network, 32x64x64, batch 2, with loading and augmentation"
    return [timed(work, theirs, ours, ">= 2.5", bench.runs, note)]


def predict(bench: Bench, model: str, images: str, side: str, more: str = "") -> Cost:
    """Predict a folder of images with a model."""
    where = "--path_out theirs" if side == "theirs" else f"--out_dir predicted{more.replace(' ', '')}"
    given = f"--log models/{model} --path_in {images}/images {where} {more}"
    return bench.once(side, "pred", given, f"theirs/{model}", f"predicted{more.replace(' ', '')}")


def predict_small(bench: Bench) -> list[Row]:
    """A volume no larger than the patch: 64 forwards in Biom3d, 8 with our windows."""
    apart(write_model, bench, "small", *SMALL)
    apart(write_volumes, bench.folder / "one", 1, (31, 61, 57), False)
    own, single = "--windows own", "--precision float32"
    theirs, *ours = bench.in_turns(
        lambda: predict(bench, "small", "one", "theirs"),
        *(lambda more=more: predict(bench, "small", "one", "ours", more) for more in ("", own, single)),
    )
    work = "predict 31x61x57, its model, 8 mirrored views"
    titles = ("default: its windows", own, single)
    return [
        timed(f"{work}, {title}", theirs, one, ">= 10", bench.runs) for title, one in zip(titles, ours, strict=True)
    ]


def predict_large(bench: Bench) -> list[Row]:
    """One patch of 32x128x128, and 256^3 from the forwards that it takes."""
    apart(write_model, bench, "large", *LARGE)
    apart(write_volumes, bench.folder / "wide", 1, (32, 128, 128), False)
    theirs, ours, own = bench.in_turns(
        lambda: predict(bench, "large", "wide", "theirs"),
        lambda: predict(bench, "large", "wide", "ours"),
        lambda: predict(bench, "large", "wide", "ours", "--windows own"),
    )
    work = "predict {}, its model, 8 mirrored views, {}"
    rows = [timed(work.format("32x128x128", "default: its windows"), theirs, ours, ">= 5", bench.runs)]
    rows += [timed(work.format("32x128x128", "--windows own"), theirs, own, ">= 5", bench.runs)]
    factor = FORWARDS_256 / FORWARDS_ONE
    full = []
    for cost, start in ((theirs, START_S["theirs"]), (ours, START_S["ours"])):
        wall, cpu = (start + (value - start) * factor for value in (cost.wall_s, cost.cpu_s))
        full.append(Cost(wall, cpu, cost.peak_mb))
    note = f"extrapolated, both: {FORWARDS_256} forwards from the {FORWARDS_ONE} of the row above"
    return [*rows, timed(work.format("256³", "default: its windows"), full[0], full[1], ">= 3", bench.runs, note)]


def predict_256(bench: Bench) -> list[Row]:
    """256^3, ours alone and whole; slow."""
    if not (bench.folder / "models" / "large").exists():
        apart(write_model, bench, "large", *LARGE)
    apart(write_volumes, bench.folder / "cube", 1, (256, 256, 256), False)
    costs = [predict(bench, "large", "cube", "ours", more) for more in ("--windows own", "")]
    titles = ("--windows own", "default: its windows")
    return [
        Row(f"predict 256³, whole, {title}", "s", None, c.wall_s, "", 1, None, c.cpu_s)
        for title, c in zip(titles, costs, strict=True)
    ]


def predict_memory(bench: Bench, width: int = 4, depths: Sequence[int] = (80, 120)) -> list[Row]:
    """Peak memory of ours over planes of 1024x1024 at several depths, with the patch that such volumes get."""
    name = f"deep{width}"
    apart(write_model, bench, name, (80, 160, 160), (4, 5, 5), width)
    rows = []
    for depth in depths:
        folder = bench.folder / f"deep{depth}"
        apart(write_volumes, folder, 1, (depth, 1024, 1024), False)
        cost = median([predict(bench, name, folder.name, "ours", "--windows own --no_tta") for _ in range(bench.runs)])
        theirs_gb = 64 * depth * 1024**2 / 1e9  # by its 64 B a voxel, measured on smaller volumes
        note = f"patch 80x160x160, width {width}, CPU {cost.cpu_s:.0f} s; Biom3d, not run: about {theirs_gb:.0f} GB"
        work = f"predict, peak memory, {depth}x1024x1024 uint16, 2 classes"
        rows.append(Row(work, "MB", None, cost.peak_mb, "<= 3000 MB", bench.runs, note=note))
        remove(folder)
    return rows


def evaluate(bench: Bench) -> list[Row]:
    """Two small volumes against themselves."""
    apart(write_volumes, bench.folder / "scored", 2, (31, 61, 57))
    given = "--path_pred scored/masks --path_lab scored/masks --num_classes 1"
    theirs, same, everything = bench.in_turns(
        lambda: bench.once("theirs", "eval", given),
        lambda: bench.once("ours", "eval", f"{given} --function dice"),
        lambda: bench.once("ours", "eval", given),
    )
    work = "evaluate 2 x 31x61x57"
    return [
        timed(f"{work}, Dice on both sides", theirs, same, ">= 10", bench.runs),
        timed(f"{work}, ours also IoU and HD95", theirs, everything, ">= 10", bench.runs),
    ]


def show_help(bench: Bench) -> list[Row]:
    """The slowest `--help` of each program."""
    slowest = {
        side: max(
            (median([bench.once(side, step, "--help") for _ in range(bench.runs)]) for step in steps),
            key=lambda cost: cost.wall_s,
        )
        for side, steps in HELP.items()
    }
    note = f"the slowest; {slowest['theirs'].peak_mb:.0f} and {slowest['ours'].peak_mb:.0f} MB"
    return [timed("--help of any command", slowest["theirs"], slowest["ours"], "<= 0.2 s", bench.runs, note)]


def timed(work: str, theirs: Cost, ours: Cost, wanted: str, runs: int, note: str = "") -> Row:
    """Return the row of two times."""
    return Row(work, "s", theirs.wall_s, ours.wall_s, wanted, runs, theirs.cpu_s, ours.cpu_s, note)


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "preprocess": preprocess_many,
    "preprocess-memory": preprocess_memory,
    "train": training_step,
    "predict-small": predict_small,
    "predict-large": predict_large,
    "predict-memory": predict_memory,
    "eval": evaluate,
    "help": show_help,
    "predict-256": predict_256,
    "predict-memory-wide": lambda bench: predict_memory(bench, 32, (80,)),
    "predict-memory-whole": lambda bench: predict_memory(bench, 4, (512,)),
}
SLOW = ("predict-256", "predict-memory-wide", "predict-memory-whole")


# The page


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| work | unit | Biom3d 0.1.2 | ours | ratio | wanted | CPU s, theirs | ours | runs | load | note |"]
    lines += ["|---|---|--:|--:|--:|---|--:|--:|--:|--:|---|"]
    for row in rows:
        cells = [number(row.theirs), number(row.ours), number(row.ratio), row.wanted]
        cells += [number(row.theirs_cpu), number(row.ours_cpu), str(row.runs), f"{row.load:.1f}", row.note]
        lines.append("| " + " | ".join([row.work, row.unit, *cells]) + " |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return three digits or so."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def peer_versions(theirs: Path) -> str:
    """Return the versions in Biom3d's environment."""
    code = (
        "from importlib.metadata import version as v; import platform;"
        "print('Python', platform.python_version(), *(f', {p} {v(p)}' for p in ('biom3d', 'torch', 'numpy')), sep=' ')"
    )
    return subprocess.run([theirs, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def environment(folder: Path) -> Path:
    """Return the Python of Biom3d's environment; it is made unless it is there."""
    sys.path.insert(0, str(ROOT / "tests" / "upstream_exchange"))
    import exchange

    return Path(exchange.environment(folder))


def keep(measured: dict[str, list[Row]], about: dict[str, str]) -> str:
    """Put the rows beside those of earlier runs, write both files, and return the table."""
    old = json.loads(OUT.read_text())["rows"] if OUT.exists() else {}
    rows = {name: [Row(**row) for row in values] for name, values in old.items()} | measured
    rows = {name: rows[name] for name in ROWS if name in rows}
    write_json(OUT, {"machine": about, "rows": {name: [asdict(row) for row in part] for name, part in rows.items()}})
    text = "\n".join(f"- {key}: {value}" for key, value in about.items()) + "\n\n"
    text += table([row for part in rows.values() for row in part]) + "\n"
    write_text(PAGE, PAGE.read_text().split(LATEST)[0] + LATEST + "\n" + text)
    return text


def main() -> None:
    """Measure what is asked for, and keep it row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-env", type=Path, default=ROOT / ".cache" / "upstream", help="environment with Biom3d")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="measure these only (default: all quick ones)")
    parser.add_argument("--slow", action="store_true", help=f"also {', '.join(SLOW)}: an hour more")
    parser.add_argument("--runs", type=int, default=3, help="runs of every row but predict-256 (default 3)")
    args = parser.parse_args()
    theirs = environment(args.peer_env.resolve())
    # threads that wait do not spin, on either side: on a busy machine they would take each other's time
    os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="1000")
    about = {**machine(), "versions of Biom3d's environment": peer_versions(theirs)}
    text = ""
    for name in args.rows or [name for name in ROWS if args.slow or name not in SLOW]:
        print(f"{name}, load {os.getloadavg()[0]:.1f}", flush=True)
        facts = {"load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d %H:%M")}
        with tempfile.TemporaryDirectory(prefix="biom3d-peers-") as folder:
            rows = ROWS[name](Bench(Path(folder).resolve(), theirs, args.runs))
        text = keep({name: [dataclasses.replace(row, **facts) for row in rows]}, about)  # type: ignore[arg-type]
    print(text, end="")


if __name__ == "__main__":
    main()
