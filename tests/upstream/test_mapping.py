"""Biom3d's names <-> ours: pure functions."""

import math
from typing import Any

import pytest
from biom3d_upstream import mapping

from biom3d.training.checkpoint import LOG_COLUMNS

LOG = "epoch,train_loss,val_loss,val_iou,val_dice\n0,0.9,0.5,0.1,0.2\n1,0.7,0.4,0.2,0.3\n2,0.6,0.45,0.2,0.3\n"
FOLDS = "filename,hold_out,fold\na.tif,0,1\nb.tif,0,0\nc.tif,0,1\nd.tif,0,0\n"


def config() -> dict[str, Any]:
    """What its preprocess makes, the keys that matter."""
    paths = {"img_path": "data/img_out", "msk_path": "data/msk_out", "fg_path": "data/fg_out", "folds_csv": "f.csv"}
    return {
        "IMG_PATH": "data/img_out", "MSK_PATH": "data/msk_out", "FG_PATH": "data/fg_out", "CSV_DIR": "f.csv",
        "DESC": "m", "NUM_CLASSES": 1, "NUM_CHANNELS": 1, "BATCH_SIZE": 2, "PATCH_SIZE": [32, 64, 64],
        "AUG_PATCH_SIZE": [96, 96, 96], "NUM_POOLS": [3, 4, 4], "NB_EPOCHS": 1000, "NUM_WORKERS": 6, "FOLD": 0,
        "USE_SOFTMAX": True, "LOG_DIR": "logs/",
        "TRAIN_DATASET": {"fct": "SegPatchFast", "kwargs": {**paths, "patch_size": [32, 64, 64], "nbof_steps": 250}},
        "VAL_DATASET": {"fct": "SegPatchFast", "kwargs": {**paths, "fold": 0, "nbof_steps": 50}},
        "TRAIN_DATALOADER_KWARGS": {"batch_size": 2, "num_workers": 6},
        "VAL_DATALOADER_KWARGS": {"batch_size": 2, "num_workers": 3},
        "MODEL": {"kwargs": {"num_pools": [3, 4, 4], "num_classes": 2, "factor": 32, "in_planes": 1}},
        "PREDICTOR": {"fct": "SegPatch", "kwargs": {"patch_size": [32, 64, 64], "tta": True}},
        "POSTPROCESSOR": {"fct": "Seg", "kwargs": {"use_softmax": True, "keep_biggest_only": True}},
    }  # fmt: skip


def test_nested_blocks_that_agree_stay_as_they_are():
    assert mapping.with_twins(config()) == config()


def test_nested_blocks_follow_the_upper_case_keys():
    edited = mapping.with_twins(config() | {"PATCH_SIZE": [16, 32, 32], "NUM_CLASSES": 3})
    assert edited["TRAIN_DATASET"]["kwargs"]["patch_size"] == [16, 32, 32]
    assert edited["PREDICTOR"]["kwargs"]["patch_size"] == [16, 32, 32]
    assert edited["MODEL"]["kwargs"]["num_classes"] == 4


def test_a_plan_has_paths_that_do_not_depend_on_the_machine():
    plan = mapping.plan_of(config(), None, mapping.Wishes())
    assert plan["IMG_PATH"] == plan["TRAIN_DATASET"]["kwargs"]["img_path"] == "images_out"


def test_wishes_reach_every_place_that_holds_them():
    wishes = mapping.Wishes(num_epochs=3, num_steps=10, patch_size=(16, 32, 32), batch_size=4, width=8)
    plan = mapping.plan_of(config(), None, wishes)
    assert (plan["NB_EPOCHS"], plan["NUM_POOLS"], plan["AUG_PATCH_SIZE"]) == (3, [2, 3, 3], [48, 48, 48])
    assert [plan[k]["kwargs"]["nbof_steps"] for k in ("TRAIN_DATASET", "VAL_DATASET")] == [10, 2]
    assert plan["TRAIN_DATALOADER_KWARGS"]["batch_size"] == 4
    assert plan["MODEL"]["kwargs"]["factor"] == 8


