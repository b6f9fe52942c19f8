"""Reports of one and of many models and data sets, opened in a real browser: everything in them can be clicked."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from biom3d_workflow.outcome import Run
from biom3d_workflow.project import load_project
from selenium.webdriver.common.keys import Keys

from biom3d import report
from tests.workflow.browser import CLICK_THROUGH_OURS, CLICK_THROUGH_SNAKEMAKE, Browser, chromium
from tests.workflow.conftest import OPTIONS, run_snakemake, write_request

pytestmark = pytest.mark.system

TRAIN, NEW = "data/train", "data/my [cells] 'ü'"
# Which model segments which data set: a letter of UNLABELLED has no masks.
UNLABELLED = "xy"
GRIDS = {
    "1x1": ["a"],
    "2x1": ["a", "a"],
    "1x2": ["ab"],
    "1x2 without masks": ["xy"],
    "2x2": ["ab", "ab"],
    "2x2, each its own": ["a", "b"],
    "3x5": ["abcxy", "abcxy", "abcxy"],
}


@pytest.fixture(scope="module", params=GRIDS, ids=str)
def grid(request: pytest.FixtureRequest, in_this_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of several models and data sets, whose results are those of one real run, under other names."""
    folder = tmp_path_factory.mktemp("grid") / "p"
    shutil.copytree(in_this_python, folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        multiply(GRIDS[request.param])
    finally:
        os.chdir(before)
    return folder


def multiply(users: Sequence[str]) -> None:
    """Make the run of model `tiny` on `new` one of many models and data sets."""
    names = [f"model_{number}" for number, _ in enumerate(users, start=1)]
    sets = sorted(set("".join(users)))
    for model, datasets in zip(names, users, strict=True):
        shutil.copytree("logs/tiny", f"logs/{model}")
        Path(f"results/{model}").mkdir()
        shutil.copy("results/tiny/curves.png", f"results/{model}/curves.png")
        shutil.copy("results/tiny/tiny.zip", f"results/{model}/{model}.zip")
        for name in datasets:
            shutil.copytree("results/tiny/new", f"results/{model}/{name}")
            shutil.copytree("data/pred/tiny/new", f"data/pred/{model}/{name}")
            if name in UNLABELLED:
                for table in Path(f"results/{model}/{name}").glob("metrics.*"):
                    table.unlink()
    for name in sets:
        shutil.copy("results/check/new.json", f"results/check/{name}.json")
    shutil.rmtree("results/tiny")
    shutil.rmtree("logs/tiny")
    rows = [f"cells\t{TRAIN}/images\t{TRAIN}/masks\t{', '.join(names)}\t"]
    for name in sets:
        masks = "" if name in UNLABELLED else f"{NEW}/masks"
        uses = [model for model, datasets in zip(names, users, strict=True) if name in datasets]
        rows.append(f"{name}\t{NEW}/images\t{masks}\t\t{', '.join(uses)}")
    models = "".join(f"  {name}: {{{OPTIONS}}}\n" for name in names)
    write_request(f"models:\n{models}", rows)
    if all(name in UNLABELLED for name in sets):
        Path("results/summary.csv").unlink()
    Run(load_project(yaml.safe_load(Path("config/config.yaml").read_text()), ["config/config.yaml"], {})).tell()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


def test_everything_in_our_page_can_be_clicked(grid: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(grid)
    assert report.main(["page"]) == 0
    browser.open(Path("report.html"))
    pictures = len(list(Path("results").glob("*/*/overlays/*.png")))
    clicks = browser.run(CLICK_THROUGH_OURS)
    assert isinstance(clicks, int), clicks
    assert clicks >= 4 * pictures
    assert browser.errors() == []
    assert browser.requests() == []


def test_everything_in_the_report_of_snakemake_can_be_clicked(grid: Path, browser: Browser) -> None:
    done = run_snakemake("--directory", str(grid), "--report", "snakemake.html")
    assert done.returncode == 0, done.stderr
    browser.open(grid / "snakemake.html")
    pictures = len(list((grid / "results").glob("*/*/overlays/*.png")))
    clicks = browser.run(CLICK_THROUGH_SNAKEMAKE)
    assert isinstance(clicks, int), clicks
    assert clicks >= 2 * pictures
    assert browser.errors() == []
    assert browser.requests() == []


@pytest.mark.parametrize("width", [800, 1280])
def test_every_column_of_our_page_can_be_read(grid: Path, browser: Browser, width: int) -> None:
    assert report.main(["page", "--folder", str(grid), "--out", str(grid / "report.html")]) == 0
    browser.open(grid / "report.html")
    assert browser.columns_cut_off(width) == []


def test_a_picture_is_opened_turned_and_closed_by_keys(grid: Path, browser: Browser) -> None:
    assert report.main(["page", "--folder", str(grid), "--out", str(grid / "report.html")]) == 0
    browser.open(grid / "report.html")
    browser.run("document.querySelector('.gallery button').focus()")
    told = "return document.querySelector('dialog[open] p')?.textContent.slice(-8)"
    assert [browser.press(key, told) for key in (Keys.ENTER, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ESCAPE)] == [
        "(1 of 2)",
        "(2 of 2)",
        "(1 of 2)",
        None,
    ]
    assert browser.run("return document.activeElement === document.querySelector('.gallery button')")
