"""The page tells what is there, whatever is missing, and nothing that a name can turn into something else."""

import csv
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biom3d import eval as eval_step
from biom3d import report, synth
from biom3d.reporting import charts, page, previews, results, trainings

ODD = "<img src=x onerror=alert(1)>"
HEAD = "epoch,train_loss,val_loss,val_iou,val_dice,learning_rate,seconds\n"


class Text(HTMLParser):
    """What a reader sees, and the tags that make it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.goes_on = False
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":  # a line may end here; the word does not
            self.goes_on = True
        else:
            self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            words = data.split()
            if self.goes_on and self.words and words:
                self.words[-1] += words.pop(0)
            self.words += words
        self.goes_on = False

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with results of our steps: scores and pictures of two volumes, and of one without masks."""
    folder = tmp_path_factory.mktemp("project")
    data, truth = folder / "data", folder / "data" / "masks"
    assert synth.main([str(data), "--count", "2", "--shape", "12", "20", "20", "--cells", "3"]) == 0
    place = folder / "results" / "cells" / "set"
    scores = ["--out_json", str(place / "metrics.json"), "--out_csv", str(place / "metrics.csv")]
    assert eval_step.main(["--path_pred", str(truth), "--path_lab", str(truth), "--instances", *scores]) == 0
    common = ["overlay", "--path_in", str(data / "images"), "--path_pred", str(truth)]
    given = ["--path_lab", str(truth), "--metrics", str(place / "metrics.json"), "--instances"]
    assert report.main([*common, *given, "--out_dir", str(place / "overlays")]) == 0
    assert report.main([*common, "--out_dir", str(folder / "results" / "cells" / "bare" / "overlays")]) == 0
    return folder


def read(folder: Path) -> Text:
    assert report.main(["page", "--folder", str(folder), "--out", str(folder / "report.html")]) == 0
    return Text((folder / "report.html").read_text(encoding="utf-8"))


def tell(folder: Path, *rows: dict[str, object]) -> None:
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "outcome.json").write_text(json.dumps({"ended": "2026-11-30T18:00:00", "rows": rows}))


def make_run(run: Path, dice: tuple[float, ...], epochs: int = 3) -> None:
    (run / "log").mkdir(parents=True)
    rows = [f"{epoch},0.{9 - epoch},0.5,0.3,{value},0.01,100" for epoch, value in enumerate(dice)]
    (run / "log" / "log.csv").write_text(HEAD + "\n".join(rows) + "\n")
    (run / "plan.yaml").write_text(f"num_epochs: {epochs}\n")


# What is there


def test_what_the_rows_are_and_what_became_of_them_adds_up(tmp_path: Path) -> None:
    states = [("(training)", "m", "passed"), ("a", "m", "failed in part"), ("b", "m", "kept"), ("c", "", "failed")]
    tell(tmp_path, *({"dataset": dataset, "model": model, "state": state} for dataset, model, state in states))
    text = read(tmp_path).text
    assert "1 segmentation" not in text
    assert "2 segmentations (a data set by a model), 1 model to train, 1 other row." in text
    assert "2 done 1 failed 1 failed in part" in text


def test_a_name_breaks_after_its_marks_only(tmp_path: Path) -> None:
    tell(tmp_path, {"dataset": "e_missing.2<b>", "model": "m", "state": "failed"})
    read(tmp_path)
    assert '<th scope="row" class="name">e_<wbr>missing.<wbr>2&lt;b&gt;</th>' in (tmp_path / "report.html").read_text()


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    text = read(tmp_path).text
    for sentence in ("There are no results yet.", "No model was trained here.", "No job has run yet."):
        assert sentence in text


def test_a_folder_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["page", "--folder", str(tmp_path / "nowhere")]) == 2
    assert "holds results/ and logs/" in capsys.readouterr().err


def test_scores_are_those_of_the_metrics(project: Path) -> None:
    row = next(csv.DictReader((project / "results/cells/set/metrics.csv").open()))
    assert row["dice"] == "1.0"
    assert re.search(r"set cells unknown 2 1\.000 1\.000 \S+ 1\.000 0\.00 µm", read(project).text)


def test_every_case_has_one_picture(project: Path) -> None:
    pictures = [attributes for tag, attributes in read(project).tags if tag == "img" and "loading" in attributes]
    assert len(pictures) == 4
    assert len({attributes["src"] for attributes in pictures}) == 4
    assert all(attributes["alt"] for attributes in pictures)


