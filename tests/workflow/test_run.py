"""The whole workflow with the real engine, on synthetic cells small enough for two cores."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from biom3d.io import read_header
from tests.workflow.conftest import ROOT, SMALL_CONFIG, make_cells, run_snakemake, write_request

pytestmark = pytest.mark.system
ROWS = [
    "cells\tdata/train/images\tdata/train/masks\ttiny\ttiny",
    "new\tdata/new/images\tdata/new/masks\t\ttiny",
    "unlabelled\tdata/my [cells] 'ü'/images\t\t\ttiny",
]
CONFIG = SMALL_CONFIG.replace("{", "{skip_bad: true, ")
PART = "part\tdata/part/images\tdata/part/masks\t\ttiny"
BAD = "bad\tdata/bad/images\t\t\ttiny"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which the workflow has run, with one bad data set; the process of the first run is its result."""
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    make_cells({"train": 3, "new": 2, "my [cells] 'ü'": 1, "bad": 1})
    bad = next(Path("data/bad/images").iterdir())
    bad.write_bytes(bad.read_bytes()[:3000])
    shutil.copy(bad, "data/train/images/damaged.tif")
    shutil.copy("data/train/masks/cells_000.tif", "data/train/masks/damaged.tif")
    write_request(CONFIG, [*ROWS, BAD])
    first = run_snakemake("--workflow-profile", str(ROOT / "profiles/local"))
    yield folder, first
    os.chdir(before)


def test_the_run_with_a_bad_data_set_fails(done):
    assert done[1].returncode == 1


def test_the_table_says_which_and_why(done):
    folder, _ = done
    rows = json.loads((folder / "logs/outcome.json").read_text())["rows"]
    assert [(row["dataset"], row["model"], row["state"]) for row in rows] == [
        ("bad", "tiny", "failed"),
        ("(training)", "tiny", "passed"),
        ("cells", "tiny", "passed"),
        ("new", "tiny", "passed"),
        ("unlabelled", "tiny", "passed"),
    ]
    assert rows[0]["why"].startswith("check bad: 'data/bad/images/cells_000.tif': ")
    assert rows[0]["log"] == "logs/steps/check/bad.log"
    assert [len(rows[place]["scores"]) for place in (1, 3)] == [2, 1]  # of two folds; of the labelled data set


def test_the_report_of_the_failed_run_tells_why_and_shows_the_rest(done):
    folder, first = done
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "report.html" in first.stderr
    assert "<code>logs/steps/check/bad.log</code>" in page
    assert "check bad: &#39;data/bad/images/cells_000.tif&#39;: " in page
    assert page.count("data:image/webp;base64,") == 6  # of three that taught, two labelled and one without masks
    assert "data/my [cells] &#39;ü&#39;/images" in page  # the table
    assert str(folder) not in page


def test_a_damaged_volume_of_the_training_is_left_out_and_named(done):
    folder, _ = done
    row = json.loads((folder / "logs/outcome.json").read_text())["rows"][1]
    assert [text.split(": ")[0] for text in row["left_out"]] == ["'data/train/images/damaged.tif'"]
    assert "trained without 'data/train/images/damaged.tif': " in (folder / "logs/outcome.txt").read_text()
    assert json.loads((folder / "results/check/cells.json").read_text())["left_out"] == row["left_out"]
    row = json.loads((folder / "logs/outcome.json").read_text())["rows"][2]  # the same data set, segmented
    assert (row["dataset"], len(row["left_out"]), row["scores"][0]["kind"]) == ("cells", 1, "cross-validated")


def test_no_traceback_is_shown(done):
    assert "Traceback" not in done[1].stderr


@pytest.mark.parametrize(
    "path",
    [
        "logs/tiny/plan.yaml",
        "logs/tiny/fold_1/log/log.csv",
        "results/tiny/tiny.zip",
        "results/tiny/curves.png",
        "results/tiny/new/metrics.csv",
        "results/tiny/new/overlays/cells_000.png",
        "results/tiny/unlabelled/overlays/cells_000.png",
        "results/summary.csv",
        "logs/steps/train/tiny/fold_0.jsonl",
        "logs/steps/train/tiny/fold_0.tsv",
    ],
)
def test_a_result_is_there(done, path):
    assert (done[0] / path).stat().st_size > 0


def test_a_prediction_keeps_name_and_spacing_of_its_image(done):
    image = read_header(done[0] / "data/new/images/cells_001.tif")
    assert read_header(done[0] / "data/pred/tiny/new/cells_001.tif").spacing_um == image.spacing_um


def test_labels_are_exported_in_both_formats(done):
    names = " ".join(path.name for path in (done[0] / "results/tiny/new/labels").iterdir())
    assert ".ome.tif" in names
    assert ".zarr" in names


def test_events_are_one_json_object_a_line(done):
    lines = (done[0] / "logs/steps/train/tiny/fold_0.jsonl").read_text().splitlines()
    assert {"epoch"} <= {json.loads(line)["event"] for line in lines}


