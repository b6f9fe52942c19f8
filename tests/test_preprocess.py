import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from biom3d import check, preprocess, preprocess_train
from biom3d.config import load_plan
from biom3d.data.identity import identify_file
from biom3d.data.learned import read_training_set
from biom3d.io import Header, write_labels, write_volume
from biom3d.synth import main as synth

SPACING = (0.5, 0.25, 0.25)


def header(shape, spacing=SPACING):
    return Header((1, *shape), np.dtype("uint16"), "ZYX" if shape[0] > 1 else "YX", spacing)


def make_set(folder: Path, names=("a", "b", "c", "d"), shape=(16, 24, 24), suffix=".tif", spacing=SPACING) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        labels = np.zeros(shape, np.uint8)
        labels[shape[0] // 4 : -(shape[0] // 4) or None, 6:16, 6:16] = 1
        image = (rng.normal(100, 5, (1, *shape)) + 50 * labels).astype(np.uint16)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        write_volume(folder / "images" / f"{name}{suffix}", image, header(shape, spacing))
        write_labels(folder / "masks" / f"{name}{suffix}", labels, header(shape, spacing))
    return folder


def run(folder: Path, *options: str) -> int:
    paths = ["--img_path", str(folder / "images"), "--msk_path", str(folder / "masks")]
    out = ["--out_dir", str(folder / "pre"), "--plan_out", str(folder / "plan.yaml")]
    return preprocess.main([*paths, *out, "--folds", "2", "--desc", "m", *options])


def names_in(folder: Path) -> list[str]:
    with open(folder / "pre" / "folds.csv", newline="") as file:
        return [row["filename"] for row in csv.DictReader(file)]


def test_every_case_becomes_image_mask_and_foreground(tmp_path):
    assert run(make_set(tmp_path)) == 0
    assert names_in(tmp_path) == ["a.npy", "b.npy", "c.npy", "d.npy"]
    image, mask = np.load(tmp_path / "pre/images/a.npy"), np.load(tmp_path / "pre/masks/a.npy")
    assert (image.shape, image.dtype) == ((1, 16, 24, 24), np.float32)
    assert (mask.shape, mask.dtype) == ((1, 16, 24, 24), np.uint8)
    voxels = np.load(tmp_path / "pre/foreground/a.npz")["1"]
    assert (mask[0][tuple(voxels.T)] == 1).all()


def test_an_image_without_mask_teaches_nothing(tmp_path, capfd):
    make_set(tmp_path)
    (tmp_path / "masks" / "c.tif").unlink()
    assert run(tmp_path) == 0
    assert names_in(tmp_path) == ["a.npy", "b.npy", "d.npy"]
    assert "3 of 4 images have a mask: these teach" in capfd.readouterr().err


def test_the_record_of_the_training_set_tells_each_volume_by_its_voxels(tmp_path):
    assert run(make_set(tmp_path)) == 0
    record = read_training_set(tmp_path / "pre" / "training_set.json")
    with open(tmp_path / "pre" / "folds.csv", newline="") as file:
        folds = {row["filename"].removesuffix(".npy"): (int(row["fold"]),) for row in csv.DictReader(file)}
    assert {volume.name: volume.folds for volume in record.volumes} == folds
    assert [v.digest for v in record.volumes] == [identify_file(tmp_path / "images" / f"{n}.tif") for n in "abcd"]


def test_the_record_says_what_the_objects_look_like(tmp_path):
    assert run(make_set(tmp_path)) == 0
    facts = read_training_set(tmp_path / "pre" / "training_set.json").volumes[0].facts
    box = 8 * 10 * 10
    assert facts.classes[1].share == pytest.approx(box / (16 * 24 * 24))
    assert (facts.classes[1].objects, facts.classes[1].size) == (1, pytest.approx(box * 0.5 * 0.25 * 0.25))


def test_a_volume_that_is_cut_is_in_the_folds_of_all_its_blocks(tmp_path):
    assert run(make_set(tmp_path, ("a",))) == 0
    assert read_training_set(tmp_path / "pre" / "training_set.json").volumes[0].folds == (0, 1)


def test_images_are_normalised(tmp_path):
    assert run(make_set(tmp_path)) == 0
    image = np.load(tmp_path / "pre/images/a.npy")
    assert image.mean() == pytest.approx(0, abs=1e-4)
    assert image.std() == pytest.approx(1, abs=1e-3)


def test_the_plan_tells_facts_and_request(tmp_path):
    assert run(make_set(tmp_path), "--num_epochs", "7", "--width", "4") == 0
    plan = load_plan(tmp_path / "plan.yaml")
    assert (plan.desc, plan.num_epochs, plan.width, plan.spacing_um) == ("m", 7, 4, SPACING)
    assert sum(plan.fingerprint.class_voxels) == 4 * 16 * 24 * 24


def test_volumes_of_another_spacing_are_resampled_to_the_median(tmp_path):
    make_set(tmp_path, ("a", "b", "c"))
    make_set(tmp_path, ("d",), spacing=(1.0, 0.25, 0.25))
    assert run(tmp_path) == 0
    assert np.load(tmp_path / "pre/images/d.npy").shape == (1, 32, 24, 24)
    assert np.load(tmp_path / "pre/masks/d.npy").shape == (1, 32, 24, 24)


def test_given_spacing_counts_more_than_that_of_the_files(tmp_path):
    assert run(make_set(tmp_path), "--spacing", "3", "1", "1") == 0
    assert load_plan(tmp_path / "plan.yaml").spacing_um == (3.0, 1.0, 1.0)


def test_ct_scales_all_volumes_alike(tmp_path):
    assert run(make_set(tmp_path), "--ct_norm") == 0
    plan = load_plan(tmp_path / "plan.yaml")
    assert plan.normalisation.scheme == "ct"
    assert plan.normalisation.mean[0] == pytest.approx(150, abs=2)


def test_an_edited_plan_is_fed_back(tmp_path):
    assert run(make_set(tmp_path)) == 0
    text = (tmp_path / "plan.yaml").read_text().replace("batch_size: 2", "batch_size: 3")
    (tmp_path / "mine.yaml").write_text(text)
    assert run(tmp_path, "--base_config", str(tmp_path / "mine.yaml"), "--num_epochs", "9") == 0
    plan = load_plan(tmp_path / "plan.yaml")
    assert (plan.batch_size, plan.num_epochs) == (3, 9)


def test_another_optimiser_than_that_of_an_edited_plan_brings_its_rate(tmp_path):
    assert run(make_set(tmp_path), "--num_epochs", "1") == 0
    (tmp_path / "plan.yaml").rename(tmp_path / "mine.yaml")
    assert run(tmp_path, "--base_config", str(tmp_path / "mine.yaml"), "--optimizer", "sgd") == 0
    plan = load_plan(tmp_path / "plan.yaml")
    assert (plan.optimizer, plan.learning_rate, plan.weight_decay) == ("sgd", 0.01, 3e-5)
    assert plan.why["optimizer"] == "asked for"


def test_a_plan_for_other_channels_is_refused(tmp_path, capfd):
    assert run(make_set(tmp_path)) == 0
    text = (tmp_path / "plan.yaml").read_text().replace("num_channels: 1", "num_channels: 2")
    (tmp_path / "mine.yaml").write_text(text)
    assert run(tmp_path, "--base_config", str(tmp_path / "mine.yaml")) == 2
    assert "made for 2 channel(s) in 3D, the data are 1 channel(s) in 3D" in capfd.readouterr().err


def test_a_single_volume_is_cut_into_blocks(tmp_path, capfd):
    assert run(make_set(tmp_path, ("only",), (16, 24, 48))) == 0
    assert names_in(tmp_path) == ["only_block1.npy", "only_block2.npy"]
    assert np.load(tmp_path / "pre/images/only_block1.npy").shape == (1, 16, 24, 24)
    assert "each is cut into 2 blocks" in capfd.readouterr().err


def test_a_volume_too_small_for_blocks_is_refused(tmp_path, capfd):
    make_set(tmp_path, ("only",), (8, 20, 20))
    assert run(tmp_path, "--folds", "5") == 2
    assert "too small to be cut into 5 blocks" in capfd.readouterr().err


def test_2d_images_get_a_2d_plan(tmp_path):
    assert run(make_set(tmp_path, shape=(1, 64, 64)), "--is_2d", "True") == 0
    plan = load_plan(tmp_path / "plan.yaml")
    assert (plan.is_2d, plan.patch_size[0], plan.num_pools[0]) == (True, 1, 0)


def test_a_second_run_replaces_the_first(tmp_path):
    assert run(make_set(tmp_path)) == 0
    (tmp_path / "images" / "d.tif").unlink()
    (tmp_path / "masks" / "d.tif").unlink()
    assert run(tmp_path) == 0
    assert names_in(tmp_path) == ["a.npy", "b.npy", "c.npy"]
    assert not (tmp_path / "pre/images/d.npy").exists()


def test_a_failed_run_leaves_the_old_result(tmp_path, capfd):
    assert run(make_set(tmp_path)) == 0
    (tmp_path / "images" / "d.tif").write_bytes(b"no image")
    assert run(tmp_path) == 2
    assert "d.tif" in capfd.readouterr().err
    assert names_in(tmp_path) == ["a.npy", "b.npy", "c.npy", "d.npy"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".tmp")]


