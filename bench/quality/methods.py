"""The methods: each trains on a prepared data set and writes label volumes of its test images.

All get the same volumes, the same split, patch, batch, width and number of training samples, and choose among their
epochs by their own validation on as many patches. What is theirs stays theirs: normalisation, sampling, augmentation,
loss, optimiser, schedule, windows.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tifffile
from sets import Prepared

from biom3d.config import Triple
from biom3d.files import write_json, write_text
from biom3d.planning.plan import num_pools

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Budget:
    """How much a method may train, and how large its network is.

    `patch_of` names the field of `DataSet` that holds the patch; `threads` None means all cores.
    """

    name: str
    width: int
    batch: int
    epochs: int
    steps: int
    mirror: bool
    patch_of: str
    threads: int | None

    @property
    def samples(self) -> int:
        """Return how many patches a training sees."""
        return self.epochs * self.steps * self.batch


BUDGETS = {
    "tiny": Budget("tiny", 8, 2, 10, 30, False, "patch", 1),
    "full": Budget("full", 32, 2, 200, 250, True, "full_patch", None),
}


@dataclass(frozen=True)
class Job:
    """One training to do: `folder` is its own, `environments` maps the name of a program to its Python."""

    prepared: Prepared
    method: str
    seed: int
    budget: Budget
    folder: Path
    environments: dict[str, Path]

    @property
    def patch(self) -> Triple:
        """Return the patch of the data set in this budget."""
        patch: Triple = getattr(self.prepared.data, self.budget.patch_of)
        return patch

    @property
    def images(self) -> Path:
        """Return the folder of test images."""
        return self.prepared.path("test", "images")


@dataclass(frozen=True)
class Trained:
    """Where the predictions lie, and what training and predicting took (clock and CPU seconds)."""

    predictions: Path
    train_s: float
    train_cpu_s: float
    predict_s: float


def ours(job: Job) -> Trained:
    """Train and predict with this package, by its commands."""
    budget, data = job.budget, job.prepared.data
    inputs = [f"--{kind}_path={job.prepared.path('train', folder)}" for kind, folder in KINDS]
    size = ["--patch_size", *map(str, job.patch), "--width", str(budget.width), "--batch_size", str(budget.batch)]
    length = ["--num_epochs", str(budget.epochs), "--num_steps", str(budget.steps), "--seed", str(job.seed)]
    arrays, run, out = job.folder / "arrays", job.folder / "run", job.folder / "predictions"
    about = [f"--num_classes={len(data.classes)}", "--desc=quality", "--folds=1", f"--plan_out={arrays}/plan.yaml"]
    threads = ["--threads", str(budget.threads)] if budget.threads else []
    python = [sys.executable, "-m"]
    call(job, [*python, "biom3d.preprocess", *inputs, *size, *length, *about, f"--out_dir={arrays}"])
    job.prepared.write_folds(arrays / "folds.csv", ".npy")
    plan, place = f"--config={arrays}/plan.yaml", f"--data_dir={arrays}"
    training = call(job, [*python, "biom3d.train", plan, place, f"--run_dir={run}", *threads])
    mirror = "--tta" if budget.mirror else "--no_tta"
    where = [f"--log={run}", f"--path_in={job.images}", f"--out_dir={out}"]
    predicting = call(job, [*python, "biom3d.pred", *where, mirror, *threads])
    return Trained(out, *training, predicting[0])


KINDS = (("img", "images"), ("msk", "masks"))


def biom3d(job: Job) -> Trained:
    """Train and predict with Biom3d 0.1.2, by its commands; its configuration is edited as its users do."""
    python, data = str(job.environments["biom3d"]), job.prepared.data
    program = [python, "-I", str(HERE / "seeded.py"), str(job.seed), str(job.budget.threads or 0)]
    for kind in ("images", "masks"):  # it writes beside its input
        shutil.copytree(job.prepared.path("train", kind), job.folder / kind)
    options = ["--img_path", "images", "--msk_path", "masks", "--config_dir", "configs", "--desc", "quality"]
    numbers = ["--num_classes", str(len(data.classes)), "--num_epochs", str(job.budget.epochs)]
    call(job, [*program, "biom3d.preprocess", *options, *numbers])
    job.prepared.write_folds(job.folder / "folds.csv", ".tif")
    (config,) = (job.folder / "configs").glob("*.py")
    write_text(config, edited(config.read_text(), job))
    training = call(job, [*program, "biom3d.train", "--config", f"configs/{config.name}"])
    (log,) = (job.folder / "logs").iterdir()
    (job.folder / "predictions").mkdir()
    where = ["--log", f"logs/{log.name}", "--path_in", str(job.images.resolve()), "--path_out", "predictions"]
    predicting = call(job, [*program, "biom3d.pred", *where])
    return Trained(job.folder / "predictions" / log.name, *training, predicting[0])


def edited(config: str, job: Job) -> str:
    """Return Biom3d's configuration with the sizes of the budget; ValueError where a line is not there."""
    budget = job.budget
    around = int(np.ceil(np.linalg.norm(job.patch)))  # its own rule: the diagonal of the patch
    changes = {
        r"(?m)^PATCH_SIZE = .*": f"PATCH_SIZE = {list(job.patch)}",
        r"(?m)^AUG_PATCH_SIZE = .*": f"AUG_PATCH_SIZE = {[around] * 3}",
        r"(?m)^NUM_POOLS = .*": f"NUM_POOLS = {list(num_pools(job.patch))}",
        r"(?m)^BATCH_SIZE = .*": f"BATCH_SIZE = {budget.batch}",
        r"(?m)^NUM_WORKERS = .*": f"NUM_WORKERS = {4 if budget.threads is None else 0}",
        r"(?m)^USE_IMAGE_CLBK = True": "USE_IMAGE_CLBK = False",
        r"nbof_steps = 250": f"nbof_steps = {budget.steps}",
        r"nbof_steps = 50": f"nbof_steps = {max(1, budget.steps // 5)}",
        r"factor = 32": f"factor = {budget.width}",
        r"tta=True": f"tta={budget.mirror}",
    }
    for old, new in changes.items():
        config, count = re.subn(old, new, config)
        if count != 1:
            raise ValueError(f"'{old}' occurs {count} times in the configuration of Biom3d; wanted once")
    return config


