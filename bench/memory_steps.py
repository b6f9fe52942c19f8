"""Peak memory and time of the steps around a prediction, beside those of an earlier commit.

  python bench/memory_steps.py --before 1cad2db --shape 96 1024 1024
  python bench/memory_steps.py --shape 24 4096 4096 --steps preprocess quality    # this folder's program alone

Two volumes of 16 bits and of different voxel sizes, masks of two classes, and labels that differ a little from the
masks in place of a prediction. Peak memory is the kernel's own figure of the process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).parent
PAIR = "--path_pred pred --path_in images"
DATA = "--img_path images --msk_path masks --num_classes 2"
STEPS = {
    "check": f"check {DATA}",
    "preprocess": f"preprocess {DATA} --desc m --out_dir OUT --plan_out p.yaml --spacing 0.5 0.25 0.25",
    "preprocess, resampled": f"preprocess {DATA} --desc m --out_dir OUT --plan_out p.yaml",
    "eval": "eval --path_pred pred --path_lab masks --num_classes 2 --out_csv OUT/m.csv",
    "quality": f"quality {PAIR} --out_csv OUT/q.csv",
    "export labels": f"export labels {PAIR} --out_dir OUT",
    "report overlay": f"report overlay {PAIR} --path_lab masks --num_classes 2 --out_dir OUT",
}
SPACINGS = {"a": 0.5, "b": 0.6}  # along z, µm; their median is in between


def make_set(folder: Path, shape: Sequence[int]) -> None:
    """Write images, masks and predictions, plane by plane."""
    depth, height, width = shape
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (height, width), np.uint16)
    y, x = np.ogrid[:height, :width]

    def labels(shift: int, z: int) -> np.ndarray:
        rings = ((y + shift) // 40 + (x + z) // 40) % 5
        return np.where(rings < 3, rings, 0).astype(np.uint8)

    for part in ("images", "masks", "pred"):
        (folder / part).mkdir()
        shift = 2 if part == "pred" else 0
        for name, spacing in SPACINGS.items():
            planes = (labels(shift, z) for z in range(depth))
            stack = planes if part != "images" else (np.roll(noise, z) + 50 * plane for z, plane in enumerate(planes))
            tifffile.imwrite(
                folder / part / f"{name}.tif",
                stack,
                shape=tuple(shape),
                dtype=np.uint16 if part == "images" else np.uint8,
                imagej=True,
                resolution=(4.0, 4.0),
                metadata={"axes": "ZYX", "spacing": spacing, "unit": "um"},
            )


def run(words: str, tree: Path, folder: Path) -> tuple[float, float] | None:
    """Run a step of the program in `tree`; return seconds and peak bytes, None where it failed."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-m", *f"biom3d.{words}".replace("OUT", f"{out}/out").split()]
        start = time.perf_counter()
        with (folder / "log.txt").open("w") as log:
            environment = {**os.environ, "PYTHONPATH": str(tree)}
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
        return (time.perf_counter() - start, usage.ru_maxrss * 1024) if status == 0 else None


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description="Peak memory and time of the steps around a prediction.")
    parser.add_argument("--before", metavar="COMMIT", help="commit to compare with")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 1024, 1024), metavar=("Z", "Y", "X"))
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="biom3d-memory-") as name:
        folder, trees = Path(name), [HERE.parent]
        if args.before:
            (folder / "before").mkdir()
            archive = subprocess.run(
                ["git", "-C", HERE.parent, "archive", args.before, "biom3d"], check=True, capture_output=True
            )
            subprocess.run(["tar", "-x", "-C", folder / "before"], input=archive.stdout, check=True)
            trees.insert(0, folder / "before")
        make_set(folder, args.shape)
        print("| step | z x y x x | before | | now | |\n|---|---|--:|--:|--:|--:|")
        for step in args.steps:
            cells = []
            for tree in trees:
                cost = run(STEPS[step], tree, folder)
                if cost is None:
                    print((folder / "log.txt").read_text(), file=sys.stderr)
                cells.append(f"{cost[1] / 1e6:.0f} MB | {cost[0]:.0f} s" if cost else "failed |")
            cells = ["|", *cells] if len(cells) == 1 else cells
            print(f"| {step} | {' x '.join(map(str, args.shape))} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
