"""File and folder names with anything in them that a file system allows go through all steps unharmed."""

import csv
import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from biom3d.io import list_volumes, volume_name
from tests.bad_input.conftest import PLAN
from tests.test_preprocess import make_set

NAMES = (
    "with space",
    "µm_ä_細胞_🔬",
    "n[1]{2}(3)",
    'it\'s "quoted"',
    "-dash",
    "$HOME `ls` $(ls) a_$b_{c",
    "two\nlines\tand tab",
    "a;b&c|d>e<f",
    "*?!~",
    "$x$ $\\nonsense{$",
    "%s %d {0}",
    "#1, 2",
    "back\\slash",
    "v1.2.tif",
)
FOLDER = "my 'data' [ä] $x\n"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of such a name in which all steps have run on such names, with paths that begin with a dash."""
    folder = tmp_path_factory.mktemp("names") / FOLDER
    make_set(folder / "-in", NAMES, (8, 16, 16))
    before = Path.cwd()
    os.chdir(folder)
    try:
        for step, *options in commands():
            assert import_module(f"biom3d.{step}").main(options) == 0, step
    finally:
        os.chdir(before)
    return folder


def commands() -> list[list[str]]:
    plan = [*PLAN, "--patch_size", "8", "16", "16", "--num_epochs", "1"]
    images, masks, out = "-in/images", "-in/masks", "-out/[1] é"
    return [
        ["check", f"--img_path={images}", f"--msk_path={masks}", f"--out={out}/check.json"],
        [
            "preprocess",
            f"--img_path={images}",
            f"--msk_path={masks}",
            f"--out_dir={out}/pre",
            f"--plan_out={out}/p",
            *plan,
        ],
        ["train", f"--config={out}/p", f"--data_dir={out}/pre", f"--run_dir={out}/fold_0", f"--events={out}/e.jsonl"],
        ["pred", f"--log={out}/fold_0", f"--path_in={images}", f"--out_dir={out}/pred", f"--events={out}/e.jsonl"],
        [
            "eval",
            f"--path_pred={out}/pred",
            f"--path_lab={masks}",
            f"--out_csv={out}/m.csv",
            f"--out_json={out}/m.json",
        ],
        ["export", "labels", f"--path_pred={out}/pred", f"--path_in={images}", f"--out_dir={out}/labels"],
        ["export", "model", f"--log={out}/fold_0", f"--out={out}/m.zip"],
        ["report", "overlay", f"--path_pred={out}/pred", f"--path_in={images}", f"--out_dir={out}/overlays"],
        ["report", "curves", f"--log={out}/fold_0", f"--out={out}/curves.svg"],
        ["report", "summary", f"--metrics={out}/m.json", f"--out={out}/summary.csv"],
    ]


def made(done: Path, name: str) -> Path:
    return done / "-out" / "[1] é" / name


def names_of(folder: Path) -> set[str]:
    return {volume_name(path) for path in list_volumes(folder)}


def test_every_image_has_its_prediction(done):
    assert names_of(made(done, "pred")) == set(NAMES)


def test_every_volume_is_in_the_folds(done):
    with open(made(done, "pre/folds.csv"), newline="", encoding="utf-8") as file:
        assert {row["filename"].removesuffix(".npy") for row in csv.DictReader(file)} == set(NAMES)


def test_every_case_has_a_score(done):
    cases = json.loads(made(done, "m.json").read_text(encoding="utf-8"))["cases"]
    with open(made(done, "m.csv"), newline="", encoding="utf-8") as file:
        assert {row["case"] for row in csv.DictReader(file)} == {row["case"] for row in cases} == set(NAMES)


def test_every_case_is_exported_and_drawn(done):
    exported = {path.name for path in made(done, "labels").iterdir()}
    assert exported == {f"{name}{suffix}" for name in NAMES for suffix in (".ome.tif", ".ome.zarr")}
    assert {path.stem for path in made(done, "overlays").glob("*.png")} >= set(NAMES)


def test_every_line_of_events_is_json(done):
    lines = made(done, "e.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["name"] for event in events if event["event"] == "image"} == {f"{name}.tif" for name in NAMES}


def test_folders_that_are_no_text_are_fine(work):
    odd = os.fsdecode(b"out/\xf6")
    shutil.copytree("data/images", f"{odd}/in")
    options = ["--img_path", f"{odd}/in", "--msk_path", "data/masks", "--patch_size", "8", "16", "16", *PLAN]
    out = ["--out_dir", f"{odd}/pre", "--plan_out", f"{odd}/plan.yaml", "--events", f"{odd}/events"]
    assert import_module("biom3d.preprocess").main([*options, *out]) == 0
    assert import_module("biom3d.train").main(["-c", f"{odd}/plan.yaml", "--run_dir", f"{odd}/run"]) == 0
