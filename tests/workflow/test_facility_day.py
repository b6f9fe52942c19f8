"""A facility's day: 60 rows of 6 formats, 4 models, 5 rows broken in 5 ways, by a user without root's powers.

What each change of the day computes again is counted and compared with what has to be; no finished training is lost or
repeated. docs/reruns.md has the table for people.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, STAND_IN, STEPS, snakemake, write_request

pytestmark = pytest.mark.system
USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
FORMATS = (".tif", ".ome.tif", ".nii.gz", ".npy", ".h5", ".ome.zarr")
MODELS = "abcd"
PREDICTED = [f"P{index:02}" for index in range(51)]
CONFIG = "defaults: {folds: 2, num_epochs: 5}\nmodels:\n" + "".join(f"  {model}: {{seed: 0}}\n" for model in MODELS)
BROKEN = ("unreadable", "missing", "empty", "damaged", "badmask")


def row(name: str, masks: bool, train: str = "", predict: str = "") -> str:
    return f"{name}\tdata/{name}/images\t{f'data/{name}/masks' if masks else ''}\t{train}\t{predict}"


TRAINING = [row(f"T{model}", True, train=model) for model in MODELS]
ROWS = [*TRAINING, *(row(name, index < 8, predict=MODELS[index % 4]) for index, name in enumerate(PREDICTED))]
BAD = [row(name, name == "badmask", predict="a") for name in BROKEN]


def make_data(name: str, suffix: str, masks: bool) -> None:
    for kind in ("images", "masks") if masks else ("images",):
        for number in "12":
            path = Path("data", name, kind, f"{number}{suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix.endswith(".zarr"):
                path.mkdir()
                path /= "zarr.json"
            path.write_text(f"{name} {kind} {number}")


def make_project(folder: Path) -> None:
    """Make the project in the working folder, and steps that do next to nothing beside it."""
    package = folder / "steps/biom3d"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for step in STEPS:
        (package / f"{step}.py").write_text(STAND_IN)
    names = [line.split("\t")[0] for line in [*ROWS, *BAD]]
    for index, name in enumerate([*names, *(f"N{index}" for index in range(10))]):
        make_data(name, FORMATS[index % 6], masks=True)
    Path("data/unreadable/images").chmod(0)
    shutil.rmtree("data/missing")
    shutil.rmtree("data/empty/images")
    Path("data/empty/images").mkdir()
    Path("data/damaged/images/BROKEN.tif").touch()
    Path("data/badmask/masks/BROKEN.tif").touch()
    write_request(CONFIG, [*ROWS, *BAD])


@dataclass
class Day:
    """The facility's project: what runs, and what would."""

    folder: Path

    def environ(self, **more: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder / "steps"), **more}

    def run(self, *words: str, snakefile: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [*USER, *snakemake("--cores", "2", *words)]
        if snakefile:
            command[command.index("--snakefile") + 1] = str(snakefile)
        environ = self.environ(**environ)
        return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)

    def would_run(self, **options) -> dict[str, int]:
        """Return how many jobs of each rule a run would have."""
        result = self.run("-n", **options)
        assert result.returncode == 0, result.stderr
        table = result.stdout.partition("Job stats:")[2].partition("\n\n")[0]
        found = dict(re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE))
        return {rule: int(count) for rule, count in found.items() if rule not in ("all", "total")}

    def models(self) -> dict[str, tuple[int, int]]:
        """Return what is in every trained fold: which file it is, and of when."""
        files = sorted(Path("logs").glob("?/fold_?/*.png"))
        return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@contextmanager
def request(config: str = CONFIG, rows: list[str] | None = None) -> Iterator[None]:
    write_request(config, ROWS if rows is None else rows)
    try:
        yield
    finally:
        write_request(CONFIG, ROWS)


@contextmanager
def other_bytes(path: Path) -> Iterator[None]:
    content, facts = path.read_text(), path.stat()
    path.write_text(content + "!")
    try:
        yield
    finally:
        path.write_text(content)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@contextmanager
def touched() -> Iterator[None]:
    for path in Path("data").glob("*/images/*"):
        os.utime(path) if os.access(path.parent, os.R_OK) and path.is_file() else None
    yield


def change(rows: list[str], old: str, new: str) -> list[str]:
    return [re.sub(rf"^{old}\t", f"{new}\t", line) for line in rows]


def of_model(config: str, option: str) -> str:
    return config.replace("a: {seed: 0}", f"a: {{seed: 0, {option}}}")


