"""The evaluation step pairs by name, counts right, and says what is wrong with its input."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from biom3d.data.predictions import RECORD
from biom3d.eval import main
from biom3d.io import Header, write_labels

SHAPE = (8, 12, 16)
SPACING = (0.5, 0.2, 0.2)
Cubes = dict[str, np.ndarray]


def cube(start: int, value: int = 1) -> np.ndarray:
    """A cube 6 wide along x; moved by 2 it has Dice 2/3, IoU 1/2 and HD95 2 voxels."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:9, start : start + 6] = value
    return labels


def save(folder: Path, name: str, labels: np.ndarray, spacing: tuple[float, ...] | None = SPACING) -> Path:
    folder.mkdir(exist_ok=True)
    header = Header((1, *labels.shape), labels.dtype, "ZYX", spacing)  # type: ignore[arg-type]
    write_labels(folder / name, labels, header)
    return folder / name


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two cases: `a` is moved by 2 voxels, `b` is perfect; the options that name their folders."""
    for name, start in (("a", 6), ("b", 4)):
        save(tmp_path / "pred", f"{name}.tif", cube(start))
        save(tmp_path / "true", f"{name}.tif", cube(4))
    return ["-p", str(tmp_path / "pred"), "-l", str(tmp_path / "true")]


@pytest.fixture
def results(folders: list[str], tmp_path: Path) -> dict:
    assert main([*folders, "--out_json", str(tmp_path / "m.json"), "--out_csv", str(tmp_path / "m.csv")]) == 0
    return json.loads((tmp_path / "m.json").read_text())


def error_of(argv: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(argv) == 2
    return capsys.readouterr().err


def test_a_row_holds_the_scores_of_one_class_in_one_case(results: dict) -> None:
    assert results["cases"][0] == {
        "case": "a", "kind": "unknown", "class": 1, "dice": pytest.approx(2 / 3), "iou": pytest.approx(1 / 2),
        "hd95_um": pytest.approx(0.4), "hd95_voxels": None, "voxels_pred": 144, "voxels_true": 144,
    }  # fmt: skip


def test_the_mean_is_over_cases(results: dict) -> None:
    assert results["mean"]["1"]["dice"] == pytest.approx((1 + 2 / 3) / 2)


def test_csv_holds_the_rows_of_the_json_with_four_decimals(results: dict, tmp_path: Path) -> None:
    rows = list(csv.DictReader((tmp_path / "m.csv").open()))
    assert [float(row["dice"]) for row in rows] == [round(row["dice"], 4) for row in results["cases"]]


def test_the_table_names_case_class_scores_and_unit(folders: list[str], capsys: pytest.CaptureFixture) -> None:
    main(folders)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a     class 1  Dice 0.667  IoU 0.500  HD95 0.40 µm"
    assert lines[-1].startswith("mean  class 1  Dice 0.833")


def test_events_tell_every_row(folders: list[str], tmp_path: Path) -> None:
    main([*folders, "--events", str(tmp_path / "events")])
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "case", "case", "done"]


def test_volumes_are_paired_by_name_across_formats(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "true" / "a.tif").unlink()
    save(tmp_path / "true", "a.nii.gz", cube(4))
    main([*folders, "--out_json", str(tmp_path / "m.json")])
    assert json.loads((tmp_path / "m.json").read_text())["cases"][1]["dice"] == 1


def test_two_files_are_compared_whatever_their_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pred, true = save(tmp_path, "x.tif", cube(4)), save(tmp_path, "y.tif", cube(4))
    assert main(["-p", str(pred), "-l", str(true)]) == 0
    assert "Dice 1.000" in capsys.readouterr().out


def test_names_with_spaces_brackets_and_unicode_are_fine(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder in ("p [1]", "ü b"):
        save(tmp_path / folder, "größe (2) 'x'.v1.tif", cube(4))
    assert main(["-p", str(tmp_path / "p [1]"), "-l", str(tmp_path / "ü b")]) == 0
    assert "größe (2) 'x'.v1" in capsys.readouterr().out


def test_a_prediction_without_truth_is_named_and_not_scored(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path / "pred", "lonely.tif", cube(4))
    assert main(folders) == 0
    told = capsys.readouterr()
    assert "1 of 3 predictions have no truth and no score: 'lonely'" in told.err
    assert "lonely" not in told.out


def test_names_that_never_match_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "pred", "a.tif", cube(4))
    save(tmp_path / "pred", "b.tif", cube(4))
    save(tmp_path / "true", "c.tif", cube(4))
    assert "without truth of the same name" in error_of(["-p", f"{tmp_path}/pred", "-l", f"{tmp_path}/true"], capsys)


def record(folder: Path, **kinds: str) -> None:
    """Write what `pred` tells of its volumes."""
    volumes = {f"{name}.tif": {"kind": kind} for name, kind in kinds.items()}
    (folder / ".biom3d-predictions.json").write_text(json.dumps({"volumes": volumes}))


def test_kinds_of_scores_are_told_and_never_mixed(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    record(tmp_path / "pred", a="cross-validated", b="training")
    assert main([*folders, "--out_json", str(tmp_path / "m.json")]) == 0
    metrics, told = json.loads((tmp_path / "m.json").read_text()), capsys.readouterr()
    assert [(row["case"], row["kind"]) for row in metrics["cases"]] == [("a", "cross-validated"), ("b", "training")]
    means = {kind: part["1"]["dice"] for kind, part in metrics["means"].items()}
    assert means == {"cross-validated": pytest.approx(2 / 3), "training": 1}
    assert "mean" not in metrics
    assert [line.split()[0] + " " + line.split()[-1] for line in told.out.splitlines()[2:]] == [
        "mean cross-validated",
        "mean training",
    ]
    assert "of the training set: their scores" in told.err


def test_a_mean_of_one_kind_is_the_mean(folders: list[str], tmp_path: Path) -> None:
    record(tmp_path / "pred", a="held-out", b="held-out")
    assert main([*folders, "--out_json", str(tmp_path / "m.json")]) == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["mean"] == metrics["means"]["held-out"]


def test_a_truth_without_prediction_is_named(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "true", "forgotten.tif", cube(4))
    assert "'forgotten'" in error_of(folders, capsys)


def test_different_shapes_are_refused_with_case_and_shapes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "pred", "a.tif", cube(4)[:-1])
    save(tmp_path / "true", "a.tif", cube(4))
    error = error_of(["-p", str(tmp_path / "pred"), "-l", str(tmp_path / "true")], capsys)
    assert all(text in error for text in ("case 'a'", "(7, 12, 16)", "(8, 12, 16)"))


def test_a_label_above_the_classes_is_refused_with_a_remedy(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path / "pred", "a.tif", cube(0) + cube(8, 2))
    error = error_of(folders, capsys)
    assert "a.tif': labels: found 0, 1, 2, wanted 0..1" in error
    assert "--num_classes" in error


def test_an_error_writes_no_result(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "pred", "b.tif", cube(4)[:-1])
    error_of([*folders, "--out_json", str(tmp_path / "m.json"), "--out_csv", str(tmp_path / "m.csv")], capsys)
    assert not list(tmp_path.glob("m.*"))


def test_a_bad_mask_is_left_out_where_that_is_wanted_and_recorded(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "true" / "b.tif").write_bytes(b"rubbish")
    assert main([*folders, "--skip_bad", "--out_json", str(tmp_path / "m.json")]) == 0
    found = json.loads((tmp_path / "m.json").read_text())
    assert ([row["case"] for row in found["cases"]], list(found["left_out"])) == (["a"], ["b"])
    assert "warning: no score of 'b': " in capsys.readouterr().err
    (tmp_path / "true" / "a.tif").write_bytes(b"rubbish")
    assert "a.tif" in error_of([*folders, "--skip_bad"], capsys)


def test_the_truth_of_an_image_that_pred_left_out_is_not_missed(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "pred" / "b.tif").unlink()
    (tmp_path / "pred" / RECORD).write_text(json.dumps({"left_out": {"b.tif": "damaged"}}))
    assert main(folders) == 0


def test_a_mask_of_0_and_255_is_class_1_and_said_so(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path / "true", "b.tif", cube(4, 255))
    main(folders)
    output = capsys.readouterr()
    assert "b     class 1  Dice 1.000" in output.out
    assert "255 is taken as class 1" in output.err


def test_instances_count_as_one_class(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "true", "b.tif", cube(4) * np.arange(1, 17, dtype=np.uint8))
    main([*folders, "--instances"])
    assert "b     class 1  Dice 1.000" in capsys.readouterr().out


def test_classes_are_scored_one_by_one(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / "pred", "a.tif", cube(4, 2))
    main([*folders, "--num_classes", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a     class 1  Dice 0.000  IoU 0.000  HD95 -"
    assert lines[3] == "b     class 2  Dice -  IoU -  HD95 -"


def test_a_class_absent_everywhere_has_no_mean(folders: list[str], tmp_path: Path) -> None:
    main([*folders, "--num_classes", "3", "--out_json", str(tmp_path / "m.json")])
    assert json.loads((tmp_path / "m.json").read_text())["mean"]["3"]["dice"] is None


def test_without_voxel_size_the_distance_is_in_voxels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pred, true = save(tmp_path, "x.tif", cube(6), None), save(tmp_path, "y.tif", cube(4), None)
    main(["-p", str(pred), "-l", str(true)])
    assert "HD95 2.00 voxels" in capsys.readouterr().out


def test_spacing_of_the_command_line_wins(folders: list[str], capsys: pytest.CaptureFixture) -> None:
    main([*folders, "--spacing", "1", "1", "3"])
    assert "HD95 6.00 µm" in capsys.readouterr().out


def test_the_spacing_of_the_prediction_helps_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pred, true = save(tmp_path, "x.tif", cube(6)), save(tmp_path, "y.tif", cube(4), None)
    main(["-p", str(pred), "-l", str(true)])
    assert "HD95 0.40 µm" in capsys.readouterr().out


def test_different_spacings_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pred, true = save(tmp_path, "x.tif", cube(6), (1, 1, 1)), save(tmp_path, "y.tif", cube(4))
    main(["-p", str(pred), "-l", str(true)])
    assert "warning: case 'x': voxel size (1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "columns"),
    [("dice", ["dice"]), ("iou", ["iou"]), ("equals", ["equals"]), ("hd95", ["hd95_um", "hd95_voxels"])],
)
def test_a_function_gives_its_columns_only(
    folders: list[str], tmp_path: Path, function: str, columns: list[str]
) -> None:
    main([*folders, "-f", function, "--out_csv", str(tmp_path / "m.csv")])
    head = (tmp_path / "m.csv").read_text().splitlines()[0]
    assert head == ",".join(["case", "kind", "class", *columns, "voxels_pred", "voxels_true"])


@pytest.mark.parametrize("options", [["--num_classes", "0"], ["--spacing", "1", "0", "1"]])
def test_impossible_options_are_refused(folders: list[str], options: list[str], capsys: pytest.CaptureFixture) -> None:
    assert options[0] in error_of([*folders, *options], capsys)


def test_an_empty_folder_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "nothing here").mkdir()
    assert "nothing here" in error_of(["-p", str(tmp_path / "nothing here"), "-l", str(tmp_path)], capsys)


def test_only_the_distance_loads_scipy(folders: list[str]) -> None:
    code = "import sys; from biom3d.eval import main; main(sys.argv[1:]); assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, *folders, "-f", "dice"], check=True, capture_output=True)


def test_one_truth_file_belongs_to_the_one_prediction_of_a_folder(tmp_path: Path) -> None:
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1:3, 2:6, 2:6] = 1
    (tmp_path / "pred").mkdir()
    np.save(tmp_path / "pred" / "cell.npy", labels)
    np.save(tmp_path / "cell_mask.npy", labels)
    options = ["--path_pred", str(tmp_path / "pred"), "--path_lab", str(tmp_path / "cell_mask.npy")]
    assert main([*options, "--out_json", str(tmp_path / "m.json")]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["mean"]["1"]["dice"] == 1