@pytest.mark.parametrize(
    ("column", "value", "text"), [("um", 0.298, "0.30 µm"), ("um", 1250, "1.25 mm"), ("voxels", 1250, "1250.00 voxels")]
)
def test_distances_are_told_in_the_unit_of_the_data(tmp_path: Path, column: str, value: float, text: str) -> None:
    place = tmp_path / "results/m/d"
    place.mkdir(parents=True)
    case = {"case": "a", "class": 1, "dice": 0.5, "iou": 0.4, f"hd95_{column}": value}
    (place / "metrics.json").write_text(json.dumps({"num_classes": 1, "cases": [case]}))
    assert f"0.400 {text}" in read(tmp_path).text


def test_classes_are_called_by_their_names(tmp_path: Path) -> None:
    place = tmp_path / "results/m/d"
    place.mkdir(parents=True)
    cases = [{"case": "a", "class": label, "dice": 0.5, "iou": 0.4, "hd95_um": 1} for label in (1, 2)]
    (place / "metrics.json").write_text(json.dumps({"num_classes": 2, "cases": cases}))
    assert "d m 2 1 0.500" in read(tmp_path).text
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("defaults: {class_names: [soma, <axon>]}\nmodels: {m: {}}\n")
    text = read(tmp_path).text
    assert "d m soma 1 0.500" in text
    assert "d m <axon> 1 0.500" in text


def test_what_failed_is_told_with_its_cause_and_log(tmp_path: Path) -> None:
    tell(tmp_path, {"dataset": "d", "model": "m", "state": "failed", "why": "plane 5 is cut off", "log": "logs/d.log"})
    assert "d m failed plane 5 is cut off Log: logs/d.log" in read(tmp_path).text


def test_scores_of_a_row_that_is_not_done_are_marked(project: Path) -> None:
    tell(project, {"dataset": "set", "model": "cells", "state": "failed", "why": "no memory was left"})
    try:
        text = read(project).text
    finally:
        (project / "logs/outcome.json").unlink()
    assert "set failed cells" in text
    assert "its scores and pictures may be of an earlier run" in text


def test_results_that_no_row_makes_any_more_are_named_not_shown(project: Path) -> None:
    tell(project, {"dataset": "set", "model": "cells", "state": "passed"})
    try:
        text = read(project).text
    finally:
        (project / "logs/outcome.json").unlink()
    assert "Not shown, because no row of the table makes them any more: results/cells/bare" in text
    assert "1 done" in text


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"rows": 3}', b'{"rows": [1, {}]}', b"\xff\xfe", b'{"cases": [[]]}']
)
@pytest.mark.parametrize(
    "name", ["logs/outcome.json", "results/m/d/metrics.json", "logs/m/plan.yaml", "logs/steps/a/b.jsonl"]
)
def test_a_damaged_file_hides_only_itself(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    read(tmp_path)


def test_a_damaged_picture_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "results/m/d/overlays"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"\x89PNG")
    assert "1 more is not in this page" in read(tmp_path).text


QUALITY = (
    "case,kind,suspicion,flags,notes,fold_agreement,view_agreement,foreground_percent,objects,object_size,size_unit\n"
)


def test_volumes_that_look_unusual_are_told_and_shown_first(project: Path) -> None:
    table = project / "results/cells/bare/quality.csv"
    rows = ["cells_000,held-out,0.2,,one fold,,,3,4,5,voxels", "cells_001,held-out,2.5,no objects,,0.41,,0,0,,voxels"]
    table.write_text(QUALITY + "\n".join(rows) + "\n")
    try:
        seen = read(project)
    finally:
        table.unlink()
    assert "bare cells cells_001 no objects 0.41 0 0.0 %" in seen.text
    assert "of 2 volumes" in seen.text
    assert "Not all could be compared: one fold." in seen.text
    titles = [attributes["data-title"] for tag, attributes in seen.tags if "data-title" in attributes]
    assert [title for title in titles if title and title.startswith("bare")] == [
        "bare / cells_001, cells. Unusual: no objects",
        "bare / cells_000, cells",
    ]


def test_where_nothing_is_unusual_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "results/m/d/labels").mkdir(parents=True)
    (tmp_path / "results/m/d/quality.csv").write_text(QUALITY + "a,held-out,0,,,1,,3,4,5,voxels\n")
    assert "None of 1 volumes looks unusual." in read(tmp_path).text


