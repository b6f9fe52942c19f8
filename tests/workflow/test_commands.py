import importlib
import shlex

import pytest
from biom3d_workflow import commands, schema
from biom3d_workflow.project import Model
from biom3d_workflow.table import Dataset

HARD = Dataset("d", "-my data/it's [1]", "$m/ü", spacing_um=(2, 0.5, 0.5))
PLAIN = Dataset("d", "im", "msk")
ALL_SET = {
    "memory_target_gb": 8.0, "patch_size": [8, 16, 16], "batch_size": 2, "width": 8, "ct_norm": True, "is_2d": True,
    "tta": True, "scores": True, "instances": True, "optimizer": "adamw", "learning_rate": 0.01,
    "plan": "p lan.yaml", "fine_tune": "logs/o/fold_0",
}  # fmt: skip


def model(**options):
    return Model("m", schema.option_defaults() | options)


def test_options_left_to_the_engine_are_not_given():
    expected = "--img_path im --msk_path msk --num_classes 1 --folds 5 --num_epochs 100 --num_steps 250 --max_dim 128"
    assert commands.preprocess(model(), [PLAIN]) == expected + " --seed 0"


def test_a_given_plan_is_changed_only_by_what_the_model_says_itself():
    options = schema.option_defaults() | {"plan": "mine.yaml", "num_epochs": 7}
    words = commands.preprocess(Model("m", options, frozenset({"plan", "num_epochs"})), [PLAIN])
    assert words == "--img_path im --msk_path msk --base_config mine.yaml --folds 5 --num_epochs 7"


def test_a_preset_brings_its_own_limit_of_the_patch():
    words = commands.preprocess(model(preset="small"), [PLAIN])
    assert ("--preset small" in words, "--max_dim" in words) == (True, False)


def test_a_limit_that_the_model_says_itself_goes_before_its_preset():
    options = schema.option_defaults() | {"preset": "small", "max_dim": 32}
    assert "--max_dim 32" in commands.preprocess(Model("m", options, frozenset({"preset", "max_dim"})), [PLAIN])


def test_fine_tuning_takes_the_plan_of_the_other_model():
    words = commands.preprocess(model(fine_tune="logs/o/fold_0"), [PLAIN])
    assert words == "--img_path im --msk_path msk --base_config logs/o/fold_0/plan.yaml --folds 5"


def test_a_whole_number_written_as_a_fraction_stays_whole():
    assert "--num_epochs 3 " in commands.preprocess(model(num_epochs=3.0), [PLAIN])


def test_every_data_set_of_a_training_is_given():
    assert commands.preprocess(model(), [PLAIN, HARD]).startswith("--img_path im './-my data/it'")


def test_paths_survive_the_shell():
    words = shlex.split(commands.check(HARD, {}) if not HARD.masks else commands.evaluate(model(), HARD))
    assert words[1] == "$m/ü"


def test_a_path_with_a_leading_dash_is_no_option():
    assert shlex.split(commands.predict(model(), HARD))[1] == "./-my data/it's [1]"


def test_the_array_of_a_file_follows_its_path():
    row = Dataset("d", "a.h5", "b.zarr", ("m",), image_key="volumes/raw", mask_key="labels/x")
    assert shlex.split(commands.check(row, {"m": model()}))[:4] == [
        *("--img_path", "a.h5:volumes/raw", "--msk_path", "b.zarr:labels/x"),
    ]
    assert commands.predict(model(), row).startswith("--path_in a.h5:volumes/raw ")
    assert commands.evaluate(model(), row).startswith("--path_lab b.zarr:labels/x ")


def test_a_row_that_trains_is_predicted_by_the_folds_that_did_not_see_it():
    both = Dataset("d", "im", "msk", train=("m",), predict=("m",))
    assert [("--models unseen" in commands.predict(model(), row)) for row in (both, PLAIN)] == [True, False]
    assert "--models" not in commands.predict(model(), both, is_ours=False)


def test_without_masks_there_is_no_truth_to_show():
    assert commands.overlay(model(), Dataset("d", "im"), quality=["q.csv"]) == "--path_in im --quality q.csv"


STEPS = [
    ("preprocess", commands.preprocess(model(**ALL_SET), [HARD]), "--desc m --out_dir a --plan_out b"),
    ("train", commands.train(model(**ALL_SET), 2), "--config p --data_dir d --fold 0 --run_dir r --threads 2"),
    ("pred", commands.predict(model(**ALL_SET), HARD), "--log a b --out_dir c --threads 2"),
    ("eval", commands.evaluate(model(), HARD), "--path_pred p --out_csv c --out_json j"),
    ("report", "overlay " + commands.overlay(model(instances=True), HARD, ["m.json"]), "--path_pred p --out_dir o"),
    ("export.__main__", "labels " + commands.export_labels(model(), HARD), "--path_pred p --out_dir o"),
    ("check", commands.check(Dataset("d", "i", "k", ("m",)), {"m": model()}), "--out o.json"),
]


@pytest.mark.parametrize(("step", "options", "rest"), STEPS, ids=[step for step, _, _ in STEPS])
def test_the_step_takes_what_the_rule_gives(step, options, rest):
    module = importlib.import_module(f"biom3d.{step}")
    module.build_parser().parse_args([*shlex.split(options), *shlex.split(rest), "--events", "e.jsonl"])


def test_masks_without_a_model_are_not_judged():
    assert commands.check(PLAIN, {}) == "--img_path im --skip_bad"


def test_a_training_has_a_process_for_each_of_several_graphics_cards():
    assert [commands.train(model(), gpus) for gpus in (0, 1, 2)] == ["", "", "--processes 2"]
