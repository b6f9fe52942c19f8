"""The server's environment, made by real `venv` and `pip` from a folder of wheels: tiny stand-ins for ours."""

import dataclasses
import os
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from biom3d.errors import HostError
from biom3d.server.environment import find_source, make_environment, plan_environment
from biom3d.server.setup import ask_here
from biom3d.server.survey import ask_facts
from tests.server.test_setup import FACTS, tree

pytestmark = pytest.mark.system
TORCH = "__version__ = '2.13.0+cpu'\nclass cuda:\n    is_available = staticmethod(lambda: False)\n"


def make_wheel(folder: Path, name: str, version: str, code: str, metadata: str = "") -> None:
    """Write a wheel with one module."""
    info, module = f"{name}-{version}.dist-info", name.split("_")[0]
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


@pytest.fixture
def wheels(tmp_path):
    folder = tmp_path / "my wheels"
    folder.mkdir()
    needs = "Provides-Extra: engine\nRequires-Dist: torch==2.13.0; extra == 'engine'\n"
    make_wheel(folder, "biom3d_workflow", "0.1.0", "", needs)
    make_wheel(folder, "torch", "2.13.0+cpu", TORCH)
    return folder


@pytest.fixture
def make(tmp_path, wheels, monkeypatch):
    """Makes the environment of a working folder with a space in its name; returns what it says."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)  # other folders of wheels
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    workdir = tmp_path / "lab 1"
    workdir.mkdir()
    python = ((sys.executable, (3, 11)),)
    facts = dataclasses.replace(FACTS, workdir=str(workdir), pythons=python, gpus=())

    def run() -> str:
        return make_environment(ask_here, facts, plan_environment(facts, find_source(wheels)), print)

    run.folder = workdir / "env"
    return run


def test_made_again_nothing_changes_and_it_says_the_same(make):
    assert make() == "biom3d-workflow 0.1.0, torch 2.13.0+cpu, computes on the CPU"
    before = tree(make.folder)
    assert make() == "biom3d-workflow 0.1.0, torch 2.13.0+cpu, computes on the CPU"
    assert tree(make.folder) == before


def test_a_new_wheel_of_the_same_name_is_installed(make, wheels):
    make()
    make_wheel(wheels, "biom3d_workflow", "0.1.0", "new = True\n", "Provides-Extra: engine\n")
    make()
    assert "new" in next(make.folder.glob("lib/*/site-packages/biom3d.py")).read_text()


def test_one_that_was_broken_off_is_made_anew(make, wheels):
    torch = wheels / "torch-2.13.0+cpu-py3-none-any.whl"
    torch.rename(wheels / "hidden")
    with pytest.raises(HostError, match=r"No matching distribution found for torch==2.13.0\+cpu"):
        make()
    assert ask_facts(ask_here, PurePosixPath(make.folder.parent)).environment == ""
    (wheels / "hidden").rename(torch)
    assert "torch 2.13.0+cpu" in make()
    assert ask_facts(ask_here, PurePosixPath(make.folder.parent)).environment == str(make.folder)
