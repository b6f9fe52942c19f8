"""A step that is killed leaves nothing that a later run believes, and the same command then makes the same result."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from biom3d.files import scratch_folder, write_text
from biom3d.preprocess import main as preprocess
from biom3d.train import main as train
from tests.bad_input.conftest import PLAN, STEPS, command, contents, run_child
from tests.test_preprocess import make_set

CLASSIC = ["--img_path", "data/images", "--msk_path", "data/masks", *PLAN, "--patch_size", "8", "16", "16"]
CLASSIC += ["--img_outpath", "out/images", "--msk_outpath", "out/masks", "--plan_out", "out/plan.yaml"]


def kill_everywhere(work: Path, step: str, units: str, options: list[str], changes: str = "all") -> int:
    """Kill the step before each of its changes to the file system; return how many there were. See killer.py."""
    for path in work.glob("data/*/c.tif"):
        path.unlink()
    done = run_child([sys.executable, "-m", "tests.bad_input.killer", step, units, changes, *options], work)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.system
@pytest.mark.parametrize(
    ("step", "units", "options", "changes"),
    [
        ("preprocess", "pre,plan.yaml", STEPS["preprocess"], "all"),
        ("train", "run", STEPS["train"], "os.rename"),
        ("pred", "pred", STEPS["pred"], "os.rename"),
        ("pred", "fold_0/*.tif", [*STEPS["pred"][:4], "--path_out", "out", "--threads", "1"], "os.rename"),
        ("eval", "m.csv,m.json", STEPS["eval"], "all"),
        ("export", "labels/*.tif", [*STEPS["export"], "--formats", "ome-tiff"], "all"),
        ("export", "labels/*.zarr", [*STEPS["export"], "--formats", "ome-zarr"], "os.rename"),
        ("export", "m.zip", ["model", "--log", "model/fold_0", "--out", "out/m.zip"], "all"),
    ],
)
def test_killed_anywhere_a_step_can_be_repeated(work, step, units, options, changes):
    assert kill_everywhere(work, step, units, options, changes) >= 4


@pytest.mark.system
@pytest.mark.parametrize(
    ("units", "options"), [("pre,plan.yaml", STEPS["preprocess"]), ("images,masks,folds.csv,plan.yaml", CLASSIC)]
)
def test_killed_while_it_replaces_an_old_result_preprocess_leaves_old_or_new(work, units, options):
    assert preprocess([*options, "--seed", "1"]) == 0
    Path("out").rename("old")
    assert kill_everywhere(work, "preprocess", units, options, "os.rename") >= 4


@pytest.mark.system
@pytest.mark.parametrize(
    ("step", "moment", "result"),
    [
        ("preprocess", ".tmp-*/pre/images/*.npy", "pre"),
        ("preprocess", ".tmp-*/pre/foreground/*5.npz", "pre"),
        ("pred", "pred.partial/*.tif", "pred"),
    ],
)
def test_killed_from_outside_a_step_can_be_repeated(work, step, moment, result):
    make_set(work / "data", [f"more{number}" for number in range(20)], (16, 24, 24))
    assert run_child(command(step), work).returncode == 0
    Path("out").rename("whole")
    kill_when(command(step), moment)
    assert run_child(command(step), work).returncode == 0
    assert whole_below(work / "out" / result) == whole_below(work / "whole" / result)
    assert not list(Path("out").glob(".tmp-*"))


def kill_when(argv: list[str], moment: str) -> None:
    """Start a step and kill it as soon as something of that name is in out/."""
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(Path("out").glob(moment)) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()


def whole_below(folder: Path) -> dict[str, str]:
    return {path.removeprefix(str(folder)): digest for path, digest in contents(folder).items()}


def test_weights_that_a_killed_training_of_another_name_left_do_not_stay(work):
    Path("out/run.partial/model").mkdir(parents=True)
    Path("out/run.partial/model/other_best.pth").touch()
    assert train(STEPS["train"]) == 0
    assert sorted(path.name for path in Path("out/run/model").iterdir()) == ["m.pth", "m_best.pth"]


def test_what_a_living_process_works_on_is_left_alone(tmp_path):
    with scratch_folder(tmp_path) as mine:
        write_text(tmp_path / "result", "")
        assert mine.is_dir()


def test_what_only_looks_like_ours_is_left_alone(tmp_path):
    (tmp_path / ".tmp-0123abcd").mkdir()
    write_text(tmp_path / "result", "")
    assert (tmp_path / ".tmp-0123abcd").is_dir()
