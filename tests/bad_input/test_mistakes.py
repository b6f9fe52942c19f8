"""What a user may get wrong on the command line, or do to files between two steps: a message, never a traceback."""

import csv
import json
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bad_input.conftest import STEPS, Refused, command, contents, run_child

PLAN = Path("model/plan.yaml")
FOLDS, CHECKPOINT = Path("model/pre/folds.csv"), Path("model/fold_0/model/m.pth")
BEST = Path("model/fold_0/model/m_best.pth")
ARRAY, VOXELS, LABELS = (Path("model/pre") / name for name in ("images/a.npy", "foreground/a.npz", "masks/a.npy"))


def write(path: Path, content: bytes) -> Callable[[], None]:
    def spoil() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return spoil


def cut(path: Path) -> Callable[[], None]:
    return lambda: write(path, path.read_bytes()[: path.stat().st_size // 2])()


def edit(path: Path, old: str, new: str) -> Callable[[], None]:
    def spoil() -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return spoil


def state(**changes: object) -> Callable[[], None]:
    return lambda: torch.save({**torch.load(CHECKPOINT), **changes}, CHECKPOINT)


@pytest.mark.parametrize(
    ("step", "options", "words"),
    [
        ("preprocess", ["--msk_path", "nowhere"], ["'nowhere': no such file or folder; check the path"]),
        ("preprocess", ["--img_path", "data/images", "data/pred"], ["2 image folders and 1 mask folders", "give one"]),
        ("preprocess", ["--seed", "-1"], ["--seed -1: wanted at least 0"]),
        ("preprocess", ["--spacing", "nan", "1", "1"], ["--spacing nan 1.0 1.0: wanted three values above 0, in µm"]),
        ("preprocess", ["--learning_rate", "inf"], ["--learning_rate inf: wanted more than 0, and finite"]),
        ("preprocess", ["--num_classes", "99999999"], ["--num_classes 99999999: wanted at most 32767"]),
        ("preprocess", ["--desc", "../m"], ["--desc is '../m'", "wanted a name without slash"]),
        ("preprocess", ["--desc", ""], ["--desc is ''", "wanted a name"]),
        (
            "preprocess",
            ["--patch_size", "4", "4", "4"],
            ["patch_size [4, 4, 4]", "such as 8 or 16", "larger --patch_size"],
        ),
        ("preprocess", ["--base_config", "data/images/a.tif"], ["'data/images/a.tif' is not valid YAML"]),
        ("preprocess", ["--base_config", "data"], ["cannot read 'data'", "give an existing plan file"]),
        ("preprocess", ["--base_config", str(PLAN), "--patch_size", "9", "16", "16"], ["axis z is 9", "use 8 or 10"]),
        ("train", ["--fold", "7"], ["has no volumes for fold 7; its folds are [0, 1]; give one of them as --fold"]),
        ("train", ["--data_dir", "nowhere"], ["cannot read 'nowhere/folds.csv'", "run preprocess first", "--data_dir"]),
        ("train", ["--config", "nowhere"], ["cannot read 'nowhere'", "give an existing plan file"]),
        ("train", ["--log", "model/plan.yaml"], ["no model folder 'model/plan.yaml'", "give a folder made by train"]),
        ("train", ["--run_dir", "model/plan.yaml"], ["'model/plan.yaml' exists; choose another --run_dir"]),
        ("pred", ["--path_in", "nowhere"], ["'nowhere': no such file or folder; check the path"]),
        ("pred", ["--path_in", "model/plan.yaml"], ["'model/plan.yaml': not a known image format", ".nii.gz"]),
        ("pred", ["--log", "nowhere"], ["no model folder 'nowhere'; give a folder made by train"]),
        ("pred", ["--log", "model/plan.yaml"], ["no model folder 'model/plan.yaml'"]),
        ("pred", ["--log", "nowhere.zip"], ["no model package 'nowhere.zip'; check the path"]),
        ("pred", ["--out_dir", "model/plan.yaml"], ["'model/plan.yaml' exists", "choose another --out_dir"]),
        ("pred", ["--spacing", "0", "0", "0"], ["wanted three values above 0, in µm"]),
        ("eval", ["--num_classes", "99999999"], ["--num_classes 99999999: wanted 1 to 32767"]),
        ("eval", ["--path_lab", "nowhere"], ["'nowhere': no such file or folder"]),
        ("export", ["--label_name", "../x"], ["--label_name '../x': wanted letters, digits"]),
        ("report", ["--max_cases", "0"], ["--max_cases 0: wanted at least 1"]),
        ("report", ["--metrics", "nowhere"], ["'nowhere' cannot be read", "give a metrics.json of eval"]),
    ],
)
def test_a_wrong_option_is_explained(refused: Refused, step: str, options: list[str], words: list[str]):
    refused(step, *words, options=options)


@pytest.mark.parametrize("threads", ["0", "-1", "two"])
@pytest.mark.parametrize("step", ["train", "pred"])
def test_a_wrong_number_of_threads_is_explained(work, step, threads, capfd):
    with pytest.raises(SystemExit, match="2"):
        import_module(f"biom3d.{step}").main([*STEPS[step], "--threads", threads])
    assert f"got '{threads}'; wanted a whole number above 0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (write(FOLDS, b"rubbish"), [f"'{FOLDS}' lists no volumes", "run preprocess again"]),
        (write(FOLDS, b""), [f"'{FOLDS}' lists no volumes", "run preprocess again"]),
        (write(FOLDS, b"\xff\xfe\x00"), [f"'{FOLDS}' is damaged or no folds table", "wanted columns filename"]),
        (write(FOLDS, b"filename,hold_out,fold\na.npy,0,one\n"), [f"'{FOLDS}' is damaged", "wanted columns filename"]),
        (FOLDS.unlink, [f"cannot read '{FOLDS}'", "run preprocess first"]),
        (ARRAY.unlink, ["case 'a.npy' cannot be read in 'model/pre'", "No such file", "run preprocess again"]),
        (cut(ARRAY), ["case 'a.npy' cannot be read in 'model/pre'", "file size", "run preprocess again"]),
        (write(ARRAY, b""), ["case 'a.npy' cannot be read", "No data left in file", "run preprocess again"]),
        (write(ARRAY, b"\x93NUMPY\x01\x00\x10\x00{'descr':xxxxxxx"), ["case 'a.npy' cannot be read"]),
        (cut(LABELS), ["case 'a.npy' cannot be read", "file size", "run preprocess again"]),
        (cut(VOXELS), ["case 'a.npy' cannot be read", "not a zip file", "run preprocess again"]),
        (lambda: np.save(ARRAY, np.zeros((16, 24, 24), np.float32)), ["wanted float32 (c, z, y, x)"]),
        (lambda: np.save(LABELS, np.zeros((1, 16, 24, 20), np.uint8)), ["found a mask uint8 (1, 16, 24, 20), wanted"]),
        (
            lambda: np.savez(VOXELS, **{"1": np.full((5, 3), 99)}),
            ["foreground of label 1: wanted voxels (z, y, x) inside"],
        ),
    ],
)
def test_damaged_preprocessed_data_are_named(refused, spoil, words):
    spoil()
    refused("train", *words)