def test_the_summary_tells_of_the_labelled_data_sets(done):
    rows = list(csv.DictReader((done[0] / "results/summary.csv").open()))
    assert [(row["model"], row["dataset"]) for row in rows] == [
        ("tiny", "cells"),
        ("tiny", "new"),
        ("tiny", "(all)"),
    ]
    assert (rows[0]["kind"], rows[0]["cases"]) == ("cross-validated", "3")


def test_once_the_bad_row_is_off_the_rest_is_done_and_reported(done):
    os.chdir(done[0])
    write_request(CONFIG, [*ROWS, f"#{BAD}"])
    assert run_snakemake("--cores", "2").returncode == 0
    assert "Nothing to be done" in run_snakemake("--cores", "2").stderr
    assert run_snakemake("--report", "report.html").returncode == 0
    assert Path("report.html").stat().st_size > 10**6


def outcome_of(dataset):
    rows = json.loads(Path("logs/outcome.json").read_text())["rows"]
    return {row["model"]: row for row in rows if row["dataset"] == dataset}


def test_a_row_with_one_damaged_volume_is_done_but_for_that_and_mended_by_that_alone(done):
    os.chdir(done[0])
    shutil.copytree("data/new", "data/part")
    lost, good = Path("data/part/images/cells_001.tif"), Path("data/new/images/cells_001.tif")
    lost.write_bytes(good.read_bytes()[:3000])
    write_request(f"{CONFIG}  bought: {{path: results/tiny/tiny.zip}}\n", [*ROWS, f"{PART}, bought"])
    first = run_snakemake("--workflow-profile", str(ROOT / "profiles/local"))
    row = outcome_of("part")["bought"]
    assert (first.returncode, row["state"]) == (1, "failed in part")
    assert row["why"].startswith("1 of 2 images predicted; 'data/part/images/cells_001.tif': ")
    assert "1 row failed in part: see the table above" in first.stderr
    assert [path.name for path in Path("results/bought/part/labels").glob("*.tif")] == ["cells_000.ome.tif"]
    assert len(json.loads(Path("results/bought/part/metrics.json").read_text())["cases"]) == 1
    # the model that goes without bad volumes goes without this one
    row = outcome_of("part")["tiny"]
    assert (row["state"], row["left_out"][0][:34]) == ("passed", "'data/part/images/cells_001.tif': ")
    assert "failed in part" in Path("report.html").read_text()

    Path("logs/outcome.json").unlink()
    again = run_snakemake("--cores", "2")
    assert ("Nothing to be done" in again.stderr, again.returncode) == (True, 1)
    assert (outcome_of("part")["bought"]["state"], outcome_of("part")["tiny"]["state"]) == ("failed in part", "kept")

    shutil.copy(good, lost)
    mended = run_snakemake("--cores", "2")
    assert mended.returncode == 0, mended.stderr
    assert "1 of 2 predictions are those of" in Path("logs/steps/predict/bought/part.log").read_text()
    assert outcome_of("part")["bought"]["state"] == "passed"
    assert outcome_of("new")["tiny"]["state"] == "kept"


def test_half_annotated_stacks_of_one_folder_get_masks_and_an_honest_score(tmp_path, monkeypatch):
    """The biologist's way: one folder, masks for half of it, one row."""
    monkeypatch.chdir(tmp_path)
    make_cells({"mine": 6})
    for name in ("cells_003", "cells_004", "cells_005"):
        Path(f"data/mine/masks/{name}.tif").unlink()
    write_request(SMALL_CONFIG, ["mine\tdata/mine/images\tdata/mine/masks\ttiny\ttiny"])
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/local"))
    assert done.returncode == 0, done.stderr
    assert len(list(Path("data/pred/tiny/mine").glob("*.tif"))) == 6
    metrics = json.loads(Path("results/tiny/mine/metrics.json").read_text())
    assert [(case["case"], case["kind"]) for case in metrics["cases"]] == [
        (f"cells_00{number}", "cross-validated") for number in range(3)
    ]
    record = json.loads(Path("data/pred/tiny/mine/.biom3d-predictions.json").read_text())["volumes"]
    models = [sorted(record[f"cells_00{number}.tif"]["models"]) for number in range(6)]
    assert models[3:] == [["fold_0", "fold_1"]] * 3
    assert [len(names) for names in models[:3]] == [1, 1, 1]
    with open("results/summary.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["kind"], row["cases"]) == ("cross-validated", "3")
    told = Path("logs/steps/check/mine.log").read_text()
    assert "3 of 6 images have a mask: these teach and are scored, the others are segmented only" in told


def test_a_fold_that_is_missing_trains_no_other_again(done):
    folder, _ = done
    best = folder / "logs/tiny/fold_0/model/tiny_best.pth"
    before = best.read_bytes()
    shutil.rmtree(folder / "logs/tiny/fold_1")
    run_snakemake("logs/tiny/fold_0", "logs/tiny/fold_1", "--workflow-profile", str(ROOT / "profiles/local"))
    assert best.read_bytes() == before
    text = (folder / "logs/steps/train/tiny/fold_0.log").read_text()
    assert "is this training, of the same arrays; it is taken as it is" in text
    assert (folder / "logs/tiny/fold_1/model/tiny_best.pth").is_file()
