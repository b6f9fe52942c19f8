import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from biom3d.config import load_plan, read_yaml, save_plan
from biom3d.planning.length import continued
from biom3d.train import main
from tests.training.conftest import REQUEST, make_data, make_plan_file


def run(plan_file, data, target, *more) -> int:
    return main(["--config", str(plan_file), "--data_dir", str(data), "--run_dir", str(target), *more])


def curve(run_dir):
    with open(run_dir / "log" / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(run_dir, name="boxes.pth"):
    return torch.load(run_dir / "model" / name, weights_only=True)["model"]


def same(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_training_leaves_a_model_folder(tmp_path, plan_file, data):
    assert run(plan_file, data, tmp_path / "run") == 0
    made = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert made == {
        "plan.yaml",
        "log/config.yaml",
        "log/folds.csv",
        "log/log.csv",
        "log/made_by.json",
        "model/boxes.pth",
        "model/boxes_best.pth",
    }
    assert [row["epoch"] for row in curve(tmp_path / "run")] == ["0", "1", "2"]
    assert not (tmp_path / "run.partial").exists()


def test_it_learns(tmp_path, data):
    request = dataclasses.replace(REQUEST, num_epochs=6, num_steps=10)
    make_plan_file(tmp_path / "plan.yaml", request)
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run") == 0
    assert float(curve(tmp_path / "run")[-1]["val_dice"]) > 0.8


def test_equal_seeds_give_equal_numbers(tmp_path, plan_file, data):
    for name in ("a", "b"):
        assert run(plan_file, data, tmp_path / name) == 0
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_another_seed_gives_other_numbers(tmp_path, plan_file, data):
    make_plan_file(tmp_path / "other.yaml", dataclasses.replace(REQUEST, seed=1))
    assert run(plan_file, data, tmp_path / "a") == 0
    assert run(tmp_path / "other.yaml", data, tmp_path / "b") == 0
    assert curve(tmp_path / "a") != curve(tmp_path / "b")


@pytest.mark.system
def test_a_killed_training_resumes_and_ends_as_if_nothing_had_happened(tmp_path, plan_file, data):
    alike = ["--threads", "1"]  # bits depend on it, and an earlier test may have set it in this process
    assert run(plan_file, data, tmp_path / "whole", *alike) == 0
    command = [sys.executable, "-m", "biom3d.train", "--config", plan_file, "--data_dir", data, *alike]
    command += ["--run_dir", tmp_path / "killed"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "killed.partial" / "log" / "log.csv", time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    assert run(plan_file, data, tmp_path / "killed", *alike) == 0
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_a_training_begun_before_there_was_a_prior_correction_goes_on(tmp_path, plan_file, data, capfd):
    assert run(plan_file, data, tmp_path / "run") == 0
    (tmp_path / "run").rename(tmp_path / "next.partial")
    path = tmp_path / "next.partial" / "model" / "boxes.pth"
    state = torch.load(path, weights_only=True)
    del state["plan"]["prior_correction"]
    torch.save(state, path)
    assert run(plan_file, data, tmp_path / "next") == 0
    assert "resuming" in capfd.readouterr().err


def test_a_partial_training_of_another_plan_is_not_taken_up(tmp_path, plan_file, data, capfd):
    assert run(plan_file, data, tmp_path / "run") == 0
    (tmp_path / "run").rename(tmp_path / "next.partial")
    make_plan_file(tmp_path / "other.yaml", dataclasses.replace(REQUEST, learning_rate=0.001))
    assert run(tmp_path / "other.yaml", data, tmp_path / "next") == 0
    assert "resuming" not in capfd.readouterr().err
    assert float(curve(tmp_path / "next")[0]["learning_rate"]) == 0.001


def test_a_partial_training_on_other_volumes_is_not_taken_up(tmp_path, plan_file, data, capfd):
    assert run(plan_file, data, tmp_path / "run") == 0
    (tmp_path / "run").rename(tmp_path / "next.partial")
    plan = load_plan(plan_file)
    facts = dataclasses.replace(plan.fingerprint, class_voxels=(1, 2))
    save_plan(dataclasses.replace(plan, fingerprint=facts), tmp_path / "other.yaml")
    assert run(tmp_path / "other.yaml", data, tmp_path / "next") == 0
    assert "resuming" not in capfd.readouterr().err


def test_a_finished_training_goes_on_when_its_plan_has_more_epochs(tmp_path, plan_file, data):
    assert run(plan_file, data, tmp_path / "run") == 0
    plan = load_plan(tmp_path / "run" / "plan.yaml")
    save_plan(dataclasses.replace(plan, num_epochs=4), tmp_path / "run" / "plan.yaml")
    assert main(["--log", str(tmp_path / "run")]) == 0
    assert len(curve(tmp_path / "run")) == 4


@pytest.fixture
def longer(tmp_path):
    """A plan as that of `plan_file`, but for more epochs."""
    make_plan_file(tmp_path / "longer.yaml", dataclasses.replace(REQUEST, num_epochs=5))
    return tmp_path / "longer.yaml"


def test_a_longer_training_goes_on_with_a_shorter_one_and_leaves_that_alone(tmp_path, plan_file, data, longer, capfd):
    short, long = tmp_path / "short", tmp_path / "long"
    assert run(plan_file, data, short) == 0
    before = (short / "model/boxes.pth").read_bytes()
    assert run(longer, data, long, "--continue_from", str(short)) == 0
    assert f"goes on with the 3 epochs of '{short}', to 5" in capfd.readouterr().err
    assert curve(long)[:3] == curve(short)
    rates = [float(row["learning_rate"]) for row in curve(long)]
    assert rates[3:] == [pytest.approx(rates[0] * (1 - epoch / 5) ** 0.9) for epoch in (3, 4)]
    plan = load_plan(long / "plan.yaml")
    assert (plan.num_epochs, plan.earlier_lengths) == (5, ((3, 3),))
    assert plan.why["num_epochs"] == "5 were asked for; the first 3 are those of a finished training"
    assert (short / "model/boxes.pth").read_bytes() == before


def test_a_killed_longer_training_goes_on_where_it_was(tmp_path, plan_file, data, longer, monkeypatch, capfd):
    from biom3d.training import loop

    assert run(plan_file, data, tmp_path / "short") == 0
    assert run(longer, data, tmp_path / "whole", "--continue_from", str(tmp_path / "short")) == 0
    once = loop.validate
    monkeypatch.setattr(loop, "validate", lambda training: once(training) if len(training.rows) < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(longer, data, tmp_path / "long", "--continue_from", str(tmp_path / "short"))
    monkeypatch.setattr(loop, "validate", once)
    assert run(longer, data, tmp_path / "long", "--continue_from", str(tmp_path / "short")) == 0
    assert "after epoch 4 of 5" in capfd.readouterr().err
    assert same(weights(tmp_path / "long"), weights(tmp_path / "whole"))


def test_the_same_training_is_taken_as_it_is(tmp_path, plan_file, data, longer, capfd):
    """Also one that had gone on with a shorter one, which its plan tells."""
    assert run(plan_file, data, tmp_path / "short") == 0
    assert run(longer, data, tmp_path / "long", "--continue_from", str(tmp_path / "short")) == 0
    for plan, name in ((plan_file, "short"), (longer, "long")):
        capfd.readouterr()
        assert run(plan, data, tmp_path / f"{name}-again", "--continue_from", str(tmp_path / name)) == 0
        told = capfd.readouterr().err
        assert f"'{tmp_path / name}' is this training, of the same arrays; it is taken as it is" in told
        assert "loss" not in told  # no epoch
        best = [tmp_path / folder / "model/boxes_best.pth" for folder in (name, f"{name}-again")]
        assert best[0].read_bytes() == best[1].read_bytes()
        assert curve(tmp_path / name) == curve(tmp_path / f"{name}-again")
        for file in ("plan.yaml", "log/training_set.json"):
            one, other = (tmp_path / folder / file for folder in (name, f"{name}-again"))
            assert one.exists() == other.exists()
            assert not one.exists() or one.read_text() == other.read_text()


def test_what_is_not_the_same_but_shorter_is_not_gone_on_with(tmp_path, plan_file, data, longer, capfd):
    make_plan_file(tmp_path / "other.yaml", dataclasses.replace(REQUEST, seed=1, num_epochs=1))
    assert run(tmp_path / "other.yaml", data, tmp_path / "other") == 0
    assert run(longer, data, tmp_path / "long", "--continue_from", str(tmp_path / "other")) == 0
    assert "is of another plan, of other images or longer; this training starts anew" in capfd.readouterr().err
    assert load_plan(tmp_path / "long/plan.yaml").earlier_lengths == ()


def test_a_longer_training_keeps_the_optimiser_that_was_chosen_for_the_shorter(tmp_path):
    facts = dataclasses.asdict(make_plan_file(tmp_path / "a.yaml"))
    long = make_plan_file(tmp_path / "b.yaml", dataclasses.replace(REQUEST, num_epochs=900))
    assert (facts["optimizer"], long.optimizer) == ("adamw", "sgd")
    plan = continued(long, facts)
    assert (plan.optimizer, plan.learning_rate, plan.num_epochs) == ("adamw", facts["learning_rate"], 900)
    asked = dataclasses.replace(long, request=dataclasses.replace(long.request, optimizer="sgd"))
    assert continued(asked, facts) is None


def test_fine_tuning_starts_from_the_weights_of_another_model(tmp_path, plan_file, data):
    assert run(plan_file, data, tmp_path / "base") == 0
    make_plan_file(tmp_path / "slow.yaml", dataclasses.replace(REQUEST, num_epochs=1, num_steps=1, learning_rate=1e-9))
    assert run(tmp_path / "slow.yaml", data, tmp_path / "tuned", "--log", str(tmp_path / "base")) == 0
    best, tuned = weights(tmp_path / "base", "boxes_best.pth"), weights(tmp_path / "tuned")
    assert all(torch.allclose(best[name], tuned[name], atol=1e-6) for name in best)


def test_adamw_trains_too(tmp_path, data):
    make_plan_file(tmp_path / "plan.yaml", dataclasses.replace(REQUEST, optimizer="adamw", num_epochs=1))
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run") == 0


def test_events_tell_every_epoch(tmp_path, plan_file, data):
    assert run(plan_file, data, tmp_path / "run", "--events", str(tmp_path / "e.jsonl")) == 0
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    epochs = [e for e in events if e["event"] == "epoch"]
    assert [(e["epoch"], e["of"]) for e in epochs] == [(1, 3), (2, 3), (3, 3)]
    assert {"loss", "dice", "eta_s", "t", "step"} <= set(epochs[0])


def test_a_loss_that_is_not_a_number_stops_with_an_error(tmp_path, data, capfd):
    make_plan_file(tmp_path / "plan.yaml", dataclasses.replace(REQUEST, learning_rate=1e30))
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run") == 1
    assert "set a smaller learning_rate" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_finished_model_is_never_overwritten(tmp_path, plan_file, data, capfd):
    assert run(plan_file, data, tmp_path / "run") == 0
    before = weights(tmp_path / "run")
    assert run(plan_file, data, tmp_path / "run") == 2
    assert "exists; choose another --run_dir" in capfd.readouterr().err
    assert same(before, weights(tmp_path / "run"))


def test_a_second_training_in_the_same_folder_is_refused(tmp_path, plan_file, data, capfd):
    import fcntl

    (tmp_path / "run.partial").mkdir()
    with open(tmp_path / "run.partial" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(plan_file, data, tmp_path / "run") == 2
    assert "another training works in" in capfd.readouterr().err


def test_a_damaged_checkpoint_is_named(tmp_path, plan_file, data, capfd):
    assert run(plan_file, data, tmp_path / "run") == 0
    (tmp_path / "run" / "model" / "boxes.pth").write_bytes(b"no checkpoint")
    assert main(["--log", str(tmp_path / "run")]) == 2
    message = capfd.readouterr().err
    assert "boxes.pth' is damaged" in message
    assert "Traceback" not in message


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path, plan_file, data, capfd):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    assert run(plan_file, data, tmp_path / "run") == 0
    torch.save({"model": Evil()}, tmp_path / "run" / "model" / "boxes.pth")
    assert main(["--log", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "owned").exists()


def test_more_labels_than_classes_are_refused(tmp_path, plan_file, data, capfd):
    import numpy as np

    mask = np.load(data / "masks" / "v0.npy")
    np.save(data / "masks" / "v0.npy", mask * 2)
    np.savez(data / "foreground" / "v0.npz", **{"2": np.argwhere(mask[0])})
    assert run(plan_file, data, tmp_path / "run") == 2
    assert "'v0' has label 2, the plan 1 class(es)" in capfd.readouterr().err


def test_the_model_folder_speaks_the_language_of_biom3d(tmp_path, plan_file, data):
    assert run(plan_file, data, tmp_path / "run") == 0
    config = read_yaml(tmp_path / "run" / "log" / "config.yaml")
    assert config["MODEL"] == {
        "fct": "UNet3DVGGDeep",
        "kwargs": {"num_pools": [1, 2, 2], "num_classes": 2, "factor": 4, "use_deep": False, "in_planes": 1},
    }
    assert (config["PATCH_SIZE"], config["FOLD"], config["NUM_CLASSES"]) == ([8, 16, 16], 0, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --config PLAN"),
        (["--config", "nowhere.yaml"], "cannot read 'nowhere.yaml'"),
        (["--log", "nowhere"], "give a model folder made by train"),
        (["--config", "x", "-n", "seg_pred_eval"], "run train, then pred, then eval"),
        (["--config", "x", "-fr"], "encoder pre-training is not offered"),
    ],
)
def test_wrong_options_are_explained(options, words, capfd):
    assert main(options) == 2
    message = capfd.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_an_object_of_one_voxel_in_ten_thousand_is_learned(tmp_path):
    import numpy as np

    data = make_data(tmp_path / "data")
    for i in range(4):
        mask = np.zeros((1, 32, 64, 64), np.uint8)
        mask[0, 10 + i, 20:24, 30:33] = 1  # 12 of 131,072
        noise = np.random.default_rng(i).normal(size=mask.shape)
        np.save(data / "images" / f"v{i}.npy", (noise + 8.0 * mask).astype(np.float32))
        np.save(data / "masks" / f"v{i}.npy", mask)
        np.savez(data / "foreground" / f"v{i}.npz", **{"1": np.argwhere(mask[0])})
    make_plan_file(tmp_path / "plan.yaml", dataclasses.replace(REQUEST, num_epochs=4, num_steps=20))
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run", "--threads", "1") == 0
    assert float(curve(tmp_path / "run")[-1]["val_dice"]) > 0.5
