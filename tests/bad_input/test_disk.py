"""A disk that is full and folders that may not be written or read: real ones, seen by real child processes."""

import os
import resource
import sys
from pathlib import Path

import pytest

from tests.bad_input.conftest import STEPS, command, contents, leftovers, run_child

FULL = "the disk is full; free some space and run the same command again"
LIMIT = "larger than this file system or your limit (ulimit -f) allows"
MODEL = ["model", "--log", "model/fold_0", "--out", "out/m.zip"]
CURVES = ["curves", "--log", "model/fold_0", "--out", "out/c.png"]
# Step, options, bytes that a file may have (enough to begin, too few to end), the output that is named.
WRITERS = [
    ("preprocess", STEPS["preprocess"], 4096, "out/pre"),
    ("train", STEPS["train"], 4096, "out/run.partial/model/m_best.pth"),
    ("pred", STEPS["pred"], 4096, "out/pred.partial/a.tif"),
    ("eval", STEPS["eval"], 64, "out/m.csv"),
    ("export", STEPS["export"], 256, "out/labels/a.ome.tif"),
    ("export", [*STEPS["export"], "--formats", "ome-zarr"], 256, "out/labels/a.ome.zarr"),
    ("export", MODEL, 4096, "out/m.zip"),
    ("report", STEPS["report"], 4096, "out/overlays/a.png"),
    ("report", CURVES, 4096, "out/c.png"),
]
NAMES = [f"{step} {output}" for step, _, _, output in WRITERS]
# Root may write everywhere; without these two capabilities it is an owner like others.
AS_OTHERS_DO = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def assert_failed(done, work: Path, before: dict[str, str], *words: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert contents(work / "data", work / "model") == before
    assert leftovers(work / "out") == []
    assert not list(work.rglob(".tmp-*"))


@pytest.mark.system
@pytest.mark.parametrize(("step", "options", "limit", "output"), WRITERS, ids=NAMES)
def test_a_file_that_cannot_grow_is_named_and_nothing_of_it_stays(work, step, options, limit, output):
    before = contents(work / "data", work / "model")
    done = run_child(
        command(step, options), work, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert_failed(done, work, before, f"cannot write '{output}'")
    assert LIMIT in done.stderr or FULL in done.stderr  # NumPy does not tell which


@pytest.mark.system
@pytest.mark.parametrize(
    ("step", "more", "size", "output"),
    [
        ("preprocess", [], "64k", "out/pre"),
        ("train", [], "32k", "out/run.partial/model/m_best.pth"),
        ("pred", [], "12k", "out/pred.partial/a.tif"),
        ("export", ["--formats", "ome-zarr"], "16k", "out/labels/a.ome.zarr"),
    ],
)
def test_a_full_disk_is_named_and_nothing_of_it_stays(work, step, more, size, output):
    before = contents(work / "data", work / "model")
    done = run_child([*on_disk_of(size), *command(step), *more], work)
    assert_failed(done, work, before, f"cannot write '{output}'", FULL)
    assert leftovers_told(done.stdout) == []


@pytest.mark.system
def test_a_checkpoint_on_a_full_disk_tells_the_reason_that_torch_hides(work):
    code = (
        "import pathlib, torch; from biom3d.training.checkpoint import save_checkpoint\n"
        "save_checkpoint(pathlib.Path('out/x.pth'), {'model': torch.zeros(200_000)})"
    )
    done = run_child([*on_disk_of("200k"), sys.executable, "-c", code], work)
    assert f"OutputError: cannot write 'out/x.pth': No space left on device; {FULL}" in done.stderr
    assert done.stdout == ""


def on_disk_of(size: str) -> list[str]:
    """Return the start of a command that sees a disk of `size` at out/, and lists at its end what is there."""
    script = 'mount -t tmpfs -o "size=$0" tmpfs out && { "$@"; code=$?; find out -type f; exit $code; }'
    Path("out").mkdir()
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *rights, "bash", "-c", script, size]


def leftovers_told(files: str) -> list[str]:
    """Return the files that a later run could believe: what is in a .partial folder it looks at again."""
    return [path for path in files.splitlines() if ".partial/" not in path]


@pytest.mark.system
@pytest.mark.parametrize(("step", "options", "limit", "output"), WRITERS, ids=NAMES)
def test_a_folder_without_write_permission_is_named(work, step, options, limit, output):
    before = contents(work / "data", work / "model")
    Path("out").mkdir(mode=0o555)
    done = run_child([*AS_OTHERS_DO, *command(step, options)], work)
    assert_failed(done, work, before, "cannot write 'out/", "Permission denied; no permission to write there; choose")


@pytest.mark.system
def test_events_in_a_folder_without_write_permission_are_named(work):
    before = contents(work / "data", work / "model")
    Path("locked").mkdir(mode=0o555)
    done = run_child([*AS_OTHERS_DO, *command("eval"), "--events", "locked/e.jsonl"], work)
    assert_failed(done, work, before, "cannot write 'locked/e.jsonl'", "no permission to write there")


@pytest.mark.system
def test_a_read_only_disk_is_named(work):
    script = 'mount -t tmpfs -o ro tmpfs out && "$@"'
    before = contents(work / "data", work / "model")
    start = on_disk_of("64k")
    done = run_child([*start[:-2], script, "-", *command("eval")], work)
    assert_failed(done, work, before, "cannot write 'out/m.csv'", "the file system is read-only; choose another folder")


@pytest.mark.system
@pytest.mark.parametrize(
    ("step", "path"),
    [
        ("preprocess", "data/images/b.tif"),
        ("preprocess", "data/masks"),
        ("pred", "data/images/b.tif"),
        ("eval", "data/masks/b.tif"),
        ("export", "data/pred/b.tif"),
        ("train", "model/pre/images/a.npy"),
        ("train", "model/plan.yaml"),
        ("pred", "model/fold_0/model/m_best.pth"),
    ],
)
def test_what_may_not_be_read_is_named(work, step, path):
    mode = Path(path).stat().st_mode
    Path(path).chmod(0)
    done = run_child([*AS_OTHERS_DO, *command(step)], work)
    Path(path).chmod(mode)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert Path(path).name in done.stderr
    assert "ermission" in done.stderr
