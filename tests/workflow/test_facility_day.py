"""A facility's day: 60 rows of 6 formats, 4 models, 5 rows broken in 5 ways, by a user without root's powers.

What each change of the day computes again is counted and compared with what has to be; no finished training is lost or
repeated. Model a, the row that it learns from and the two with masks that it segments are real: real volumes, real
steps. The other rows have steps that do next to nothing, for 60 real ones take five minutes. docs/reruns.md has the
table for people; `python -m tests.workflow.test_facility_day` writes it there.
"""

import json
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

from biom3d import synth
from biom3d.io import read_volume, write_volume
from tests.test_rootless import AS_ANOTHER
from tests.workflow.conftest import ROOT, STAND_IN, STEPS, snakemake, write_request

pytestmark = pytest.mark.system
USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
FORMATS = (".tif", ".ome.tif", ".nii.gz", ".npy", ".h5", ".ome.zarr")
MODELS = "abcd"
PREDICTED = [f"P{index:02}" for index in range(51)]
SMALL = "num_steps: 2, width: 4, max_dim: 16"
CONFIG = f"defaults: {{folds: 2, num_epochs: 5, {SMALL}}}\nmodels:\n" + "".join(
    f"  {model}: {{seed: 0}}\n" for model in MODELS
)
REAL = ("Ta", "P00", "P04")
# A step of model a, or of a real row, is ours.
DISPATCH = """
words = sys.argv[1:]
is_real = any(word.startswith(("data/Ta/", "data/P00/", "data/P04/")) for word in words)
if is_real or (words[:1] != ["page"] and any(word.startswith(("logs/a/plan", "logs/a/fold")) for word in words) and (
    pathlib.Path(sys.argv[0]).stem == "train" or words[0] in ("curves", "model")
)):
    os.environ.pop("PYTHONPATH")
    step = pathlib.Path(sys.argv[0]).stem
    with open("calls.txt", "a") as calls:
        print(step, *words, file=calls)
    os.execv(sys.executable, [sys.executable, "-m", "biom3d." + step, *words])
flags = {}
"""
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


def make_real_data(name: str, suffix: str) -> None:
    """Make two volumes of cells and their masks in a format."""
    shutil.rmtree(f"data/{name}")
    assert synth.main([f"made/{name}", "--count", "2", "--shape", "12", "20", "20", "--cells", "3"]) == 0
    for kind in ("images", "masks"):
        Path("data", name, kind).mkdir(parents=True)
        for number, path in enumerate(sorted(Path("made", name, kind).iterdir()), start=1):
            volume = read_volume(path)
            write_volume(Path("data", name, kind, f"{number}{suffix}"), volume.array, volume.header)


def make_project(folder: Path) -> None:
    """Make the project in the working folder, and steps that do next to nothing beside it."""
    package = folder / "steps/biom3d"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for step in STEPS:
        (package / f"{step}.py").write_text(STAND_IN.replace("flags = {}\n", DISPATCH, 1))
    names = [line.split("\t")[0] for line in [*ROWS, *BAD]]
    for index, name in enumerate([*names, *(f"N{index}" for index in range(10))]):
        make_data(name, FORMATS[index % 6], masks=True)
        if name in REAL:
            make_real_data(name, FORMATS[index % 6])
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
        files = sorted(path for path in Path("logs").glob("?/fold_?/**/*") if path.is_file())
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


DOCS, BEGIN, END = ROOT / "docs/reruns.md", "<!-- the day: begin -->", "<!-- the day: end -->"
WORDS = {  # one, and several
    "train": ("training", "trainings"),
    "predict": ("prediction", "predictions"),
    "export_labels": ("export", "exports"),
    "evaluate": ("evaluation", "evaluations"),
    "check": ("check", "checks"),
    "preprocess": ("preprocessing", "preprocessings"),
    "overlay": ("set of pictures", "sets of pictures"),
    "quality": ("table of flags", "tables of flags"),
    "curves": ("figure of curves", "figures of curves"),
    "export_model": ("package", "packages"),
    "summary": ("summary of scores", "summaries"),
    "qualities": ("summary of flags", "summaries"),
}
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
    ("a default written out", lambda: request(of_model(CONFIG, "num_steps: 2, tta: false")), {}),
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
    assert len({Path(file).parts[1:3] for file in day.models()}) == 8


def test_what_is_real_has_real_results(day):
    weights = [file for file in day.models() if file.endswith("_best.pth")]
    assert [Path(file).parts[1:3] for file in weights] == [("a", "fold_0"), ("a", "fold_1")]
    rows = {row["dataset"]: row for row in json.loads(Path("logs/outcome.json").read_text())["rows"]}
    assert [rows[name]["scores"][0]["kind"] for name in ("P00", "P04")] == ["cross-validated"] * 2


def test_without_the_broken_rows_only_the_summaries_are_left_to_do(day):
    assert day.second.returncode == 0, day.second.stderr
    last = [line.split()[:2] for line in Path("calls.txt").read_text().splitlines()][-2:]
    assert sorted(last) == [["quality", "--tables"], ["report", "summary"]]
    assert "3 of 3 steps" in day.second.stderr  # and `all`


@pytest.mark.parametrize(("title", "changed", "expected"), CHANGES, ids=[title for title, _, _ in CHANGES])
def test_a_change_of_the_day_makes_anew_what_it_has_to(day, title, changed, expected):
    before = day.models()
    with changed():
        seen = day.would_run()
    print(f"\n{title}\n  expected  {in_words(expected)}\n  seen      {in_words(seen)}")
    assert Counter(seen) == Counter(expected)
    assert day.models() == before


def in_words(jobs: dict[str, int]) -> str:
    return ", ".join(f"{jobs[rule]} {WORDS[rule][jobs[rule] > 1]}" for rule in WORDS if rule in jobs) or "nothing"


def docs_table() -> str:
    """Return the changes and what each makes anew, for docs/reruns.md; the test above compares them with the run."""
    rows = [f"| {title} | {in_words(expected)} |" for title, _, expected in CHANGES]
    return "\n".join(["| change | computed again |", "|---|---|", *rows])


def test_the_table_of_the_docs_is_that_of_the_day():
    text = DOCS.read_text(encoding="utf-8")
    assert text == put(text, docs_table())


def put(text: str, table: str) -> str:
    """Return the text of the docs with this table between its marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


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
    home = day.folder / "home"
    home.mkdir()
    for path in (home, Path(".snakemake"), Path(".snakemake/log")):  # a project that they share
        path.chmod(0o777)
    for colleague in (USER, AS_ANOTHER):  # the same account, and for root another one
        command = [*colleague, *snakemake("--cores", "2")]
        environ = day.environ(HOME=str(home), XDG_CACHE_HOME=str(home / str(len(colleague))))
        told = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert (told.returncode, f"(process {run.pid})" in told.stderr) == (1, True), told.stderr
    run.send_signal(signal.SIGKILL)
    run.wait()
    write_request(CONFIG, ROWS)
    result = day.run()
    assert "jobs of a run that was killed still work" in result.stderr
    assert result.returncode == 0
    assert day.would_run() == {}
    assert day.models() == before


if __name__ == "__main__":
    DOCS.write_text(put(DOCS.read_text(encoding="utf-8"), docs_table()), encoding="utf-8")
