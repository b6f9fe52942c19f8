"""Exchange with the real Biom3d 0.1.2, both ways: `python tests/upstream_exchange/exchange.py`.

Makes an environment with it in .cache/upstream (or takes `--python`), trains small networks with both programs on both
programs' data, predicts every model with both, and prints how many voxels agree. Exit code 1 where less than 99.9 % do.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from options import real_options

from biom3d.io import read_labels

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch==2.13.0", "biom3d==0.1.2")
WANTED = 0.999
SMALL = {  # what is changed in Biom3d's configuration, so that it trains in seconds
    r"nbof_steps = 250": "nbof_steps = 20",
    r"nbof_steps = 50": "nbof_steps = 4",
    r"factor = 32": "factor = 8",
    r"(?m)^NUM_WORKERS = \d+": "NUM_WORKERS = 2",
    r"(?m)^PATCH_SIZE = .*": "PATCH_SIZE = [16, 32, 32]",
    r"(?m)^AUG_PATCH_SIZE = .*": "AUG_PATCH_SIZE = [24, 48, 48]",
    r"(?m)^NUM_POOLS = .*": "NUM_POOLS = [2, 3, 3]",
}


def main() -> int:
    """Run everything; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="Python of an environment that has Biom3d 0.1.2")
    args = parser.parse_args()
    started = time.monotonic()
    theirs = str(args.python or environment(ROOT / ".cache" / "upstream"))
    print(f"environment ready after {time.monotonic() - started:.0f} s", flush=True)
    rows = [("options of its --help", float(real_options(theirs) == stored_options()))]
    with tempfile.TemporaryDirectory(prefix="biom3d-exchange-") as folder:
        os.chdir(folder)
        make_data()
        rows += exchange(theirs)
    for name, agreement in rows:
        print(f"{'ok  ' if agreement >= WANTED or '(for information)' in name else 'FAIL'} {agreement:9.3%}  {name}")
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(agreement < WANTED for name, agreement in rows if "(for information)" not in name))


def environment(folder: Path) -> Path:
    """Make the environment with Biom3d unless it is there; return its Python."""
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for package in PACKAGES:  # one after the other: the second must not bring another torch
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
        ready.touch()
    return python


def stored_options() -> object:
    """Return the options that docs/compat.md is made from."""
    return json.loads((ROOT / "tests" / "compat" / "biom3d_options.json").read_text())


def make_data() -> None:
    """Write volumes of bright balls: six to train on, and others as TIFF of two voxel sizes and as NIfTI."""
    rng = np.random.default_rng(0)
    for i in range(6):
        image, mask = balls((20, 40, 44), rng)
        write_tiff(Path("images") / f"v{i}.tif", image, 0.5)
        write_tiff(Path("masks") / f"v{i}.tif", mask, 0.5)
    for name, depth, size in (("same", 22, 0.5), ("finer", 34, 0.3)):
        write_tiff(Path("tiff") / f"{name}.tif", balls((depth, 40, 44), rng)[0], size)
    Path("nifti").mkdir()
    image = balls((22, 40, 44), rng)[0].T.astype(np.float32)
    for name, depth in (("same", 0.5), ("thicker", 0.8)):
        nibabel.save(nibabel.Nifti1Image(image, np.diag([0.3, 0.3, depth, 1])), f"nifti/{name}.nii.gz")


def balls(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (z, y, x) uint16 and its mask uint8."""
    grid = np.indices(shape)
    mask = np.zeros(shape, np.uint8)
    for _ in range(8):
        centre = rng.uniform(0, shape)[:, None, None, None]
        mask[(((grid - centre) / [[[[3]]], [[[6]]], [[[6]]]]) ** 2).sum(0) < 1] = 1
    return (rng.normal(200, 60, shape) + 150 * mask).clip(0).astype(np.uint16), mask


def write_tiff(path: Path, array: np.ndarray, depth: float) -> None:
    """Write an ImageJ TIFF with voxels of `depth` x 0.3 x 0.3 µm."""
    path.parent.mkdir(exist_ok=True)
    about = {"spacing": depth, "unit": "micron", "axes": "ZYX"}
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / 0.3, 1 / 0.3), metadata=about)


def exchange(theirs: str) -> list[tuple[str, float]]:
    """Train on both sides and predict all models with both; return what was compared and the share that agrees."""
    run(theirs, "preprocess", "--img_path images --msk_path masks --desc theirs --num_epochs 2 --config_dir theirs")
    (config,) = Path("theirs").glob("*.py")
    text = config.read_text()
    for old, new in SMALL.items():
        text = re.sub(old, new, text)
    config.write_text(text)
    run(theirs, "train", f"--config {config}")
    plan = "--patch_size 16 32 32 --width 8 --num_steps 20 --num_epochs 2 --folds 2 --desc ours"
    out = "--out_dir ours --plan_out ours/plan.yaml --biom3d_config for_biom3d.yaml"
    run(sys.executable, "preprocess", f"--img_path images --msk_path masks {plan} {out}")
    run(sys.executable, "train", "--config ours/plan.yaml --run_dir logs/ours_on_ours")
    run(sys.executable, "train", f"--config {config} --run_dir logs/ours_on_theirs")
    run(theirs, "train", "--config for_biom3d.yaml")
    rows = []
    for model in sorted(path for path in Path("logs").iterdir() if (path / "model").is_dir()):
        made_here = (model / "plan.yaml").exists()
        rows += compare(theirs, model, f"model of {'ours' if made_here else 'Biom3d'} ({model.name})", made_here)
    return rows


def compare(theirs: str, model: Path, title: str, made_here: bool) -> list[tuple[str, float]]:
    """Predict with both programs; return one row per image."""
    rows = []
    for images in (Path("tiff"), Path("nifti")):
        reference = Path("reference") / images
        reference.mkdir(parents=True, exist_ok=True)
        run(theirs, "pred", f"--log {model} --path_in {images} --path_out {reference}")
        # our own way takes NIfTI for millimetres, which here are not meant: Biom3d knows numbers only
        for windows in ("biom3d", "own") if made_here and images.name == "tiff" else ("biom3d",):
            out = Path("predicted") / windows / images / model.name
            run(sys.executable, "pred", f"--log {model} --path_in {images} --out_dir {out} --windows {windows}")
            for path in sorted(out.iterdir()):
                if path.name.startswith("."):
                    continue
                same = read_labels(path).array == read_labels(reference / model.name / path.name).array
                note = "" if windows == "biom3d" else " with our own windows (for information)"
                rows.append((f"{title}, {images}/{path.name}{note}", float(same.mean())))
    return rows


def run(python: str, step: str, options: str) -> None:
    """Run one step of either program; stop with its output where it fails."""
    command: Sequence[str] = [python, *([] if python == sys.executable else ["-I"]), "-m", f"biom3d.{step}"]
    started = time.monotonic()
    # threads that wait do not spin: on a busy machine they would take each other's time
    quiet = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
    done = subprocess.run(
        [*command, *options.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet
    )
    side = "ours  " if python == sys.executable else "theirs"
    print(f"{time.monotonic() - started:4.0f} s  {side} {step} {options}", flush=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}:\n{done.stdout[-3000:]}")


if __name__ == "__main__":
    raise SystemExit(main())
