import dataclasses

import pytest
import yaml

from biom3d.compat.model import read_model, read_plan
from biom3d.compat.write import biom3d_config
from biom3d.config import DataPaths, Normalisation, Plan
from biom3d.errors import ConfigError

PLAN = Plan(
    "m", 2, 1, False, (0.5, 0.3, 0.2), (8, 16, 16), 2, (2, 3, 3), 8, Normalisation(), 2, 3, 4, 1, "sgd", 0.01,
    data=DataPaths("i", "m", "", "f.csv"),
)  # fmt: skip


def write(folder, change=lambda values: None, plan=PLAN):
    values = biom3d_config(plan, 0)
    change(values)
    (folder / "log").mkdir()
    (folder / "log" / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_our_configuration_says_to_biom3d_what_the_plan_says(tmp_path):
    plan = read_plan(write(tmp_path) / "log" / "config.yaml")
    for key in ("num_classes", "num_channels", "patch_size", "num_pools", "width", "spacing_um", "num_steps", "data"):
        assert getattr(plan, key) == getattr(PLAN, key), key


def test_a_plan_for_adamw_says_to_biom3d_what_suits_its_sgd(tmp_path):
    plan = dataclasses.replace(PLAN, optimizer="adamw", learning_rate=0.003, weight_decay=0.01)
    found = read_plan(write(tmp_path, plan=plan) / "log" / "config.yaml")
    assert (found.optimizer, found.learning_rate, found.weight_decay) == ("sgd", 0.01, 3e-5)
    assert biom3d_config(plan, 0)["WEIGHT_DECAY"] == 3e-5  # ours does not read it


def test_ct_scaling_goes_there_and_back(tmp_path):
    normal = Normalisation("ct", (1.0,), (9.0,), (4.0,), (2.0,))
    model = read_model(write(tmp_path, plan=dataclasses.replace(PLAN, normalisation=normal)))
    assert (model.clip, model.moments, model.plan.normalisation) == ((1.0, 9.0), (4.0, 2.0), normal)


def test_spacing_is_turned_from_xyz_to_zyx(tmp_path):
    assert read_model(write(tmp_path)).spacing == (0.5, 0.3, 0.2)


@pytest.mark.parametrize("nothing", [0, [], None])
def test_every_way_to_have_no_spacing_is_known(tmp_path, nothing):
    run = write(tmp_path, lambda values: values["PREPROCESSOR"]["kwargs"].update(median_spacing=nothing))
    assert read_model(run).spacing is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["MODEL"].update(fct="SwinUNETR"), "MODEL is 'SwinUNETR', we have 'UNet3DVGGDeep'"),
        (lambda v: v["PREDICTOR"].update(fct="Seg"), "PREDICTOR is 'Seg'"),
        (lambda v: v.pop("PREPROCESSOR"), "PREPROCESSOR is missing"),
        (lambda v: v["MODEL"]["kwargs"].update(roll_strides=False), "before August 2023"),
        (lambda v: v["MODEL"]["kwargs"].update(num_classes=7), "7 outputs for 2 classes"),
        (lambda v: v.update(PATCH_SIZE=[8, 16]), "PATCH_SIZE"),
        (lambda v: v.update(NUM_CLASSES="two"), "NUM_CLASSES is 'two'; wanted a whole number"),
    ],
)
def test_what_we_cannot_predict_is_refused_by_name(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        read_model(write(tmp_path, change))
