"""The workflow on data and models that lie only on the server: a real sshd, a real engine, nothing of them here."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.remote.test_run import make_project, options, with_engine
from tests.workflow.conftest import HEADER, ROOT, SMALL_CONFIG, run_snakemake, write_request
from tests.workflow.test_docker import results

__all__ = ["with_engine"]
pytestmark = pytest.mark.system
WIDE = f"{HEADER}\tlocation"
ROWS = [
    "cells\tdata/train/images\tdata/train/masks\ttiny\t\t\tserver",
    "new\tdata/new/images\tdata/new/masks\t\ttiny\t\tserver",
]


@pytest.fixture
def place(account, with_engine):
    """The working folder on the server, without what other tests sent there."""
    folder = account.home / "lab"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def give(source: Path, target: Path, account) -> None:
    """Put a folder on the server without any help of ours."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*"), *list(target.parents)[:2]):
        shutil.chown(path, account.name, account.name)


def make_folder(folder: Path, config: str, rows: list[str]) -> Path:
    folder.mkdir()
    os.chdir(folder)
    write_request(config, rows, WIDE)
    return folder


def predictions(folder: Path) -> dict[str, str]:
    """Return what must be equal; exported volumes hold an identifier of their own each."""
    ends = ("metrics.json", "metrics.csv", "summary.csv")
    return {k: v for k, v in results(folder).items() if k.startswith("data/pred/") or k.endswith(ends)}


def keys_in(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.tif")}


def test_data_and_a_model_on_the_server_give_the_same_results(client, account, place, cpu_image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path / "here")
    assert run_snakemake("--workflow-profile", str(ROOT / "profiles/local")).returncode == 0
    for name in ("train", "new"):
        give(tmp_path / "here/data" / name, place / "data" / name, account)
    images = keys_in(place / "data")

    there = make_folder(tmp_path / "there", SMALL_CONFIG, ROWS)
    done = run_snakemake(*options(client))
    assert done.returncode == 0, done.stderr
    assert re.search(r"input: 10 files in 4 folders, (.+), \1 already there", done.stderr)
    assert predictions(there) == predictions(tmp_path / "here")
    # Nothing of the images went through this machine, there or back.
    assert keys_in(there / "data").isdisjoint(images)
    assert {path.name for path in (place / ".biom3d/store").rglob("*")}.isdisjoint(images)
    assert "Nothing to be done" in run_snakemake(*options(client)).stderr
    assert run_snakemake("--report", "report.html").returncode == 0  # asks nobody

    give(there / "logs/tiny", place / "logs/tiny", account)
    model = make_folder(tmp_path / "model", "models:\n  tiny: {location: server, folds: 2}\n", ROWS[1:])
    done = run_snakemake(*options(client))
    assert done.returncode == 0, done.stderr
    assert predictions(model) == predictions(tmp_path / "here")
    assert sorted(path.name for path in (model / "logs/tiny").iterdir()) == ["fold_0.server.json", "fold_1.server.json"]

    (place / "data/new/images").joinpath("more.tif").write_bytes(
        next((place / "data/new/images").iterdir()).read_bytes()
    )
    planned = run_snakemake(*options(client), "-n", "--quiet", "rules")
    assert "data/new/images: 3 file(s)" in planned.stderr
    assert "predict" in planned.stdout
    shutil.rmtree(place / "data/new/masks")
    refused = run_snakemake(*options(client), "-n")
    assert "there is no 'data/new/masks' in" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
