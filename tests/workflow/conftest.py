"""A small project folder: two data sets of empty files, a configuration and a table to write, and Snakemake to run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from biom3d import synth

ROOT = Path(__file__).parents[2]
SNAKEFILE = ROOT / "workflow" / "Snakefile"
sys.path.insert(0, str(ROOT / "workflow" / "lib"))

from biom3d_workflow import volumes  # noqa: E402
from biom3d_workflow.project import Project, load_project  # noqa: E402

HEADER = "dataset\timages\tmasks\ttrain\tpredict\tspacing_um"
ROWS = ("A\tdata/a/images\tdata/a/masks\tm", "B\tdata/b/images\tdata/b/masks\t\tm")
CONFIG = "models:\n  m:\n"

Request = Callable[..., Project]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data sets a and b, three empty images and masks each."""
    monkeypatch.chdir(tmp_path)
    volumes.forget()
    for kind in ("a/images", "a/masks", "b/images", "b/masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for name in "123":
            (tmp_path / "data" / kind / f"{name}.tif").touch()
    write_request()
    return tmp_path


def write_request(config: str = CONFIG, rows: Sequence[str] = ROWS, header: str = HEADER) -> None:
    Path("config").mkdir(exist_ok=True)
    Path("config/config.yaml").write_text(config, encoding="utf-8")
    Path("config/datasets.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def request_of(folder: Path) -> Request:
    """Write a configuration and a table, and read them as the workflow does."""

    def read(config: str = CONFIG, rows: Sequence[str] = ROWS, header: str = HEADER) -> Project:
        write_request(config, rows, header)
        return load_project(yaml.safe_load(config), ["config/config.yaml"], {})

    return read


@pytest.fixture
def problems_of(request_of: Request) -> Callable[..., list[str]]:
    """The lines a user would see."""
    return lambda *args, **named: [str(problem) for problem in request_of(*args, **named).problems]


OPTIONS = "folds: 2, num_epochs: 2, num_steps: 2, width: 4, max_dim: 16, seed: 1"
SMALL_CONFIG = f"models:\n  tiny: {{{OPTIONS}}}\n"
SMALL_ROWS = [
    "cells\tdata/train/images\tdata/train/masks\ttiny",
    "new\tdata/my [cells] 'ü'/images\tdata/my [cells] 'ü'/masks\t\ttiny",
]


def make_project(folder: Path, config: str, rows: Sequence[str] = SMALL_ROWS) -> None:
    """Make a project of real images, small enough for two cores, and work in it."""
    os.chdir(folder)
    make_cells({"train": 3, "my [cells] 'ü'": 2})
    write_request(config, rows)


def make_cells(sets: Mapping[str, int]) -> None:
    """Make so many small images of cells and their masks in each of data/NAME."""
    for name, count in sets.items():
        assert synth.main([f"data/{name}", "--count", str(count), "--shape", "16", "24", "24", "--cells", "4"]) == 0


@pytest.fixture(scope="session")
def in_this_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a project in which the workflow has run without containers; not to be changed."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("local")
    make_project(folder, SMALL_CONFIG)
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/local"))
    os.chdir(before)
    assert done.returncode == 0, done.stderr
    return folder


STAND_IN = '''"""A step that honours the contract and writes next to nothing, in place of the engine."""
import os, pathlib, sys, time
if os.environ.get("HOLD") == pathlib.Path(sys.argv[0]).stem:  # a step that works until it is let go
    pathlib.Path("held").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
flags = {}
for word in sys.argv[1:]:
    if word.startswith("--"):
        values = flags.setdefault(word, [])
    elif "values" in globals():
        values.append(word)
broken = [f for v in flags.values() for d in v if pathlib.Path(d).is_dir() for f in pathlib.Path(d).glob("BROKEN*")]
if broken:
    print(f"step: error: image '{broken[0].name}' is broken", file=sys.stderr)
    raise SystemExit(2)
for folder in flags.get("--path_in", []):
    closed = [f for f in pathlib.Path(folder).glob("*") if not os.access(f, os.R_OK)]
    if closed or not os.path.exists(folder):
        print(f"step: error: '{closed[0] if closed else folder}' cannot be read", file=sys.stderr)
        raise SystemExit(2)
for flag in ("--out_dir", "--run_dir"):
    for folder in flags.get(flag, []):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        pathlib.Path(folder, "picture.png").touch()
for flag in ("--out", "--plan_out", "--out_csv", "--out_json"):
    for file in flags.get(flag, []):
        pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(file).write_text("a,b\\n1,2\\n")
if sys.argv[1:2] == ["page"]:  # the report, after the last job
    raise SystemExit
with open("calls.txt", "a") as calls:
    print(pathlib.Path(sys.argv[0]).stem, *sys.argv[1:], file=calls)
'''
STEPS = ("check", "preprocess", "train", "pred", "eval", "quality", "export", "report")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH whose `biom3d` does nothing but write its outputs: another image of the contract."""
    package = tmp_path_factory.mktemp("stand_in") / "biom3d"
    package.mkdir()
    (package / "__init__.py").touch()
    for step in STEPS:
        (package / f"{step}.py").write_text(STAND_IN)
    return package.parent


def snakemake(*args: str) -> list[str]:
    return [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(SNAKEFILE), *args]


def run_snakemake(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(snakemake(*args), capture_output=True, text=True, env={**os.environ, **environ}, check=False)


TWO_MODELS = "defaults: {folds: 2}\nmodels:\n  m:\n  n:\n"
ROWS_OF_TWO = [
    "A\tdata/a/images\tdata/a/masks\tm,n",
    "B\tdata/b/images\tdata/b/masks\t\tm,n",
    "C\tdata/c/images\t\t\tm",
]


def make_two_models(folder: Path) -> None:
    os.chdir(folder)
    for kind in ("a/images", "a/masks", "b/images", "b/masks", "c/images"):
        Path("data", kind).mkdir(parents=True)
        for name in "123":
            Path("data", kind, f"{name}.tif").write_text(f"{kind} {name}")
    write_request(TWO_MODELS, ROWS_OF_TWO)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, stand_in):
    """A project folder in which everything has run; not to be changed."""
    folder, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    make_two_models(folder)
    result = run_snakemake("--cores", "2", PYTHONPATH=str(stand_in))
    os.chdir(before)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of the finished project to work in."""
    shutil.copytree(finished, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    Path("calls.txt").unlink()
    return tmp_path / "p"


@pytest.fixture
def rerun(project, stand_in):
    """Run again with other configuration; returns the steps that ran, with their options."""

    def rerun(config: str = TWO_MODELS, rows: list[str] = ROWS_OF_TWO, *args: str) -> list[str]:
        write_request(config, rows)
        result = run_snakemake("--cores", "2", *args, PYTHONPATH=str(stand_in))
        assert result.returncode == 0, result.stderr
        return Path("calls.txt").read_text().splitlines() if Path("calls.txt").exists() else []

    return rerun
