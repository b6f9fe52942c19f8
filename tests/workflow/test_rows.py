"""One row never hurts another: a real Snakemake, run by somebody who may not read everything."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, snakemake, write_request

pytestmark = pytest.mark.system
# Root without the power to read what is closed: Python itself may lie where another account does not get to.
POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
ROWS = [
    "good\tdata/good/images\tdata/good/masks\tm",
    "new\tdata/new/images\t\t\tm,n",
    "small\tdata/small/images\t\t\tm",
    "closed\tdata/closed/images\t\t\tm",
    "zarr\tdata/zarr/images\t\t\tm",
    "empty\tdata/empty/images\t\t\tm",
    "absent\tdata/absent\t\t\tm",
    "link\tdata/link/images\t\t\tm",
    "lost\tdata/lost/images\tdata/good/masks\tn",
]
CONFIG = "defaults: {folds: 1}\nmodels: {m: , n: }\n"
BAD = {
    "small": "no permission to read 'data/small/images/1.tif'",
    "closed": "'data/closed/images' cannot be read: Permission denied",
    "zarr": "no permission to read 'data/zarr/images/x.ome.zarr'",
    "empty": "no image in 'data/empty/images'",
    "absent": "folder 'data/absent' not found",
    "link": "'data/link/images/1.tif' is a link that leads nowhere",
    "lost": "no permission to read 'data/lost/images/1.tif'",
}


def put_data() -> None:
    for name in ("good", "new", "small", "closed", "zarr", "empty", "link", "lost"):
        folder = Path("data", name, "images")
        folder.mkdir(parents=True)
        if name == "zarr":
            (folder / "x.ome.zarr/0/c").mkdir(parents=True)
        elif name == "link":
            (folder / "1.tif").symlink_to("/nowhere.tif")
        elif name != "empty":
            (folder / "1.tif").write_text(name)
    shutil.copytree("data/good/images", "data/good/masks")


CLOSED = ("data/small/images/1.tif", "data/closed/images", "data/zarr/images/x.ome.zarr/0", "data/lost/images/1.tif")


def wait_until(is_so: Callable[[], bool], at_most_s: float = 300) -> None:
    limit = time.monotonic() + at_most_s
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.05)


class Place:
    """The project's folder, and Snakemake in it, without root's power."""

    def __init__(self, folder: Path, stand_in: Path) -> None:
        self.folder, self.stand_in = folder, str(stand_in)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        words = [*(POWERLESS if os.geteuid() == 0 else []), *snakemake("--cores", "2", "--keep-going", *args)]
        environ = os.environ | {"PYTHONPATH": self.stand_in}
        return subprocess.run(words, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)

    def outcome(self) -> dict[tuple[str, str], dict[str, str]]:
        found = json.loads((self.folder / "logs/outcome.json").read_text())
        return {(row["dataset"], row["model"]): row for row in found["rows"]}

    def calls(self) -> str:
        calls = self.folder / "calls.txt"
        text = calls.read_text() if calls.exists() else ""
        calls.unlink(missing_ok=True)
        return text


@pytest.fixture(scope="module")
def place(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    before, folder = Path.cwd(), tmp_path_factory.mktemp("rows")
    os.chdir(folder)
    put_data()
    write_request(CONFIG, ROWS)
    for path in CLOSED:
        Path(path).chmod(0)
    os.chdir(before)
    yield Place(folder, stand_in)
    for path in CLOSED:
        (folder / path).chmod(0o755)


@pytest.fixture(scope="module")
def first(place: Place) -> tuple[subprocess.CompletedProcess[str], dict[tuple[str, str], dict[str, str]], str]:
    done = place.run()
    return done, place.outcome(), place.calls()


def test_the_run_ends_with_an_error_and_the_others_are_done(first):
    done, outcome, _ = first
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert outcome["new", "m"]["state"] == outcome["(training)", "m"]["state"] == "passed"


@pytest.mark.parametrize("name", BAD)
def test_a_row_that_cannot_be_read_fails_alone_and_says_why(first, name):
    done, outcome, calls = first
    row = outcome[name, "m" if name != "lost" else ""]
    assert (row["state"], BAD[name] in row["why"]) == ("failed", True)
    assert f"data/{name}/" not in calls
    assert f": warning: images: {BAD[name]}" in done.stderr


def test_a_model_that_cannot_be_trained_is_skipped_with_its_predictions(first):
    why = "not trained: data set 'lost' cannot be read"
    assert [(row["state"], row["why"]) for key, row in first[1].items() if key[1] == "n"] == [("skipped", why)] * 2


def test_again_nothing_is_repeated_and_the_bad_rows_are_told_again(first, place):
    assert place.run().returncode == 1
    outcome = place.outcome()
    assert (place.calls(), outcome["new", "m"]["state"]) == ("", "kept")
    assert BAD["small"] in outcome["small", "m"]["why"]


def test_what_can_be_read_again_is_done_and_a_closed_one_keeps_its_trained_model(first, place):
    for path in CLOSED:
        (place.folder / path).chmod(0o755)
    place.run()
    assert place.outcome()["small", "m"]["state"] == place.outcome()["new", "n"]["state"] == "passed"
    calls = place.calls()
    assert "data/new/" in calls  # by n
    assert "train" in calls
    assert "--img_path data/good/" not in calls
    (place.folder / "data/lost/images/1.tif").chmod(0)
    with (place.folder / "config/datasets.tsv").open("a") as table:
        table.write("more\tdata/small/images\t\t\tn\n")
    place.run()
    outcome, calls = place.outcome(), place.calls()
    assert (outcome["more", "n"]["state"], outcome["new", "n"]["state"]) == ("passed", "kept")
    assert outcome["(training)", "n"]["why"].startswith("not trained anew, the model that is there is used")
    assert [line for line in calls.splitlines() if line.startswith(("train", "preprocess"))] == []


def test_what_goes_away_while_the_run_goes_on_fails_its_row_alone(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("good", "new", "gone", "closed"):
        Path("data", name, "images").mkdir(parents=True)
        Path("data", name, "images/1.tif").write_text(name)
    shutil.copytree("data/good/images", "data/good/masks")
    write_request(
        "defaults: {folds: 1}\nmodels: {m: }\n",
        [ROWS[0], *(f"{name}\tdata/{name}/images\t\t\tm" for name in ("new", "gone", "closed"))],
    )
    words = [*(POWERLESS if os.geteuid() == 0 else []), *snakemake("--cores", "2", "--keep-going")]
    environ = os.environ | {"PYTHONPATH": str(stand_in), "HOLD": "preprocess"}
    with subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: Path("held").exists() or run.poll() is not None)
        wait_until(lambda: len(list(Path("results/check").glob("*.json"))) == 4 or run.poll() is not None)
        Path("data/gone/images").rename("data/gone/elsewhere")
        Path("data/closed/images/1.tif").chmod(0)
        Path("go").touch()
        told = run.communicate()[1]
    states = {
        row["dataset"]: (row["state"], row["why"]) for row in json.loads(Path("logs/outcome.json").read_text())["rows"]
    }
    assert (run.returncode, states["new"], states["(training)"]) == (1, ("passed", ""), ("passed", "")), told
    assert states["gone"] == ("failed", "predict m/gone: 'data/gone/images' cannot be read")
    assert states["closed"] == ("failed", "predict m/closed: 'data/closed/images/1.tif' cannot be read")


def test_the_profile_of_this_machine_does_the_same(first, place):
    done = place.run("--workflow-profile", str(ROOT / "profiles/local"), "-n")
    assert done.returncode == 0, done.stderr
