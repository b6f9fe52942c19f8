"""Curves, overlays and the summary show what happened, and where it matters."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from biom3d.figures import (
    SKY,
    Curve,
    View,
    draw_curves,
    draw_overlay,
    length_text,
    save_figure,
)
from biom3d.io import Header, write_labels, write_volume
from biom3d.report import Case, choose_cases, main, mean_dice, read_curve, summarise
from biom3d.views import SLAB, choose_places, read_planes, stretch_contrast

SHAPE = (9, 20, 30)
HEAD = "epoch,train_loss,val_loss,val_iou,val_dice,learning_rate,seconds\n"


def cube(*start: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[tuple(slice(s, s + 5) for s in start)] = 1
    return labels


def make_run(folder: Path, text: str = "0,1.5,1.6,0.1,0.2,0.01,3\n1,0.9,1.0,0.4,0.6,0.01,3\n") -> Path:
    (folder / "log").mkdir(parents=True)
    (folder / "log" / "log.csv").write_text(HEAD + text)
    return folder


def make_case(folder: Path, name: str, pred: np.ndarray, true: np.ndarray | None = None) -> None:
    header = Header((1, *SHAPE), np.dtype("uint16"), "ZYX", (0.5, 0.2, 0.2))
    image = np.random.default_rng(0).integers(0, 900, (1, *SHAPE)).astype(np.uint16)
    write_volume(folder / "in" / name, image, header)
    write_labels(folder / "pred" / name, pred, header)
    if true is not None:
        write_labels(folder / "true" / name, true, header)


def overlay(folder: Path, *options: str, truth: bool = True) -> int:
    argv = ["overlay", "--path_in", str(folder / "in"), "--path_pred", str(folder / "pred")]
    argv += ["--path_lab", str(folder / "true")] * truth
    return main([*argv, "--out_dir", str(folder / "out"), *options])


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three cases: `a` is perfect, `b` a little off, `c` far off; and their metrics.json."""
    for name, start in (("a", 8), ("b", 9), ("c", 12)):
        make_case(tmp_path, f"{name}.tif", cube(2, 8, start), cube(2, 8, 8))
    rows = [{"case": c, "class": 1, "dice": d, "iou": d / 2} for c, d in (("a", 1.0), ("b", 0.8), ("c", 0.2))]
    (tmp_path / "metrics.json").write_text(json.dumps({"num_classes": 1, "cases": rows}))
    return tmp_path


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").glob("*.png"))


# Curves


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_curves_are_drawn_in_the_format_of_the_suffix(tmp_path: Path, suffix: str, start: bytes) -> None:
    out = tmp_path / f"curves{suffix}"
    assert main(["curves", "--log", str(make_run(tmp_path / "m" / "fold_0")), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(start)


def test_a_figure_of_an_unknown_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = make_run(tmp_path / "m" / "fold_0")
    assert main(["curves", "--log", str(run), "--out", str(tmp_path / "curves.txt")]) == 2
    assert ".png, .svg, .pdf" in capsys.readouterr().err


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    curve = read_curve(make_run(tmp_path / "m" / "fold_0"))
    for name in ("1.svg", "2.svg"):
        save_figure(draw_curves([curve], "m"), tmp_path / name)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


def test_every_run_has_its_line_with_the_best_epoch(tmp_path: Path) -> None:
    curves = [read_curve(make_run(tmp_path / "m" / f"fold_{k}")) for k in range(3)]
    legend = draw_curves(curves, "m").axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [f"fold {k}: best 0.600, epoch 2" for k in range(3)]


def test_runs_of_two_models_carry_their_model(tmp_path: Path) -> None:
    assert read_curve(make_run(tmp_path / "nuclei" / "fold_0"), with_model=True).name == "nuclei, fold 0"


def test_a_log_of_biom3d_without_learning_rate_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "20261123-nuclei_fold0")
    (run / "log" / "log.csv").write_text("epoch,train_loss,val_loss,val_iou,val_dice\n0,-0.4,-0.5,0.6,0.75\n")
    assert read_curve(run).val_dice == [0.75]


def test_a_run_without_validation_is_drawn(tmp_path: Path) -> None:
    curve = read_curve(make_run(tmp_path / "m" / "fold_0", "0,1.5,,,,0.01,3\n"))
    legend = draw_curves([curve], "m").axes[1].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "fold 0: no validation"


@pytest.mark.parametrize("text", ["", "0,broken,1,1,1,1,1\n", ",1,1,1,1,1,1\n"])
def test_a_log_that_is_none_is_refused_by_name(tmp_path: Path, text: str, capsys: pytest.CaptureFixture) -> None:
    run = make_run(tmp_path / "m" / "fold_0", text)
    assert main(["curves", "--log", str(run), "--out", str(tmp_path / "c.png")]) == 2
    assert "log.csv" in capsys.readouterr().err


def test_a_missing_run_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["curves", "--log", str(tmp_path / "nowhere"), "--out", str(tmp_path / "c.png")]) == 2
    assert "nowhere" in capsys.readouterr().err