def test_a_given_plan_decides_the_model_and_the_data_decide_the_rest():
    base = config() | {"NB_EPOCHS": 7, "DESC": "old", "NUM_CHANNELS": 5, "TRAINED_ON_VERSION": "0.1.2"}
    plan = mapping.plan_of(config() | {"NB_EPOCHS": 1}, base, mapping.Wishes())
    assert (plan["NB_EPOCHS"], plan["DESC"], plan["NUM_CHANNELS"]) == (7, "m", 1)
    assert "TRAINED_ON_VERSION" not in plan


@pytest.mark.parametrize(
    ("patch", "pools", "larger"),
    [
        ((32, 64, 64), [3, 4, 4], [96, 96, 96]),
        ((32, 128, 128), [3, 5, 5], [32, 181, 181]),
        ((14, 384, 384), [1, 5, 5], [14, 543, 543]),
        ((1, 512, 512), [0, 5, 5], [1, 724, 724]),
    ],
)
def test_pools_and_larger_patch_are_those_of_biom3d(patch, pools, larger):
    assert (mapping.pools_of(patch), mapping.larger_patch_of(patch)) == (pools, larger)


def test_a_training_reads_the_data_folder_it_is_given(tmp_path):
    made = mapping.training_config(config(), tmp_path, fold=2, workers=3)
    assert made["VAL_DATASET"]["kwargs"]["fold"] == made["FOLD"] == 2
    assert made["TRAIN_DATASET"]["kwargs"]["folds_csv"] == str(tmp_path / "folds.csv")
    assert made["VAL_DATALOADER_KWARGS"]["num_workers"] == 1


@pytest.mark.parametrize(("threads", "free", "workers"), [(8, 10**12, 6), (2, 10**12, 1), (1, 10**12, 0), (8, 0, 0)])
def test_loader_processes_fit_threads_and_shared_memory(threads, free, workers):
    assert mapping.choose_workers(threads, free, mapping.bytes_of_batch(config())) == workers


def test_a_prediction_sets_mirroring_and_what_is_kept_and_leaves_the_model_alone():
    trained = config()
    made = mapping.prediction_config(trained, tta=False, keep="big")
    assert made["PREDICTOR"]["kwargs"]["tta"] is False
    assert made["POSTPROCESSOR"]["kwargs"] == {"use_softmax": True, "keep_biggest_only": False, "keep_big_only": True}
    assert trained == config()


def test_its_own_folds_are_kept_where_they_fit():
    assert mapping.fold_table(FOLDS, 2) == mapping.fold_table(FOLDS, 1) == (FOLDS, False)


def test_another_number_of_folds_is_dealt_out_anew_and_evenly():
    table, is_new = mapping.fold_table(FOLDS, 4)
    assert is_new
    assert mapping.folds_in(table) == [0, 1, 2, 3]


def test_more_folds_than_volumes_are_refused():
    with pytest.raises(ValueError, match="4 volumes"):
        mapping.fold_table(FOLDS, 5)


def test_names_keep_their_order():
    assert mapping.safe_names(["a.v1", "b c"]) == ["a_v1", "b_c"]
    assert mapping.safe_names(["a.b", "a_b"]) == ["00000", "00001"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("log/20261123-200051-prints.txt", "log/prints.txt"),
        ("log/events.out.tfevents.179.vm.3.0", "log/events.out.tfevents.0"),
        ("model/m_best.pth", "model/m_best.pth"),
        ("model/m_12_best.pth", None),
        ("model/m_12.pth", None),
    ],
)
def test_no_name_of_a_run_holds_a_clock(theirs, ours):
    assert mapping.run_name(theirs) == ours


def test_a_line_that_is_being_written_is_no_epoch():
    assert len(mapping.curve_rows(LOG + "3,0.5")) == 3


def test_columns_of_the_curve_are_columns_of_ours():
    assert set(mapping.curve_rows(LOG)[0]) <= set(LOG_COLUMNS)


def test_the_best_epoch_has_the_lowest_loss_that_is_a_number():
    rows = mapping.curve_rows(LOG)
    assert mapping.best_epoch(rows) == 1
    assert mapping.best_epoch([{"epoch": 0, "val_loss": math.nan}]) is None


def test_printed_lines_are_understood():
    assert mapping.saved_image("Saved images in out/model_0/v1.tif") == "v1.tif"
    assert mapping.printed_scores(["Metric computation for: a b", "Metric result: 0.5"]) == [0.5]
