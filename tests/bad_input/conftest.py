"""A good data set of three tiny cases, a tiny model, and the six steps as they work on them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from biom3d.io import Header, write_volume
from tests.test_preprocess import SPACING, make_set

ROOT = Path(__file__).parents[2]
SHAPE = (16, 24, 24)
NAMES = ("a", "b", "c")
PLAN = ["--folds", "2", "--desc", "m", "--width", "2", "--num_epochs", "2", "--num_steps", "1", "--batch_size", "2"]
# What each step is asked for, in a folder with data/{images,masks,pred}, and what it is to make there.
STEPS: dict[str, list[str]] = {
    "preprocess": [
        *["--img_path", "data/images", "--msk_path", "data/masks", "--patch_size", "8", "16", "16", *PLAN],
        *["--out_dir", "out/pre", "--plan_out", "out/plan.yaml"],
    ],
    "train": ["--config", "model/plan.yaml", "--data_dir", "model/pre", "--run_dir", "out/run", "--threads", "1"],
    "pred": ["--log", "model/fold_0", "--path_in", "data/images", "--out_dir", "out/pred", "--threads", "1"],
    "eval": [
        "--path_pred",
        "data/pred",
        "--path_lab",
        "data/masks",
        "--out_csv",
        "out/m.csv",
        "--out_json",
        "out/m.json",
    ],
    "export": ["labels", "--path_pred", "data/pred", "--path_in", "data/images", "--out_dir", "out/labels"],
    "report": [
        *["overlay", "--path_pred", "data/pred", "--path_in", "data/images", "--path_lab", "data/masks"],
        *["--out_dir", "out/overlays"],
    ],
}
Refused = Callable[..., str]


def put(path: Path, array: np.ndarray, spacing: tuple[float, ...] | None = SPACING) -> None:
    """Write an array (c, z, y, x); one plane makes a 2D image."""
    axes = ("C" if array.shape[0] > 1 else "") + ("ZYX" if array.shape[1] > 1 else "YX")
    write_volume(path, array, Header(array.shape, array.dtype, axes, spacing))


def labels(*values: float, dtype: str = "uint8") -> np.ndarray:
    """A mask (1, z, y, x) with a box of each value, the rest background."""
    mask = np.zeros((1, *SHAPE), dtype)
    for place, value in enumerate(values):
        mask[0, 4:12, 4 * place : 4 * place + 4, 6:16] = value
    return mask


def contents(*folders: Path) -> dict[str, str]:
    """Return path -> hash of every file below the folders."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


def leftovers(folder: Path) -> list[str]:
    """Return what lies below `folder` that a later run could take for a result."""
    unfinished = (".partial/", "/.tmp-")
    files = [path.as_posix() for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if not any(mark in path for mark in unfinished)]


def command(step: str, options: Sequence[str] | None = None) -> list[str]:
    return [sys.executable, "-m", f"biom3d.{step}", *(STEPS[step] if options is None else options)]


def run_child(argv: Sequence[str], cwd: Path, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command in `cwd` with this checkout's biom3d and no core file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/{images,masks,pred} and model/{pre,plan.yaml,fold_0}, made by the real steps."""
    folder = tmp_path_factory.mktemp("made")
    make_set(folder / "data", NAMES, SHAPE)
    shutil.copytree(folder / "data" / "masks", folder / "data" / "pred")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert import_module("biom3d.preprocess").main(STEPS["preprocess"]) == 0
        Path("out").rename("model")
        assert import_module("biom3d.train").main([*STEPS["train"][:4], "--run_dir", "model/fold_0"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made` to spoil, as the current folder."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def refused(work: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a step that must fail: the words are told, no traceback, nothing half done, nothing changed or lost."""

    def run(step: str, *words: str, options: Sequence[str] = (), code: int = 2) -> str:
        before = contents(work / "data", work / "model")
        capfd.readouterr()
        assert import_module(f"biom3d.{step}").main([*STEPS[step], *options]) == code
        message = capfd.readouterr().err
        assert "Traceback" not in message
        assert [word for word in words if word not in message] == [], message
        assert contents(work / "data", work / "model") == before
        assert leftovers(work / "out") == []
        return message

    return run