def test_a_preprocessed_mask_with_labels_of_another_plan_is_named(refused):
    for name in "abc":
        np.save(f"model/pre/masks/{name}.npy", np.full((1, 16, 24, 24), 7, np.uint8))
    refused("train", "the preprocessed mask of '", "holds labels 7..7, the plan knows 0..1", "run preprocess again")


def test_a_fold_without_objects_to_learn_from_is_refused(refused):
    for path in Path("model/pre/foreground").iterdir():
        np.savez(path)
    refused("train", "fold 0 of 'model/pre/folds.csv'", "nothing can be learned", "fewer --folds")


def test_a_fold_without_objects_to_validate_keeps_its_last_epoch(work, capfd):
    with open(FOLDS, newline="") as file:
        held = [row["filename"].removesuffix(".npy") for row in csv.DictReader(file) if row["fold"] == "0"]
    for name in held:
        np.savez(f"model/pre/foreground/{name}.npz")
        np.save(f"model/pre/masks/{name}.npy", np.zeros((1, 16, 24, 24), np.uint8))
    assert import_module("biom3d.train").main(STEPS["train"]) == 0
    assert "no object in its validation volumes" in capfd.readouterr().err
    assert torch.load("out/run/model/m_best.pth")["epoch"] == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("momentum: 0.99", "momentum: 2.0", "momentum is 2.0; wanted 0 to below 1"),
        ("weight_decay: 0.01", "weight_decay: -1", "weight_decay is -1.0; wanted at least 0"),
        ("seed: 0", "seed: -3", "seed is -3; wanted at least 0"),
        ("desc: m", "desc: ../m", "desc is '../m'; wanted a name without slash"),
        ("learning_rate: 0.003", "learning_rate: .nan", "learning_rate: got nan; wanted a number"),
        ("learning_rate: 0.003", "learning_rate: fast", "learning_rate: got 'fast'; wanted a number"),
        ("width: 2", "wdth: 2", "unknown key 'wdth'; did you mean 'width'?"),
        ("width: 2", "width: 2.5", "width: got 2.5; wanted int"),
        ("patch_size: [8, 16, 16]", "patch_size: [8, 16]", "patch_size: got [8, 16]; wanted 3 values"),
        ("num_pools: [1, 2, 2]", "num_pools: [1, 2, 9]", "each must be 0 to 5"),
        ("\nspacing_um: [0.5,", "\nspacing_um: [0,", "spacing_um is [0.0, 0.25, 0.25]; wanted three values above 0"),
        ("scheme: zscore", "scheme: ct", "normalisation ct needs low, high, mean and std for each of 1 channel(s)"),
        ("folds: 2", "folds: 0", "folds is 0; wanted at least 1"),
        ("desc: m", "desc: [", "is not valid YAML"),
        ("desc: m", "desc: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_wrong_edit_of_the_plan_is_explained(refused, old, new, words):
    edit(PLAN, old, new)()
    refused("train", str(PLAN), words)


def test_a_learning_rate_as_people_write_it_is_understood(work):
    edit(PLAN, "learning_rate: 0.003", "learning_rate: 1e-3")()
    assert import_module("biom3d.train").main(STEPS["train"]) == 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (write(CHECKPOINT, b"rubbish"), ["is damaged or no checkpoint", "copy or train it again"]),
        (cut(CHECKPOINT), ["is damaged or no checkpoint", "copy or train it again"]),
        (lambda: BEST.rename(CHECKPOINT), ["is no state of a training that can be resumed", "remove it to train anew"]),
        (state(opt="x"), ["is no state of a training that can be resumed", "remove it to train anew"]),
        (state(rows=[{"epoch": 1}]), ["is no state of a training that can be resumed"]),
        (state(model={"x": torch.zeros(1)}), ["the weights do not fit the network of this plan"]),
    ],
)
def test_a_damaged_state_of_a_training_is_named(work, spoil, words, capfd):
    edit(Path("model/fold_0/plan.yaml"), "num_epochs: 2", "num_epochs: 3")()
    spoil()
    before = contents(work / "model")
    assert import_module("biom3d.train").main(["--log", "model/fold_0"]) == 2
    message = capfd.readouterr().err
    assert [word for word in [str(CHECKPOINT), *words] if word not in message] == [], message
    assert contents(work / "model") == before


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04"])
def test_a_model_package_that_is_none_is_named(refused, content):
    Path("m.zip").write_bytes(content)
    refused("pred", "'m.zip' is damaged or no zip", "copy it again", options=["--log", "m.zip"])