# Overlays


def test_every_case_has_one_picture(three: Path) -> None:
    assert overlay(three, "--metrics", str(three / "metrics.json")) == 0
    assert pictures(three) == ["a.png", "b.png", "c.png"]


def test_a_truth_that_eval_could_not_use_is_not_drawn(three: Path) -> None:
    (three / "true/c.tif").write_bytes(b"rubbish")
    rows = [{"case": "a", "class": 1, "dice": 1.0}]
    (three / "metrics.json").write_text(json.dumps({"cases": rows, "left_out": {"c": "damaged"}}))
    assert overlay(three, "--metrics", str(three / "metrics.json")) == 0
    assert pictures(three) == ["a.png", "b.png", "c.png"]


def test_no_truth_is_needed(three: Path) -> None:
    overlay(three, truth=False)
    assert pictures(three) == ["a.png", "b.png", "c.png"]


def test_the_lowest_dice_is_drawn_first_and_the_rest_is_named(three: Path, capsys: pytest.CaptureFixture) -> None:
    overlay(three, "--metrics", str(three / "metrics.json"), "--max_cases", "2")
    assert pictures(three) == ["b.png", "c.png"]
    assert "not drawn, those with the highest Dice: 'a'" in capsys.readouterr().err


def test_without_truth_the_most_suspicious_is_drawn_first(three: Path, capsys: pytest.CaptureFixture) -> None:
    table = three / "quality.csv"
    table.write_text("case,kind,suspicion,flags\na,held-out,0.1,\nb,held-out,3,no objects\nc,held-out,0.5,\n")
    assert overlay(three, "--quality", str(table), "--max_cases", "2", truth=False) == 0
    assert pictures(three) == ["b.png", "c.png"]
    assert "not drawn, the least suspicious: 'a'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "case,dice\na,1\n", "case,suspicion\na,high\n"])
def test_a_table_of_quality_that_is_none_is_refused_by_name(
    three: Path, text: str, capsys: pytest.CaptureFixture
) -> None:
    (three / "quality.csv").write_text(text)
    assert overlay(three, "--quality", str(three / "quality.csv"), truth=False) == 2
    assert "quality.csv' is no table of biom3d quality" in capsys.readouterr().err


def test_cases_without_dice_come_last(tmp_path: Path) -> None:
    cases = [Case(name, tmp_path, tmp_path, None, dice) for name, dice in (("a", None), ("b", 0.9), ("c", 0.5))]
    assert [case.name for case in choose_cases(cases, 3)[0]] == ["c", "b", "a"]


def test_a_mask_of_0_and_255_is_compared_as_class_1(tmp_path: Path) -> None:
    make_case(tmp_path, "a.tif", cube(2, 8, 8), cube(2, 8, 8) * 255)
    overlay(tmp_path, "--events", str(tmp_path / "events"))
    assert '"event": "picture", "case": "a", "dice": 1.0' in (tmp_path / "events").read_text()


def test_predictions_of_several_classes_need_no_number_of_classes(tmp_path: Path) -> None:
    make_case(tmp_path, "a.tif", cube(2, 8, 8) + 2 * cube(2, 8, 20), cube(2, 8, 8) + 2 * cube(2, 9, 20))
    assert overlay(tmp_path) == 0


def test_a_prediction_of_another_shape_is_refused_with_both_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_case(tmp_path, "a.tif", cube(2, 8, 8)[:-1])
    assert overlay(tmp_path, truth=False) == 2
    error = capsys.readouterr().err
    assert "(8, 20, 30)" in error
    assert "(9, 20, 30)" in error