# Names are other people's


def test_names_and_messages_are_never_markup(tmp_path: Path) -> None:
    name = "<b>&\"'"
    folder = tmp_path / "results" / "m" / name / "overlays"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "<i>'\"x.png")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(f"# {ODD} </pre></script><script>alert(2)</script>\n")
    (tmp_path / "config/datasets.tsv").write_text(f"dataset\timages\n{name}\t{ODD}\n")
    tell(tmp_path, {"dataset": name, "model": "m", "state": "failed", "why": ODD, "log": ODD})
    seen = read(tmp_path)
    assert ODD in seen.text
    assert not {"b", "i"} & {tag for tag, _ in seen.tags}
    assert sum(tag == "script" for tag, _ in seen.tags) == 1
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)


def test_nothing_can_be_asked_for_by_the_page(project: Path) -> None:
    seen = read(project)
    policy = next(a["content"] for tag, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    links = [
        value or "" for _, attributes in seen.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert str(project.parent) not in (project / "report.html").read_text()


def test_the_page_can_be_read_without_seeing_it(project: Path) -> None:
    seen = read(project)
    assert [tag for tag, _ in seen.tags].count("h1") == 1
    assert all("scope" in attributes for tag, attributes in seen.tags if tag == "th")
    assert all("alt" in attributes for tag, attributes in seen.tags if tag == "img")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in seen.tags if tag == "svg")


# Size


def test_pictures_stop_at_the_budget_after_the_worst_of_each_data_set(project: Path) -> None:
    pairs = results.read_results(project).pairs
    sizes = [len(previews.read_preview(pair.pictures[0].path)) for pair in pairs]
    galleries = page._fill_galleries(pairs, room=sum(sizes) + 100)
    assert [(len(gallery.thumbnails), gallery.left_out) for gallery in galleries] == [(1, 1), (1, 1)]


def test_the_page_of_64_data_sets_stays_below_10_mb_and_shows_each(project: Path, tmp_path: Path) -> None:
    for number in range(64):
        place = tmp_path / "results" / "cells" / f"set_{number}"
        shutil.copytree(project / "results/cells/set", place, copy_function=os.link)
        for copy in range(8):
            os.link(place / "overlays/cells_000.png", place / f"overlays/more_{copy}.png")
            os.link(place / "overlays/previews/cells_000.webp", place / f"overlays/previews/more_{copy}.webp")
    seen = read(tmp_path)
    shown = [
        str(a["alt"]).partition(" of ")[2].partition(":")[0] for tag, a in seen.tags if tag == "img" and a.get("alt")
    ]
    assert set(shown) == {f"set_{number}" for number in range(64)}
    assert 8_000_000 < (tmp_path / "report.html").stat().st_size < 10_000_000


def test_a_picture_brings_its_small_one_along(project: Path) -> None:
    picture = project / "results/cells/set/overlays/cells_000.png"
    small = picture.parent / "previews/cells_000.webp"
    assert previews.read_preview(picture) == small.read_bytes() == previews.make_preview(picture)
    assert max(previews.size_of(small.read_bytes())) <= previews.LONGER_SIDE


def test_a_picture_of_an_earlier_version_gets_its_small_one_now(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "a.png")
    assert previews.size_of(previews.read_preview(tmp_path / "a.png")) == (16, 8)


def test_the_copy_that_earlier_versions_made_of_the_worst_picture_is_not_shown(tmp_path: Path) -> None:
    for name in ("a", "worst_case"):
        (tmp_path / f"{name}.png").touch()
    assert [picture.name for picture in results._pictures(tmp_path, [])] == ["a"]


# Training


def test_epochs_count_from_1_and_the_time_is_that_of_all_attempts(tmp_path: Path) -> None:
    make_run(tmp_path / "logs/m/fold_0", (0.2, 0.6, 0.5))
    (training,) = trainings.read_trainings(tmp_path, results.Outcome())
    assert training.folds[0].best is not None
    assert training.folds[0].best.number == 2
    assert training.seconds == 300
    assert "fold 0 3 of 3 0.600 2 0.700 0.500 5:00 finished" in read(tmp_path).text


def test_a_time_that_nobody_recorded_is_not_told(tmp_path: Path) -> None:
    make_run(tmp_path / "logs/m/fold_0", (0.2,), epochs=1)
    (tmp_path / "logs/m/fold_0/log/log.csv").write_text(
        "epoch,train_loss,val_loss,val_iou,val_dice\n0,-0.4,-0.5,0.6,0.75\n"
    )
    text = read(tmp_path).text
    assert "fold 0 1 of 1 0.750 1 -0.400 -0.500 – finished" in text
    assert "Time of all epochs" not in text


def test_a_model_says_which_version_made_it(tmp_path: Path) -> None:
    make_run(tmp_path / "logs/m/fold_0", (0.2,))
    (tmp_path / "logs/m/fold_0/log/made_by.json").write_text('{"biom3d": "0.0.9", "train": 1}')
    assert "Made by biom3d-workflow 0.0.9" in read(tmp_path).text


def test_a_training_that_stopped_shows_how_far_it_came(tmp_path: Path) -> None:
    make_run(tmp_path / "logs/m/fold_0.partial", (0.2,))
    assert "fold 0 1 of 3 0.200 1 0.900 0.500 1:40 not finished" in read(tmp_path).text


def test_a_finished_training_is_not_hidden_by_a_new_one(tmp_path: Path) -> None:
    make_run(tmp_path / "logs/m/fold_0", (0.2, 0.6, 0.5))
    make_run(tmp_path / "logs/m/fold_0.partial", (0.1,))
    assert "3 of 3 0.600" in read(tmp_path).text


def test_a_training_without_validation_has_a_chart(tmp_path: Path) -> None:
    make_run(tmp_path / "logs/m/fold_0", (float("nan"), float("nan")))
    (training,) = trainings.read_trainings(tmp_path, results.Outcome())
    assert charts.dice_chart(training.folds).curves == ()
    assert len(charts.loss_chart(training.folds).curves) == 2
    read(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [(0, 1, [0, 0.5, 1]), (-0.1, 0.69, [-0.2, 0, 0.2, 0.4, 0.6, 0.8]), (3, 3, [3, 4]), (0.401, 0.409, None)],
)
def test_axes_have_round_numbers_around_the_values(low: float, high: float, steps: list[float] | None) -> None:
    found = charts.steps_between(low, high)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 7
    if steps and len(steps) == len(found):
        assert found == pytest.approx(steps)


@pytest.mark.parametrize("last", [1, 2, 3, 7, 20, 100, 250, 1000])
def test_the_first_epoch_is_named_and_few_others(last: int) -> None:
    named = charts.epochs_to_name(last)
    assert named[0] == 1
    assert named == sorted(set(named))
    assert len(named) <= 8


# The record


def test_versions_and_machine_are_those_that_the_last_attempt_recorded(tmp_path: Path) -> None:
    start = {
        "event": "start",
        "version": "1",
        "python": "3.12",
        "packages": {"torch": "2"},
        "processor": "P",
        "cores": 2,
    }
    path = tmp_path / "logs/steps/train/m/fold_0.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{**start, "version": "0"}, start, {"event": "device", "device": "cuda", "name": "H200"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert "biom3d-workflow 1, torch 2, Python 3.12 P, 2 cores, H200 train" in read(tmp_path).text


def test_run_times_are_summed_by_step(tmp_path: Path) -> None:
    for name, seconds in (("a", 30), ("b", 90)):
        path = tmp_path / f"logs/steps/predict/m/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t{seconds * 20}\n")
    assert "predict 2 2:00 1:30 m/b 1.8 GB" in read(tmp_path).text


def test_the_table_that_the_configuration_names_is_shown(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("datasets: my.tsv\nmodels: {m: {folds: 2}}\n")
    (tmp_path / "my.tsv").write_text("dataset\timages\nA\tdata/a\n#B\tdata/b\n")
    text = read(tmp_path).text
    assert "Data sets: my.tsv dataset images A data/a Options: config/config.yaml" in text
    assert "models: {m: {folds: 2}}" in text


def test_the_table_is_shown_as_the_last_run_read_it(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("datasets: my.xlsx\n")
    (tmp_path / "my.xlsx").write_bytes(b"PK\x03\x04\0\0")
    assert "my.xlsx , is not there, or no run has read it" in read(tmp_path).text
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/datasets.tsv").write_text("dataset\timages\nA\tdata/a\n")
    assert "Data sets: my.xlsx dataset images A data/a" in read(tmp_path).text