@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_damaged_weights_are_named(refused, content):
    BEST.write_bytes(content)
    refused("pred", f"'{BEST}' is damaged or no checkpoint of weights", "copy or train it again")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"cases": 3}',
        '{"cases": [{"case": "a", "class": 1, "dice": "good"}]}',
        '{"num_classes": "x"}',
    ],
    ids=range(6),
)
def test_metrics_that_are_none_are_named(refused, content):
    Path("m.json").write_text(content)
    refused("report", "'m.json' is no metrics.json of eval", "run eval again", options=["--metrics", "m.json"])


def test_weights_of_another_network_are_no_start_for_this_plan(refused):
    edit(PLAN, "width: 2", "width: 3")()
    refused("train", "the weights do not fit the network of this plan", "width", options=["--log", "model/fold_0"])


@pytest.mark.parametrize("content", ["", "{}", '{"cases": [{"case": 1}]}'])
def test_the_demo_names_metrics_that_are_none(work, content, capfd):
    write(Path("results/m/d/metrics.json"), content.encode())()
    assert import_module("biom3d.demo").main(["data/demo", "--show", "results"]) == 2
    assert "'results/m/d/metrics.json' is no metrics.json of eval" in capfd.readouterr().err


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff", b"epoch,train_loss\n0,low\n"])
def test_a_learning_curve_that_is_none_is_named(work, content, capfd):
    Path("model/fold_0/log/log.csv").write_bytes(content)
    assert import_module("biom3d.report").main(["curves", "--log", "model/fold_0", "--out", "out/c.png"]) == 2
    assert "'model/fold_0/log/log.csv'" in capfd.readouterr().err


@pytest.mark.parametrize("events", ["data/images", "model/plan.yaml/events"])
def test_events_that_cannot_be_opened_stop_the_step_at_once(refused, events):
    refused("eval", f"cannot write '{events}'", "choose another", options=["--events", events], code=1)


def test_events_that_cannot_be_written_do_not_stop_a_step(work, capfd):
    assert import_module("biom3d.eval").main([*STEPS["eval"], "--events", "/dev/full"]) == 0
    assert "warning: no more events: cannot write '/dev/full'" in capfd.readouterr().err
    assert json.loads(Path("out/m.json").read_text())["num_classes"] == 1


@pytest.mark.system
def test_a_reader_that_stops_listening_makes_no_traceback(work):
    plan = shlex.join(command("plan", ["--img_path", "data/images"]))
    done = run_child(["bash", "-c", f"{plan} | true; {plan} 2>/dev/full | true; {plan} >/dev/full"], work)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