def test_what_biom3d_users_type_works(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(make_set(tmp_path))
    options = ["--img_dir", "images/", "--msk_dir", "masks/", "--num_classes", "1", "--desc", "nuclei", "--remote"]
    assert preprocess.main(options) == 0
    batch, patch, around, pools, config = capsys.readouterr().out.splitlines()
    assert (batch, patch, around, pools) == ("2", "[16 24 24]", "[16, 24, 24]", "[2 2 2]")
    plan = load_plan(config)
    assert Path(config).parent == Path("configs")
    assert (plan.data.images, plan.data.masks, plan.data.folds) == ("images_out", "masks_out", "folds.csv")
    assert (tmp_path / "images_out" / "a.npy").exists()


@pytest.mark.parametrize("option", ["--use_one_hot", "--remove_bg", "--no_auto_config", "--skip_preprocessing"])
def test_options_that_are_not_offered_say_what_to_do(tmp_path, option, capfd):
    assert run(make_set(tmp_path), option) == 2
    assert f"{option} is not offered" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num_epochs", "0"], "--num_epochs 0: wanted at least 1"),
        (["--learning_rate", "-1"], "wanted more than 0"),
        (["--patch_size", "10", "24", "0"], "wanted three values above 0"),
        (["--spacing", "0", "1", "1"], "wanted three values above 0, in µm"),
        (["--base_config", "nowhere.yaml"], "cannot read 'nowhere.yaml'"),
        (["--is_2d", "True"], "the volumes have a z axis"),
    ],
)
def test_wrong_options_are_explained(tmp_path, options, words, capfd):
    assert run(make_set(tmp_path), *options) == 2
    message = capfd.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_everything_in_one_go(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert synth(["s", "--count", "2", "--shape", "16", "24", "24", "--cells", "3"]) == 0
    options = ["--img_path", "s/images", "--msk_path", "s/masks", "--num_epochs", "1", "--num_steps", "1"]
    assert preprocess_train.main([*options, "--folds", "2", "--width", "4", "--run_dir", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "run"
    assert (tmp_path / "run" / "model" / "unet_default_best.pth").exists()


def test_the_digest_tells_other_volumes(tmp_path):
    assert run(make_set(tmp_path)) == 0
    first = load_plan(tmp_path / "plan.yaml").fingerprint.digest
    assert run(tmp_path) == 0
    assert load_plan(tmp_path / "plan.yaml").fingerprint.digest == first
    image = np.full((1, 16, 24, 24), 7, np.uint16)
    image[0, 3, 3, 3] = 9
    write_volume(tmp_path / "images" / "a.tif", image, header((16, 24, 24)))
    assert run(tmp_path) == 0
    assert load_plan(tmp_path / "plan.yaml").fingerprint.digest != first


@pytest.mark.parametrize("step", ["preprocess", "check"])
def test_a_mask_that_is_stored_the_other_way_round_is_refused(tmp_path, step, capfd):
    make_set(tmp_path, ("a", "b"), suffix=".nii.gz")
    mask = nibabel.load(tmp_path / "masks" / "a.nii.gz")
    flipped = nibabel.Nifti1Image(np.asarray(mask.dataobj)[::-1], mask.affine @ np.diag([-1, 1, 1, 1]))
    nibabel.save(flipped, tmp_path / "masks" / "a.nii.gz")
    options = ["--img_path", str(tmp_path / "images"), "--msk_path", str(tmp_path / "masks")]
    assert (run(tmp_path) if step == "preprocess" else check.main(options)) == 2
    assert "a.nii.gz': its axes point elsewhere" in capfd.readouterr().err


def spoil(folder: Path) -> None:
    """Damage an image, give a mask another size, and take the image of a mask away."""
    path = folder / "images" / "a.tif"
    path.write_bytes(path.read_bytes()[:1000])
    (folder / "images" / "c.tif").unlink()
    write_labels(folder / "masks" / "b.tif", np.ones((8, 8, 8), np.uint8), header((8, 8, 8)))


def test_bad_volumes_are_left_out_named_and_recorded_where_that_is_wanted(tmp_path, capsys):
    spoil(make_set(tmp_path, "abcdef"))
    assert run(tmp_path) == 2
    assert run(tmp_path, "--skip_bad") == 0
    assert names_in(tmp_path) == ["d.npy", "e.npy", "f.npy"]
    fingerprint = load_plan(tmp_path / "plan.yaml").fingerprint
    named = [Path(text.split("'")[1]).name for text in fingerprint.left_out]
    assert (fingerprint.num_volumes, sorted(named)) == (3, ["a.tif", "b.tif", "c.tif"])
    assert capsys.readouterr().err.count("warning: left out: ") == 3


def test_where_every_volume_is_bad_they_are_refused_all_the_same(tmp_path, capsys):
    spoil(make_set(tmp_path, "abc"))
    assert run(tmp_path, "--skip_bad") == 2
    assert "3 problems with the data set" in capsys.readouterr().err


def test_a_class_that_only_validation_holds_is_told(tmp_path, capfd):
    make_set(tmp_path)
    labels = np.zeros((16, 24, 24), np.uint8)
    labels[:4] = 2
    write_labels(tmp_path / "masks" / "c.tif", labels, header((16, 24, 24)))
    assert run(tmp_path, "--num_classes", "2") == 0
    with open(tmp_path / "pre" / "folds.csv", newline="") as file:
        fold = next(row["fold"] for row in csv.DictReader(file) if row["filename"] == "c.npy")
    said = capfd.readouterr().err
    assert f"fold {fold}: class 2 is only in the volumes that validate it" in said
    assert said.count("is only in the volumes") == 1


def test_a_volume_that_cannot_be_held_is_named_before_it_is_read(tmp_path, capsys):
    assert run(make_set(tmp_path), "--memory_limit", "0.01") == 2
    words = capsys.readouterr().err
    assert "4 of 4 volumes cannot be used" in words
    assert "a.tif': its preprocessing needs" in words
    assert "--memory_limit allows 0.0 GB" in words