def test_the_place_shown_is_where_most_voxels_differ() -> None:
    pred, true = cube(2, 8, 8), cube(2, 8, 8)
    pred[7, 3:5, 20:24] = 1
    assert choose_places(pred, true)[1] == ("where prediction and truth differ most", (7, 3, 20))


@pytest.mark.parametrize("true", [None, np.zeros(SHAPE, np.uint8)])
def test_a_place_between_two_objects_is_not_shown(true: np.ndarray | None) -> None:
    pred = cube(0, 1, 2)
    pred[7:, 16:, 25:] = 1
    z, y, x = choose_places(pred, true)[0][1]
    assert all(plane.sum() == 25 for plane in (pred[z], pred[:, y], pred[:, :, x]))


def test_an_empty_prediction_is_shown_in_the_middle() -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    assert choose_places(nothing, None) == [("middle of the volume; no object", (4, 10, 15))]


def test_one_place_for_two_reasons_is_shown_once() -> None:
    title, point = choose_places(cube(2, 8, 8), np.zeros(SHAPE, np.uint8))[0]
    assert point == (2, 8, 8)
    assert title == "planes with most of the objects, where prediction and truth differ most too"
    assert len(choose_places(cube(2, 8, 8), np.zeros(SHAPE, np.uint8))) == 1


def test_equal_volumes_are_shown_once() -> None:
    assert len(choose_places(cube(2, 8, 8), cube(2, 8, 8))) == 1


def test_planes_are_read_from_every_slab(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (2, SLAB + 3, 6, 7)).astype(np.uint16)
    write_volume(tmp_path / "i.tif", image, Header(image.shape, image.dtype, "CZYX"))  # type: ignore[arg-type]
    yx, zx, yz = read_planes(tmp_path / "i.tif", [(SLAB + 1, 2, 3)])[0]
    assert (yx == image[:, SLAB + 1]).all()
    assert (zx == image[:, :, 2]).all()
    assert (yz == image[:, :, :, 3].transpose(0, 2, 1)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_contrast_ignores_values_that_are_no_numbers(value: float) -> None:
    plane = np.linspace(0, 1, 100, dtype=np.float32).reshape(1, 10, 10)
    plane[0, 0, 0] = value
    grey = stretch_contrast([[plane] * 3])[0][0]
    assert np.isfinite(grey).all()
    assert grey.max() > 0.9


def test_contrast_of_a_constant_image_is_black() -> None:
    assert (stretch_contrast([[np.full((1, 4, 4), 7)] * 3])[0][0] == 0).all()


@pytest.mark.parametrize(
    ("shape", "spacing", "panels"),
    [
        ((9, 20, 30), (1.0, 1.0, 1.0), [(30, 20), (30, 9), (9, 20)]),
        ((9, 20, 30), (2.0, 1.0, 0.5), [(15, 20), (15, 18), (18, 20)]),
        ((60, 20, 30), (1.0, 1.0, 1.0), [(30, 20), (30, 60), (20, 60)]),
        ((1, 20, 30), (1.0, 1.0, 1.0), [(30, 20)]),
    ],
)
def test_panels_have_the_proportions_of_the_voxels(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], panels: list[tuple[int, int]]
) -> None:
    figure = draw_overlay([view(np.zeros(shape, np.uint8))], spacing, "t")
    sizes = [axes.get_window_extent() for axes in figure.axes]
    scale = sizes[0].width / panels[0][0]
    assert [(s.width / scale, s.height / scale) for s in sizes] == [pytest.approx(panel) for panel in panels]