def monai(job: Job) -> Trained:
    """Train and predict with a network of MONAI by `monai_train.py`; the method's name ends with the network's."""
    order = {
        **common_order(job),
        "network": job.method.removeprefix("monai_"),
        "num_pools": num_pools(job.patch),
        "validation_steps": max(1, job.budget.steps // 5),
        **{key: asdict(job.budget)[key] for key in ("width", "batch", "epochs", "steps", "mirror", "threads")},
    }
    write_json(job.folder / "order.json", order)
    call(job, [str(job.environments["monai"]), "-I", str(HERE / "monai_train.py"), str(job.folder / "order.json")])
    took = json.loads((job.folder / "took.json").read_text())
    return Trained(job.folder / "predictions", took["train_s"], took["train_cpu_s"], took["predict_s"])


def nnunet(job: Job) -> Trained:
    """Train and predict with nnU-Net v2, which plans by itself and trains as long as the budget; needs a GPU."""
    call(job, [str(job.environments["nnunet"]), "-I", str(HERE / "nnunet_train.py"), write_order(job)])
    took = json.loads((job.folder / "took.json").read_text())
    return Trained(job.folder / "predictions", took["train_s"], took["train_cpu_s"], took["predict_s"])


def write_order(job: Job) -> str:
    """Write what nnU-Net needs to know; return the file."""
    order = {**common_order(job), "batch": job.budget.batch, "epochs": job.budget.epochs, "steps": job.budget.steps}
    write_json(job.folder / "order.json", order)
    return str(job.folder / "order.json")


def common_order(job: Job) -> dict[str, object]:
    """Return what both scripts of other programs need: data, split, classes, patch, seed, where to write."""
    prepared = job.prepared
    return {
        "train": str(prepared.folder / "train"),
        "test": str(job.images),
        "training": prepared.training,
        "validation": prepared.validation,
        "num_classes": len(prepared.data.classes),
        "patch": job.patch,
        "seed": job.seed,
        "folder": str(job.folder),
    }


def threshold(job: Job) -> Trained:
    """Choose per class the best global threshold of the smoothed image on the training labels, and apply it.

    Both directions and both scales (as stored, and each volume to mean 0 and deviation 1) are tried; the one with
    the best mean Dice over all training and validation volumes is kept. Classes may overlap, so each has a volume.
    """
    from thresholds import fit_threshold, segment

    started, cpu = time.monotonic(), time.process_time()
    train = [read_pair(job.prepared.folder / "train", path.name) for path in sorted_images(job, "train")]
    chosen = [fit_threshold(train, label) for label in range(1, len(job.prepared.data.classes) + 1)]
    took = time.monotonic() - started, time.process_time() - cpu
    for path in sorted_images(job, "test"):
        image = tifffile.imread(path)
        for label, rule in enumerate(chosen, start=1):
            out = job.folder / "predictions" / str(label) / path.name
            out.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(out, segment(image, rule).astype(np.uint8) * label)
    write_json(job.folder / "chosen.json", [asdict(rule) for rule in chosen])
    return Trained(job.folder / "predictions", *took, 0.0)


def sorted_images(job: Job, part: str) -> Sequence[Path]:
    """Return the images of a part of the data set."""
    return sorted(job.prepared.path(part, "images").iterdir())


def read_pair(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return image and labels (z, y, x)."""
    return tifffile.imread(folder / "images" / name), tifffile.imread(folder / "masks" / name)


METHODS: dict[str, Callable[[Job], Trained]] = {
    "ours": ours,
    "biom3d": biom3d,
    "monai_dynunet": monai,
    "monai_basicunet": monai,
    "nnunet": nnunet,
    "threshold": threshold,
}


def call(job: Job, command: Sequence[str]) -> tuple[float, float]:
    """Run a command in the job's folder; return clock and CPU seconds, SystemExit with its output if it fails.

    Threads that wait must not spin: on a busy machine they would take each other's time.
    """
    quiet = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
    if job.budget.threads:
        quiet["OMP_NUM_THREADS"] = str(job.budget.threads)
    log = job.folder / "log.txt"
    started, before = time.monotonic(), os.times()
    with log.open("a") as stream:
        done = subprocess.run(command, cwd=job.folder, stdout=stream, stderr=subprocess.STDOUT, env=quiet, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(command)}\n{log.read_text()[-2000:]}")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, cpu_s
