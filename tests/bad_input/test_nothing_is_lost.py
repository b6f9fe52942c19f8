"""No step replaces what it did not make, whatever output it is given."""

from importlib import import_module
from pathlib import Path

import pytest

from biom3d.preprocess import main as preprocess
from tests.bad_input.conftest import PLAN, STEPS, Refused, contents

IN = ["--img_path", "data/images", "--msk_path", "data/masks", *PLAN]


@pytest.mark.parametrize("out", ["data", "data/images", ".", "data/images/..", "data/masks"])
def test_preprocess_never_replaces_a_folder_that_holds_its_input(refused: Refused, out: str):
    refused("preprocess", f"'{out}' holds the input 'data/", "choose another output folder", options=["--out_dir", out])


@pytest.mark.parametrize("out", ["data/pred", "model", "model/plan.yaml"])
def test_preprocess_never_replaces_what_it_did_not_make(refused, out):
    refused("preprocess", f"'{out}' is there and was not made by preprocess", "choose", options=["--out_dir", out])


@pytest.mark.parametrize("option", ["--img_outpath", "--msk_outpath"])
def test_nor_with_the_options_of_biom3d(work, option, capfd):
    before = contents(work)
    assert preprocess([*IN, option, "data/pred"]) == 2
    assert "'data/pred' is there and was not made by preprocess" in capfd.readouterr().err
    assert contents(work) == before


def test_a_table_called_folds_that_is_none_is_left_alone(work, capfd):
    Path("data/folds.csv").write_text("fold;colour\n1;red\n")
    assert preprocess(IN) == 2
    assert "'data/folds.csv' is there and is no table of folds" in capfd.readouterr().err
    assert Path("data/folds.csv").read_text() == "fold;colour\n1;red\n"


def test_images_and_masks_cannot_go_to_one_folder(work, capfd):
    assert preprocess([*IN, "--img_outpath", "out", "--msk_outpath", "out"]) == 2
    assert "would all be written to 'out'" in capfd.readouterr().err


def test_preprocess_replaces_its_own_folders(work):
    for options in (STEPS["preprocess"], [*IN, "--config_dir", "out"]):
        assert [preprocess(options), preprocess(options)] == [0, 0]


def test_a_plan_may_lie_among_its_data(work):
    options = [*STEPS["preprocess"], "--plan_out", "out/pre/plan.yaml"]
    assert [preprocess(options), preprocess(options)] == [0, 0]
    assert Path("out/pre/plan.yaml").is_file()


@pytest.mark.parametrize(
    ("step", "option"),
    [("eval", "--out_csv"), ("eval", "--out_json"), ("preprocess", "--plan_out"), ("preprocess", "--events")],
)
def test_a_file_never_replaces_a_folder(work, step, option, capfd):
    before = contents(work / "data", work / "model")
    assert import_module(f"biom3d.{step}").main([*STEPS[step], option, "data"]) == 1
    assert "cannot write 'data': Is a directory; a folder has this name, and is left alone" in capfd.readouterr().err
    assert contents(work / "data", work / "model") == before


@pytest.mark.parametrize(
    ("step", "option"),
    [("eval", "--out_csv"), ("eval", "--out_json"), ("preprocess", "--plan_out"), ("train", "--events")],
)
@pytest.mark.parametrize("path", ["data/masks/a.tif", "model/fold_0/model/m.pth"])
def test_a_table_never_replaces_an_image_or_a_model(work, step, option, path, capfd):
    before = contents(work)
    with pytest.raises(SystemExit, match="2"):
        import_module(f"biom3d.{step}").main([*STEPS[step], option, path])
    assert f"'{path}' has the name of an image or a model; wanted a text file" in capfd.readouterr().err
    assert contents(work) == before


@pytest.mark.parametrize("out", ["data/images", "data", "model/fold_0"])
@pytest.mark.parametrize(("step", "option"), [("train", "--run_dir"), ("pred", "--out_dir")])
def test_models_and_predictions_never_replace_a_folder_with_something_in_it(refused, step, option, out):
    refused(step, f"'{out}' exists", "choose another", options=[option, out])


def test_everything_in_one_go_looks_at_the_model_folder_first(work, capfd):
    options = [*STEPS["preprocess"], "--run_dir", "data/images"]
    assert import_module("biom3d.preprocess_train").main(options) == 2
    assert "'data/images' exists; choose another --run_dir" in capfd.readouterr().err
    assert not Path("out").exists()


def test_export_never_replaces_a_truth_of_the_same_name(work, capfd):
    for path in sorted(Path("data/masks").iterdir()):
        path.rename(path.with_suffix(".ome.tif"))
    before = contents(work)
    options = ["labels", "--path_pred", "data/pred", "--path_in", "data/images", "--formats", "ome-tiff"]
    assert import_module("biom3d.export").main([*options, "--out_dir", "data/masks"]) == 2
    assert "'data/masks/a.ome.tif' is there and is no earlier export" in capfd.readouterr().err
    assert contents(work) == before


def test_export_replaces_its_own_files(work):
    export = import_module("biom3d.export").main
    assert [export(STEPS["export"]), export(STEPS["export"])] == [0, 0]


def test_a_prediction_of_an_image_that_is_gone_is_not_kept(work):
    pred = import_module("biom3d.pred").main
    good = Path("data/images/b.tif").read_bytes()
    Path("data/images/b.tif").write_bytes(b"rubbish")
    assert pred(STEPS["pred"]) == 2
    Path("data/images/b.tif").write_bytes(good)
    Path("data/images/c.tif").unlink()
    assert pred(STEPS["pred"]) == 0
    assert sorted(path.name for path in Path("out/pred").glob("*.tif")) == ["a.tif", "b.tif"]


def test_an_unfinished_training_by_another_plan_is_kept_aside(work, capfd):
    Path("out").mkdir()
    for day in (1, 2, 3):  # set aside before: two are kept, the new one with them
        Path(f"out/run.partial-2026010{day}-000000").mkdir()
    Path("model/fold_0").rename("out/run.partial")
    before = {path.removeprefix(str(work / "out/run.partial")) for path in contents(work / "out/run.partial")}
    assert import_module("biom3d.train").main([*STEPS["train"], "--fold", "1"]) == 0
    assert "holds a training by another plan; it is kept as 'out/run.partial-" in capfd.readouterr().err
    older, aside = sorted(Path("out").resolve().glob("run.partial-*"))
    assert older.name == "run.partial-20260103-000000"
    assert {path.removeprefix(str(aside)) for path in contents(aside)} == before