# Of the 51 rows model a predicts 13, and 2 of them have masks.
FOLLOWS = {
    "predict": 13,
    "evaluate": 2,
    "export_labels": 13,
    "overlay": 13,
    "quality": 13,
    "qualities": 1,
    "summary": 1,
}
MODEL = {"preprocess": 1, "train": 2, **FOLLOWS, "curves": 1, "export_model": 1}
ONE = {"check": 1, "predict": 1, "quality": 1, "export_labels": 1, "overlay": 1}
CHANGES: list[tuple[str, Callable[[], object], dict[str, int]]] = [
    ("nothing", request, {}),
    ("every image touched", touched, {}),
    ("the rows in another order", lambda: request(rows=ROWS[::-1]), {}),
    ("what is default written out", lambda: request(of_model(CONFIG, "num_steps: 250, tta: false")), {}),
    ("10 rows added", lambda: request(rows=[*ROWS, *(row(f"N{i}", False, predict="b") for i in range(10))]),
     dict.fromkeys(ONE, 10) | {"qualities": 1}),
    ("other bytes in one image", lambda: other_bytes(Path("data/P10/images/1.nii.gz")), ONE | {"qualities": 1}),
    ("`tta` of one model", lambda: request(of_model(CONFIG, "tta: true")), FOLLOWS),
    ("`formats` of one model", lambda: request(of_model(CONFIG, "formats: [ome-zarr]")), {"export_labels": 13}),
    ("`seed` of one model", lambda: request(CONFIG.replace("a: {seed: 0}", "a: {seed: 1}")), MODEL),
    ("more `num_epochs` of one model: it goes on", lambda: request(of_model(CONFIG, "num_epochs: 8")), MODEL),
    ("a row with masks removed", lambda: request(rows=[line for line in ROWS if not line.startswith("P03")]),
     {"qualities": 1, "summary": 1}),
]  # fmt: skip


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """The project after its first run, in which the broken rows failed, and the second, without them."""
    folder, before = tmp_path_factory.mktemp("day"), Path.cwd()
    (folder / "project").mkdir()
    os.chdir(folder / "project")
    make_project(folder)
    day = Day(folder)
    day.first = day.run("--keep-going")
    write_request(CONFIG, ROWS)
    day.second = day.run("--keep-going")
    yield day
    os.chdir(before)
    Path(folder, "project/data/unreadable/images").chmod(0o755)


def test_the_first_run_makes_all_but_the_broken_rows_and_says_so(day):
    assert day.first.returncode == 1
    assert "5 failed" in day.first.stderr
    assert len(list(Path("results").glob("?/P??/labels"))) == 51
    assert len(day.models()) == 8


def test_without_the_broken_rows_only_the_summaries_are_left_to_do(day):
    assert day.second.returncode == 0, day.second.stderr
    last = [line.split()[:2] for line in Path("calls.txt").read_text().splitlines()][-2:]
    assert sorted(last) == [["quality", "--tables"], ["report", "summary"]]
    assert "3 of 3 steps" in day.second.stderr  # and `all`


@pytest.mark.parametrize(("title", "changed", "expected"), CHANGES, ids=[title for title, _, _ in CHANGES])
def test_a_change_of_the_day_makes_anew_what_it_has_to(day, title, changed, expected):
    before = day.models()
    with changed():
        assert Counter(day.would_run()) == Counter(expected)
    assert day.models() == before


def copied_workflow(folder: Path) -> Path:
    """Return the Snakefile of a newer version of ours: other words in every rule, other sources."""
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "biom3d").mkdir()
    for path in [*(ROOT / "biom3d").glob("*.py")]:
        (folder / "biom3d" / path.name).write_text(path.read_text() + "# newer\n")
    for path in (folder / "workflow/rules").glob("*.smk"):
        path.write_text(path.read_text().replace("python -m", "python  -m"))
    return folder / "workflow/Snakefile"


def test_an_upgrade_of_ours_makes_nothing_anew(day, tmp_path):
    assert day.would_run(snakefile=copied_workflow(tmp_path)) == {}


def test_another_version_in_the_environment_predicts_anew_and_trains_nothing(day, tmp_path):
    (tmp_path / "torch-9.9.dist-info").mkdir()
    (tmp_path / "torch-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    found = day.would_run(PYTHONPATH=f"{tmp_path}:{day.folder / 'steps'}")
    everything = {
        "predict": 51,
        "evaluate": 8,
        "export_labels": 51,
        "overlay": 51,
        "quality": 51,
        "qualities": 1,
        "summary": 1,
    }
    assert Counter(found) == Counter(everything)


def test_a_colleague_is_told_and_a_killed_change_that_is_undone_leaves_no_trace(day):
    before = day.models()
    write_request(CONFIG.replace("a: {seed: 0}", "a: {seed: 1}"), ROWS)
    run = subprocess.Popen(
        [*USER, *snakemake("--cores", "2")],
        env=day.environ(HOLD="train"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 120
    while not Path("held").exists():
        assert run.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.1)
    told = day.run()
    assert told.returncode == 1
    assert f"(process {run.pid})" in told.stderr
    run.send_signal(signal.SIGKILL)
    run.wait()
    write_request(CONFIG, ROWS)
    result = day.run()
    assert "jobs of a run that was killed still work" in result.stderr
    assert result.returncode == 0
    assert day.would_run() == {}
    assert day.models() == before
