"""The command lines: what the rules give is taken, what cannot be done is said in one line; Biom3d is not needed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from biom3d_upstream import eval as evaluate
from biom3d_upstream import pred, preprocess, theirs, train
from biom3d_upstream.contract import InputError, Reporter, StepError, working_folder

from tests.upstream.conftest import ROOT
from tests.upstream.test_mapping import config

sys.path.insert(0, str(ROOT / "workflow" / "lib"))

from biom3d_workflow import commands, schema
from biom3d_workflow.project import Model
from biom3d_workflow.table import Dataset

MODEL = Model("m", schema.option_defaults())
PATHS = ["--out_dir", "out", "--plan_out", "plan.yaml"]


def dataset() -> Dataset:
    fields = {"name": "a", "line": 2, "images": "images", "masks": "masks", "train": ("m",), "predict": ("m",)}
    return Dataset(**fields, spacing_um=(0.5, 0.25, 0.25))


@pytest.mark.parametrize(
    ("parser", "words", "rest"),
    [
        (preprocess.build_parser(), commands.preprocess(MODEL, [dataset()]), [*PATHS, "--desc", "m"]),
        (train.build_parser(), commands.train(MODEL), ["--config", "p", "--data_dir", "d", "--run_dir", "r"]),
        (
            pred.build_parser(),
            commands.predict(MODEL, dataset(), is_ours=False),
            ["--log", "r", "--out_dir", "o", "--threads", "8"],
        ),
        (
            evaluate.build_parser(),
            commands.evaluate(MODEL, dataset(), is_ours=False),
            ["--path_pred", "p", "--out_csv", "c"],
        ),
    ],
)
def test_the_options_of_the_rules_are_taken(parser, words, rest):
    parser.parse_args([*words.split(), *rest])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer", "adamw"], "--optimizer adamw is not possible with Biom3d 0.1.2: it trains with SGD"),
        (["--seed", "3"], "--seed 3 is not possible"),
        (["--memory_target", "8"], "--memory_target 8.0 is not possible"),
        (["--max_minutes", "8"], "--max_minutes 8.0 is not possible"),
        (["--max_dim", "32"], "needs 64"),
        (["--patch_size", "4", "4", "4"], "halved to 4 voxels"),
    ],
)
def test_what_biom3d_cannot_do_is_said_in_one_line(data, tmp_path, capfd, words, message):
    inputs = ["--img_path", str(data / "images"), "--msk_path", str(data / "masks")]
    outputs = ["--out_dir", str(tmp_path / "out"), "--plan_out", str(tmp_path / "plan.yaml")]
    assert preprocess.main([*inputs, *outputs, *words]) == 2
    said = capfd.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_another_release_of_biom3d_is_refused():
    with pytest.raises(InputError, match=r"holds Biom3d none, the adapter drives 0.1.2"):
        theirs.require_release()


def test_one_volume_is_too_few(data):
    with pytest.raises(InputError, match="needs two or more"):
        preprocess.find_cases([data / "images/v0.tif"], [data / "masks/v0.tif"])


def test_folders_with_the_same_names_get_numbers(data):
    folders = ([data / "images"] * 2, [data / "masks"] * 2)
    assert [case.name for case in preprocess.find_cases(*folders)][:4] == ["1_v0", "1_v1", "1_v2", "2_v0"]


def test_a_mask_without_image_is_named(data):
    (data / "images/v1.tif").unlink()
    with pytest.raises(InputError, match=r"no image .*: 'v1'"):
        preprocess.find_cases([data / "images"], [data / "masks"])


def test_the_configuration_of_a_run_folder_is_a_plan(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log/config.yaml").write_text(yaml.safe_dump(config()))
    assert preprocess.read_plan(tmp_path / "plan.yaml") == config()


def test_a_fold_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "folds.csv").write_text("filename,hold_out,fold\na.tif,0,0\nb.tif,0,1\n")
    with pytest.raises(InputError, match="has the folds 0, 1"):
        train._check_fold(tmp_path / "folds.csv", 2)


@pytest.mark.parametrize(("later_loss", "kept"), [(0.5, b"before"), (0.1, b"after")])
def test_the_better_checkpoint_survives_a_resume(tmp_path, later_loss, kept):
    for folder in ("log", "model"):
        (tmp_path / folder).mkdir()
    curve = f"epoch,train_loss,val_loss\n0,1,0.4\n1,1,{later_loss}\n"
    (tmp_path / "log/log.csv").write_text(curve)
    (tmp_path / "model/m_1_best.pth").write_bytes(b"before")
    (tmp_path / "model/m_best.pth").write_bytes(b"after")
    train.keep_better_checkpoint(tmp_path, "m")
    assert (tmp_path / "model/m_best.pth").read_bytes() == kept


def test_models_vote_and_ties_go_to_the_first():
    votes = [np.array([[labels]], np.uint8) for labels in ([0, 1, 2], [0, 2, 2], [1, 0, 1])]
    assert pred.vote(votes).ravel().tolist() == [0, 1, 2]


def test_a_prediction_of_another_shape_is_refused(data, tmp_path):
    tifffile.imwrite(tmp_path / "v0.tif", np.zeros((3, 16, 32), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"gives shape \(3, 16, 32\)"):
        pred.read_prediction(tmp_path / "v0.tif", pred.Image(data / "images/v0.tif", "v0"), (16, 32, 32))


def test_a_wrong_number_of_scores_is_an_error():
    with pytest.raises(StepError, match="printed 1 numbers for 2"):
        evaluate.fill([{}, {}], "dice", [0.5])


def test_a_failed_command_says_its_last_line():
    assert "exit 1): ValueError: no" in theirs.failure_text("pred", 1, ["Traceback", "ValueError: no", ""])
    assert "out of memory" in theirs.failure_text("train", -9, [])


def test_a_working_folder_is_held_by_one_step(tmp_path):
    with working_folder(tmp_path / "out"), pytest.raises(InputError, match="another step works"):  # noqa: SIM117
        with working_folder(tmp_path / "out"):
            pass


def test_epochs_are_told_once(tmp_path):
    (tmp_path / "logs/run/log").mkdir(parents=True)
    curve = train.Curve(tmp_path, 2, Reporter("train", tmp_path / "events.jsonl"))
    (tmp_path / "logs/run/log/log.csv").write_text("epoch,train_loss,val_loss,val_dice\n0,1,0.4,0.5\n")
    curve.follow()
    curve.follow()
    (event,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (event["event"], event["epoch"], event["of"], event["dice"]) == ("epoch", 1, 2, 0.5)


def test_the_adapter_imports_nothing_of_ours():
    for path in (ROOT / "containers/upstream/biom3d_upstream").glob("*.py"):
        assert "biom3d." not in "".join(
            line for line in Path(path).read_text().splitlines() if line.startswith(("import ", "from "))
        )


@pytest.mark.parametrize("step", ["preprocess", "train", "pred", "eval"])
def test_every_step_is_a_module(step):
    done = subprocess.run(
        [sys.executable, "-m", f"biom3d_upstream.{step}", "--help"],
        cwd=ROOT / "containers" / "upstream",
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"biom3d_upstream.{step}" in done.stdout
