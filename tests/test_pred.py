import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from biom3d import pred, preprocess, train
from biom3d.data.learned import read_of_run
from biom3d.data.predictions import Prediction, read_left_out, read_prediction
from biom3d.errors import DataError
from biom3d.export.__main__ import main as export
from biom3d.io import Header, list_volumes, read_header, read_labels, read_volume, write_volume
from biom3d.memory import resident_bytes
from biom3d.prediction.parts import is_bad
from tests.test_preprocess import SPACING, header, make_set


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Two folds of a small model of bright boxes, trained by the real steps."""
    folder = make_set(tmp_path_factory.mktemp("model"))
    paths = [
        "--img_path",
        str(folder / "images"),
        "--msk_path",
        str(folder / "masks"),
        "--out_dir",
        str(folder / "pre"),
    ]
    options = [
        "--folds",
        "2",
        "--desc",
        "m",
        "--width",
        "4",
        "--num_epochs",
        "6",
        "--num_steps",
        "15",
        "--optimizer",
        "sgd",
    ]
    assert preprocess.main([*paths, "--plan_out", str(folder / "plan.yaml"), *options]) == 0
    for fold in ("0", "1"):
        run = ["--config", str(folder / "plan.yaml"), "--data_dir", str(folder / "pre"), "--fold", fold]
        assert train.main([*run, "--run_dir", str(folder / f"fold_{fold}")]) == 0
    return folder


def run(model: Path, images: Path, out: Path, *options: str, folds=("fold_0",)) -> int:
    logs = [str(model / fold) for fold in folds]
    return pred.main(["--log", *logs, "--path_in", str(images), "--out_dir", str(out), *options])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero((a > 0) & (b > 0)) / (np.count_nonzero(a) + np.count_nonzero(b)))


@pytest.mark.parametrize("options", [[], ["--tta"], ["--keep", "biggest"], ["--keep", "big"]])
def test_boxes_are_found(model, tmp_path, options):
    assert run(model, model / "images", tmp_path / "out", *options) == 0
    found = read_labels(tmp_path / "out" / "a.tif").array[0]
    assert dice(found, read_labels(model / "masks" / "a.tif").array[0]) > 0.9


def test_folds_are_averaged(model, tmp_path):
    assert run(model, model / "images", tmp_path / "out", folds=("fold_0", "fold_1")) == 0
    assert len(list((tmp_path / "out").glob("*.tif"))) == 4


def told(folder: Path, name: str = "a.tif") -> Prediction:
    return read_prediction(folder / name)


def test_a_training_volume_is_predicted_by_the_folds_that_did_not_learn_from_it(model, tmp_path):
    assert run(model, model / "images", tmp_path / "out", folds=("fold_0", "fold_1")) == 0
    held = {one.name: f"fold_{one.folds[0]}" for one in read_of_run(model / "fold_0").volumes}
    for name, fold in held.items():
        prediction = told(tmp_path / "out", f"{name}.tif")
        assert (prediction.kind, prediction.models) == ("cross-validated", (fold,))
    assert run(model, model / "images" / "a.tif", tmp_path / "one", folds=(held["a"],)) == 0
    both, one = ((tmp_path / folder / "a.tif").read_bytes() for folder in ("out", "one"))
    assert both == one


def test_a_copy_under_another_name_and_format_is_known_too(model, tmp_path):
    volume = read_volume(model / "images" / "a.tif")
    (tmp_path / "images").mkdir()
    write_volume(tmp_path / "images" / "new.npy", volume.array.astype(np.float32), volume.header)
    assert run(model, tmp_path / "images", tmp_path / "out", folds=("fold_0", "fold_1")) == 0
    assert told(tmp_path / "out", "new.npy").kind == "cross-validated"


def test_new_volumes_are_held_out_and_predicted_by_all_models(model, tmp_path):
    array = read_volume(model / "images" / "a.tif").array + 1
    (tmp_path / "images").mkdir()
    write_volume(tmp_path / "images" / "a.tif", array, header((16, 24, 24)))
    assert run(model, tmp_path / "images", tmp_path / "out", folds=("fold_0", "fold_1")) == 0
    prediction = told(tmp_path / "out")
    assert (prediction.kind, prediction.models) == ("held-out", ("fold_0", "fold_1"))
    assert 0.5 < prediction.fold_agreement <= 1
    assert prediction.view_agreement is None


def test_the_model_that_learned_from_a_volume_gives_a_training_score(model, tmp_path, capfd):
    learned = next(one.name for one in read_of_run(model / "fold_0").volumes if one.folds == (1,))
    assert run(model, model / "images" / f"{learned}.tif", tmp_path / "out") == 0
    assert told(tmp_path / "out", f"{learned}.tif").kind == "training"
    assert "learned from it: a score of it flatters" in capfd.readouterr().err


def test_all_models_may_be_asked_and_the_kind_says_so(model, tmp_path):
    options = ("--models", "all")
    assert run(model, model / "images" / "a.tif", tmp_path / "out", *options, folds=("fold_0", "fold_1")) == 0
    assert told(tmp_path / "out").kind == "training"


def test_a_model_without_record_makes_scores_of_unknown_kind(model, tmp_path):
    shutil.copytree(model / "fold_0", tmp_path / "old")
    (tmp_path / "old" / "log" / "training_set.json").unlink()
    assert run(tmp_path, model / "images", tmp_path / "out", folds=("old",)) == 0
    assert told(tmp_path / "out").kind == "unknown"


def test_a_fine_tuned_model_knows_what_the_first_one_saw(model, tmp_path):
    data = make_set(tmp_path / "second", ("x", "y"))
    for path in (data / "images").iterdir():
        volume = read_volume(path)
        write_volume(path, volume.array + 3, volume.header)
    paths = ["--img_path", str(data / "images"), "--msk_path", str(data / "masks"), "--out_dir", str(data / "pre")]
    plan = ["--plan_out", str(data / "plan.yaml"), "--base_config", str(model / "fold_0" / "plan.yaml")]
    assert preprocess.main([*paths, *plan, "--folds", "2", "--desc", "m", "--num_epochs", "1"]) == 0
    words = ["--config", str(data / "plan.yaml"), "--data_dir", str(data / "pre"), "--log", str(model / "fold_0")]
    assert train.main([*words, "--run_dir", str(data / "fold_0")]) == 0
    assert run(data, model / "images" / "a.tif", tmp_path / "out") == 0
    assert told(tmp_path / "out").kind == "training"


def test_scores_are_kept_where_asked_for(model, tmp_path):
    assert run(model, model / "images" / "a.tif", tmp_path / "out", "--scores") == 0
    scores = read_volume(tmp_path / "out" / "scores" / "a.ome.zarr")
    labels = read_labels(tmp_path / "out" / "a.tif")
    assert (scores.array.shape, scores.array.dtype) == ((2, 16, 24, 24), np.float16)
    assert scores.header.channel_names == ("background", "class 1")
    assert np.allclose(scores.array.sum(0, dtype=np.float32), 1, atol=0.01)
    sure = np.abs(scores.array[1] - 0.5) > 0.01
    assert np.array_equal((scores.array[1] > 0.5)[sure], (labels.array[0] == 1)[sure])
    assert [path.name for path in list_volumes(tmp_path / "out")] == ["a.tif"]


def test_options_of_before_keep_the_identity_of_predictions():
    old = "PredictOptions(mirror=False, keep='none', spacing_um=None, windows=None, plain=False, precision='auto')"
    assert pred.PredictOptions().identity() == old
    assert pred.PredictOptions(every_model=True).identity() != old


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".nii.gz", ".npy", ".h5", ".ome.zarr"])
def test_labels_have_name_format_shape_and_spacing_of_the_image(model, tmp_path, suffix):
    folder = make_set(tmp_path, ("a b [1]",), suffix=suffix)
    assert run(model, folder / "images", tmp_path / "out", "--spacing", *map(str, SPACING)) == 0
    image, labels = (
        read_header(folder / "images" / f"a b [1]{suffix}"),
        read_header(tmp_path / "out" / f"a b [1]{suffix}"),
    )
    assert (labels.shape, labels.dtype) == (image.shape, np.uint8)
    assert labels.spacing_um == pytest.approx(image.spacing_um) if image.spacing_um else labels.spacing_um is None


def shifted(model: Path, folder: Path, shift: object) -> Path:
    """Return a copy of the model whose checkpoint says that objects score too high by `shift`."""
    shutil.copytree(model / "fold_0", folder)
    path = folder / "model" / "m_best.pth"
    torch.save({**torch.load(path, weights_only=True), "prior_shift": shift}, path)
    return folder


def test_what_training_saw_too_much_of_is_allowed_for(model, tmp_path):
    assert run(shifted(model, tmp_path / "m", [0.0, 90.0]), model / "images", tmp_path / "out", folds=("",)) == 0
    assert not read_labels(tmp_path / "out" / "a.tif").array.any()


def test_the_mean_of_an_ensemble_is_allowed_for(model, tmp_path):
    shifted(model, tmp_path / "up", [0.0, 90.0])
    shifted(model, tmp_path / "down", [0.0, -90.0])
    assert run(tmp_path, model / "images", tmp_path / "both", folds=("up", "down")) == 0
    assert run(model, model / "images", tmp_path / "one") == 0
    both, one = (read_labels(tmp_path / name / "a.tif").array for name in ("both", "one"))
    assert dice(both, one) > 0.9


def test_windows_of_biom3d_know_nothing_of_it(model, tmp_path):
    options = ("--windows", "biom3d")
    assert (
        run(shifted(model, tmp_path / "m", [0.0, 90.0]), model / "images", tmp_path / "out", *options, folds=("",)) == 0
    )
    assert read_labels(tmp_path / "out" / "a.tif").array.any()


@pytest.mark.parametrize("shift", [[0.0], "none", [0.0, "1"], [0.0, float("nan")]])
def test_a_damaged_shift_is_told(model, tmp_path, shift, capfd):
    assert run(shifted(model, tmp_path / "m", shift), model / "images", tmp_path / "out", folds=("",)) == 2
    assert "prior_shift is" in capfd.readouterr().err


def test_biom3d_users_find_their_folder(model, tmp_path):
    options = ["-l", str(model / "fold_0"), "-i", str(model / "images"), "-o", str(tmp_path / "preds")]
    assert pred.main(options) == 0
    assert (tmp_path / "preds" / "fold_0" / "a.tif").exists()


def test_a_packed_model_predicts_the_same(model, tmp_path):
    assert export(["model", "--log", str(model / "fold_0"), "--out", str(tmp_path / "m.zip")]) == 0
    assert run(model, model / "images", tmp_path / "a") == 0
    assert (
        pred.main(["-l", str(tmp_path / "m.zip"), "-i", str(model / "images"), "--out_dir", str(tmp_path / "b")]) == 0
    )
    assert (tmp_path / "a" / "a.tif").read_bytes() == (tmp_path / "b" / "a.tif").read_bytes()


def test_a_single_file_may_be_given(model, tmp_path):
    assert run(model, model / "images" / "a.tif", tmp_path / "out") == 0
    assert [p.name for p in (tmp_path / "out").glob("*.tif")] == ["a.tif"]


def test_one_bad_image_does_not_stop_the_others_and_nothing_half_done_gets_the_name(model, tmp_path, capfd):
    shutil.copytree(model / "images", tmp_path / "images")
    (tmp_path / "images" / "b.tif").write_bytes(b"rubbish")
    assert run(model, tmp_path / "images", tmp_path / "out") == 2
    message = capfd.readouterr().err
    assert "b.tif" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in (tmp_path / "out.partial").glob("*.tif")) == ["a.tif", "c.tif", "d.tif"]


def test_a_rerun_keeps_what_was_done(model, tmp_path, capfd):
    shutil.copytree(model / "images", tmp_path / "images")
    good = (tmp_path / "images" / "b.tif").read_bytes()
    (tmp_path / "images" / "b.tif").write_bytes(b"rubbish")
    assert run(model, tmp_path / "images", tmp_path / "out") == 2
    (tmp_path / "images" / "b.tif").write_bytes(good)
    assert run(model, tmp_path / "images", tmp_path / "out") == 0
    assert capfd.readouterr().err.count("done before") == 3
    assert len(list((tmp_path / "out").glob("*.tif"))) == 4


def test_a_bad_image_is_left_out_where_that_is_wanted_and_recorded(model, tmp_path, capfd):
    shutil.copytree(model / "images", tmp_path / "images")
    (tmp_path / "images" / "b.tif").write_bytes(b"rubbish")
    assert run(model, tmp_path / "images", tmp_path / "out", "--skip_bad") == 0
    assert "warning: left out 1 of 4 images:" in capfd.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tif")) == ["a.tif", "c.tif", "d.tif"]
    assert list(read_left_out(tmp_path / "out")) == ["b.tif"]
    assert "b.tif" in read_left_out(tmp_path / "out")["b.tif"]


def test_nothing_but_bad_images_is_an_error(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.tif").write_bytes(b"rubbish")
    assert run(model, tmp_path / "images", tmp_path / "out", "--skip_bad") == 2


def test_an_image_that_is_gone_is_not_left_out_but_tried_again(tmp_path):
    (tmp_path / "there").touch()
    away = DataError("cannot be read")
    away.__cause__ = OSError(errno.ESTALE, "Stale file handle")
    found = [
        is_bad(tmp_path / "there", DataError("cut short")),
        is_bad(tmp_path / "there", away),
        is_bad(tmp_path / "gone", DataError("not found")),
        is_bad(tmp_path / "there", MemoryError()),
    ]
    assert found == [True, False, False, False]


def test_what_another_run_of_the_same_model_made_is_taken_from_there(model, tmp_path, capfd):
    shutil.copytree(model / "images", tmp_path / "images")
    good = (tmp_path / "images" / "b.tif").read_bytes()
    (tmp_path / "images" / "b.tif").write_bytes(b"rubbish")
    assert run(model, tmp_path / "images", tmp_path / "one", "--skip_bad") == 0
    (tmp_path / "images" / "b.tif").write_bytes(good)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").glob("*.tif")}
    assert run(model, tmp_path / "images", tmp_path / "two", "--earlier", str(tmp_path / "one")) == 0
    assert "3 of 4 predictions are those of" in capfd.readouterr().err
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("*.tif")}
    assert {name: after[name] for name in before} == before
    assert len(after) == 4
    assert read_left_out(tmp_path / "two") == {}
    assert told(tmp_path / "two") == told(tmp_path / "one")


def test_what_another_model_made_is_not_taken(model, tmp_path, capfd):
    assert run(model, model / "images", tmp_path / "one") == 0
    out = ("--earlier", str(tmp_path / "one"))
    assert run(model, model / "images", tmp_path / "two", *out, folds=("fold_1",)) == 0
    assert "are those of" not in capfd.readouterr().err


def test_predictions_of_two_models_are_never_mixed(model, tmp_path, capfd):
    options = ["-i", str(model / "images"), "-o", str(tmp_path)]
    assert pred.main(["-l", str(model / "fold_0"), *options]) == 0
    before = (tmp_path / "fold_0" / "a.tif").read_bytes()
    assert pred.main(["-l", str(model / "fold_0"), str(model / "fold_1"), *options]) == 2
    assert "holds predictions of another model" in capfd.readouterr().err
    assert (tmp_path / "fold_0" / "a.tif").read_bytes() == before


def test_files_of_others_are_never_overwritten(model, tmp_path, capfd):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "a.tif").write_bytes(b"mine")
    assert pred.main(["-l", str(model / "fold_0"), "-i", str(model / "images"), "-o", str(tmp_path)]) == 2
    assert "was not written by pred" in capfd.readouterr().err
    assert (tmp_path / "fold_0" / "a.tif").read_bytes() == b"mine"


def test_a_model_folder_called_partial_gives_no_right_to_overwrite(model, tmp_path, capfd):
    shutil.copytree(model / "fold_0", tmp_path / "fold_0.partial")
    (tmp_path / "out" / "fold_0.partial").mkdir(parents=True)
    (tmp_path / "out" / "fold_0.partial" / "a.tif").write_bytes(b"mine")
    options = ["-i", str(model / "images"), "-o", str(tmp_path / "out")]
    assert pred.main(["-l", str(tmp_path / "fold_0.partial"), *options]) == 2
    assert "was not written by pred" in capfd.readouterr().err
    assert (tmp_path / "out" / "fold_0.partial" / "a.tif").read_bytes() == b"mine"


def test_the_images_are_never_overwritten(model, tmp_path, capfd):
    shutil.copytree(model / "images", tmp_path / "fold_0")
    assert pred.main(["-l", str(model / "fold_0"), "-i", str(tmp_path / "fold_0"), "-o", str(tmp_path)]) == 2
    assert "would be overwritten" in capfd.readouterr().err


def test_models_of_different_plans_are_not_averaged(model, tmp_path, capfd):
    shutil.copytree(model / "fold_1", tmp_path / "other")
    plan = tmp_path / "other" / "plan.yaml"
    plan.write_text(plan.read_text().replace("patch_size: [16, 24, 24]", "patch_size: [16, 32, 32]"))
    options = ["--path_in", str(model / "images"), "--out_dir", str(tmp_path / "out")]
    assert pred.main(["--log", str(model / "fold_0"), str(tmp_path / "other"), *options]) == 2
    assert "patch_size differs" in capfd.readouterr().err


def test_a_wrong_number_of_channels_names_the_file(model, tmp_path, capfd):
    (tmp_path / "images").mkdir()
    two = Header((2, 16, 24, 24), np.dtype("uint16"), "CZYX", SPACING)
    write_volume(tmp_path / "images" / "two.tif", np.ones((2, 16, 24, 24), np.uint16), two)
    assert run(model, tmp_path / "images", tmp_path / "out") == 2
    message = capfd.readouterr().err
    assert "two.tif" in message
    assert "2 channel(s), the model wants 1" in message


def test_a_volume_smaller_than_the_patch_is_predicted(model, tmp_path):
    (tmp_path / "images").mkdir()
    write_volume(tmp_path / "images" / "s.tif", np.ones((1, 5, 7, 9), np.uint16), header((5, 7, 9)))
    assert run(model, tmp_path / "images", tmp_path / "out") == 0
    assert read_header(tmp_path / "out" / "s.tif").shape == (1, 5, 7, 9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --path_out DIR"),
        (["--out_dir", "x", "--path_out", "y"], "give --path_out DIR"),
        (["--out_dir", "x", "--tta", "--no_tta"], "contradict each other"),
        (["--out_dir", "x", "-e"], "pred only predicts"),
        (["--out_dir", "x", "--skip_preprocessing"], "--skip_preprocessing is not offered"),
    ],
)
def test_wrong_options_are_explained(model, options, words, capfd):
    assert pred.main(["--log", str(model / "fold_0"), "--path_in", str(model / "images"), *options]) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize("missing", ["plan.yaml", "model/m_best.pth"])
def test_an_incomplete_model_folder_is_named(model, tmp_path, missing, capfd):
    shutil.copytree(model / "fold_0", tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    assert (
        pred.main(["-l", str(tmp_path / "model"), "-i", str(model / "images"), "--out_dir", str(tmp_path / "o")]) == 2
    )
    message = capfd.readouterr().err
    assert str(tmp_path / "model") in message
    assert "Traceback" not in message


def test_an_image_that_needs_more_memory_than_is_allowed_is_named_and_the_others_are_done(model, tmp_path, capfd):
    (tmp_path / "images").mkdir()
    for name, shape in (("a_large", (16, 1200, 1600)), ("b_small", (16, 24, 24))):
        write_volume(tmp_path / "images" / f"{name}.tif", np.ones((1, *shape), np.uint16), header(shape))
    allowed = f"{(resident_bytes() / 1e9 + 0.3) / 0.95:.2f}"
    keep = ("--keep", "biggest")  # which takes the whole volume
    assert run(model, tmp_path / "images", tmp_path / "out", "--memory_limit", allowed, *keep) == 2
    words = capfd.readouterr().err
    assert "a_large.tif': keeping some of its objects needs" in words
    assert f"--memory_limit allows {float(allowed):.1f} GB" in words
    assert [p.name for p in (tmp_path / "out.partial").glob("*.tif")] == ["b_small.tif"]


def test_a_limit_below_any_prediction_is_told_before_it_starts(model, tmp_path, capfd):
    assert run(model, model / "images" / "a.tif", tmp_path / "out", "--memory_limit", "0.01") == 2
    assert "a.tif': its prediction needs" in capfd.readouterr().err


def test_an_error_of_our_own_stops_no_other_image(model, tmp_path, capfd, monkeypatch):
    real = pred._predict_file

    def fail_for_b(model, path, *more):
        if path.name == "b.tif":
            raise ZeroDivisionError("ours")
        return real(model, path, *more)

    monkeypatch.setattr(pred, "_predict_file", fail_for_b)
    with pytest.raises(ZeroDivisionError):
        run(model, model / "images", tmp_path / "out")
    assert "cannot predict" in capfd.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out.partial").glob("*.tif")) == ["a.tif", "c.tif", "d.tif"]


def test_the_folder_of_a_model_stands_for_its_folds(tmp_path):
    from biom3d.pred import _model_folders

    for name in ("fold_0", "fold_10", "fold_2", "fold_3.partial"):
        (tmp_path / name).mkdir()
    with _model_folders([str(tmp_path), str(tmp_path / "fold_0")]) as runs:
        assert [run.name for run in runs] == ["fold_0", "fold_2", "fold_10", "fold_0"]