def view(labels: np.ndarray, true: np.ndarray | None = None) -> View:
    def cut(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return volume[0], volume[:, 0], volume[:, :, 0].T

    return View("here", (0, 0, 0), cut(labels * 0.5), cut(labels), None if true is None else cut(true))


def test_the_outline_runs_around_the_object(tmp_path: Path) -> None:
    labels = np.zeros((1, 40, 40), np.uint8)
    labels[0, 10:30, 10:30] = 1
    save_figure(draw_overlay([view(labels * 0, labels)], None, ""), tmp_path / "o.png")
    rgb = (imread(tmp_path / "o.png")[..., :3] * 255).round().astype(int)
    colour = np.array([int(SKY[i : i + 2], 16) for i in (1, 3, 5)])
    rows = np.flatnonzero((abs(rgb - colour).sum(axis=2) < 3).sum(axis=1) > 200)
    assert rows.max() - rows.min() == pytest.approx(5 * 150 / 2, abs=8)  # half of 5 inches at 150 dpi


@pytest.mark.parametrize(("size", "text"), [(0.5, "500 nm"), (20, "20 µm"), (2000, "2 mm")])
def test_lengths_are_written_in_a_fitting_unit(size: float, text: str) -> None:
    assert length_text(size) == text


def test_many_classes_and_one_epoch_can_be_drawn(tmp_path: Path) -> None:
    labels = np.arange(1 * 20 * 30, dtype=np.uint16).reshape(1, 20, 30) // 50
    save_figure(draw_overlay([view(labels, labels)], (1, 1, 1), "classes"), tmp_path / "o.png")
    one = np.array([0.5])
    save_figure(draw_curves([Curve("x", np.array([0.0]), one, one, one)], "t"), tmp_path / "c.png")


# Summary


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    rows = [
        {"case": "a", "class": 1, "dice": 0.9, "iou": 0.8, "hd95_um": 1.0},
        {"case": "b", "class": 1, "dice": 0.5, "iou": 0.3, "hd95_um": None},
        {"case": "a", "class": 2, "dice": None, "iou": None, "hd95_um": None},
    ]
    path = tmp_path / "results" / "my model" / "set [1]" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"num_classes": 2, "cases": rows}))
    return path


def test_a_summary_row_has_means_and_the_worst_case(metrics: Path) -> None:
    row = summarise(metrics, json.loads(metrics.read_text())["cases"])[0]
    assert row == {
        "model": "my model", "dataset": "set [1]", "kind": "unknown", "class": 1, "cases": 2,
        "dice_mean": pytest.approx(0.7), "dice_worst": 0.5, "worst_case": "b", "iou_mean": pytest.approx(0.55),
        "iou_worst": 0.3,
        "hd95_um_mean": 1.0, "hd95_um_worst": 1.0,
    }  # fmt: skip


def test_a_summary_never_mixes_kinds(tmp_path: Path) -> None:
    kinds = {"x": ("held-out", "training"), "y": ("held-out", "held-out")}
    for dataset, pair in kinds.items():
        rows = [{"case": str(n), "kind": k, "class": 1, "dice": n / 2} for n, k in enumerate(pair)]
        path = tmp_path / "m" / dataset / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"num_classes": 1, "cases": rows}))
    files = [str(tmp_path / "m" / name / "metrics.json") for name in kinds]
    assert main(["summary", "--metrics", *files, "--out", str(tmp_path / "s.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [(row["dataset"], row["kind"], row["cases"], row["dice_mean"], row["worst_case"]) for row in rows] == [
        ("x", "held-out", "1", "0.0", "0"),
        ("x", "training", "1", "0.5", "1"),
        ("y", "held-out", "2", "0.25", "0"),
        ("(all)", "held-out", "3", "0.1667", "x/0"),
        ("(all)", "training", "1", "0.5", "x/1"),
    ]


def test_the_summary_is_written_as_csv_and_printed(metrics: Path, capsys: pytest.CaptureFixture) -> None:
    out = metrics.parents[2] / "summary.csv"
    assert main(["summary", "--metrics", str(metrics), str(metrics), "--out", str(out)]) == 0
    assert [row["class"] for row in csv.DictReader(out.open())] == ["1", "2"] * 2
    assert "0.700" in capsys.readouterr().out


def test_a_class_without_scores_is_empty_in_the_csv(metrics: Path) -> None:
    out = metrics.parent / "summary.csv"
    main(["summary", "--metrics", str(metrics), "--out", str(out)])
    assert list(csv.DictReader(out.open()))[1]["dice_mean"] == ""


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cases": [{}]}', '{"cases": 3}'])
def test_metrics_that_are_none_are_refused_by_name(metrics: Path, text: str, capsys: pytest.CaptureFixture) -> None:
    metrics.write_text(text)
    assert main(["summary", "--metrics", str(metrics), "--out", str(metrics.parent / "s.csv")]) == 2
    assert "is no metrics.json of eval" in capsys.readouterr().err


def test_the_dice_of_a_case_is_the_mean_over_its_classes(metrics: Path) -> None:
    rows = [*json.loads(metrics.read_text())["cases"], {"case": "b", "class": 2, "dice": 0.7}]
    assert mean_dice(rows) == {"a": 0.9, "b": pytest.approx(0.6)}
