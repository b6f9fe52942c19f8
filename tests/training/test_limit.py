import csv
import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biom3d.config import PlanRequest, load_plan
from biom3d.planning.length import FIRST_TOLERANCE
from biom3d.train import main
from biom3d.training import loop
from tests.training.conftest import REQUEST, make_data, make_plan_file
from tests.training.test_train import curve, same, weights

ENDLESS = dataclasses.replace(REQUEST, num_epochs=1_000_000, num_steps=2, max_minutes=0.03)


def run(plan_file, data, target, *more) -> int:
    return main(["--config", str(plan_file), "--data_dir", str(data), "--run_dir", str(target), *more])


def seconds(run_dir):
    with open(run_dir / "log" / "log.csv", newline="") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with data, and a training that had a limit."""
    folder = tmp_path_factory.mktemp("limit")
    make_data(folder / "data")
    make_plan_file(folder / "plan.yaml", ENDLESS)
    assert run(folder / "plan.yaml", folder / "data", folder / "run") == 0
    return folder


@pytest.fixture
def limited(shared):
    return shared / "run"


@pytest.fixture
def data(shared):
    return shared / "data"


def test_a_training_ends_at_its_limit_whatever_the_speed(limited):
    took = seconds(limited)
    assert sum(took) <= 60 * 0.03 * FIRST_TOLERANCE + max(took)
    plan = load_plan(limited / "plan.yaml")
    assert len(took) == plan.num_epochs < ENDLESS.num_epochs
    assert f"{plan.num_epochs} of" in plan.why["num_epochs"] or plan.earlier_lengths


def test_the_rate_falls_to_the_end_of_the_fitted_length(limited):
    plan, rates = load_plan(limited / "plan.yaml"), [float(row["learning_rate"]) for row in curve(limited)]
    assert rates[-1] == pytest.approx(plan.learning_rate * (1 / plan.num_epochs) ** 0.9)


def test_another_training_from_the_plan_in_the_model_folder_is_equal(limited, data, tmp_path):
    assert run(limited / "plan.yaml", data, tmp_path / "again") == 0
    assert curve(tmp_path / "again") == curve(limited)
    assert same(weights(tmp_path / "again"), weights(limited))


def test_a_killed_one_goes_on_with_the_length_it_had(tmp_path, data):
    make_plan_file(tmp_path / "plan.yaml", ENDLESS)
    alike = ["--threads", "1"]  # bits depend on it, and an earlier test may have set it in this process
    command = [sys.executable, "-m", "biom3d.train", "--config", tmp_path / "plan.yaml", "--data_dir", data, *alike]
    process = subprocess.Popen([*command, "--run_dir", tmp_path / "run"], stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "run.partial" / "log" / "log.csv", time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = load_plan(tmp_path / "run.partial" / "plan.yaml")
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run", *alike) == 0
    after = load_plan(tmp_path / "run" / "plan.yaml")
    assert (after.fitted_from, after.num_steps) == (before.fitted_from, before.num_steps)
    assert before.num_epochs in (after.num_epochs, *(length for _, length in after.earlier_lengths))
    assert run(tmp_path / "run" / "plan.yaml", data, tmp_path / "again", *alike) == 0
    assert same(weights(tmp_path / "again"), weights(tmp_path / "run"))


def test_a_machine_that_becomes_slow_ends_in_time_and_says_so(tmp_path, data, monkeypatch, capfd):
    """Slower than measured: every epoch of the real training sleeps, the trial that measures does not."""
    make_plan_file(tmp_path / "plan.yaml", ENDLESS)
    real = loop.validate

    def slow(training):
        if training.rows or training.plan.fitted_from:
            time.sleep(0.3)
        return real(training)

    monkeypatch.setattr(loop, "validate", slow)
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run") == 0
    assert "slower than at the start" in capfd.readouterr().err
    took, plan = seconds(tmp_path / "run"), load_plan(tmp_path / "run" / "plan.yaml")
    assert sum(took) <= 60 * 0.03 * FIRST_TOLERANCE + max(took)
    assert len(took) == plan.num_epochs < plan.earlier_lengths[0][1]


def test_a_finished_one_goes_on_when_its_plan_has_more_epochs(limited, tmp_path):
    limited = Path(shutil.copytree(limited, tmp_path / "run"))
    path = limited / "plan.yaml"
    before = load_plan(path).num_epochs
    path.write_text(path.read_text().replace(f"num_epochs: {before}\n", f"num_epochs: {before + 1}\n", 1))
    assert main(["--log", str(limited)]) == 0
    assert len(curve(limited)) == before + 1


def test_the_option_limits_a_plan_without_one(tmp_path, data):
    request = PlanRequest(**{**dataclasses.asdict(ENDLESS), "max_minutes": None})
    make_plan_file(tmp_path / "plan.yaml", request)
    assert run(tmp_path / "plan.yaml", data, tmp_path / "run", "--max_minutes", "0.02") == 0
    assert load_plan(tmp_path / "run" / "plan.yaml").max_minutes == 0.02


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "plan.yaml", "--max_minutes", "0"], "--max_minutes 0.0: wanted more than 0"),
        (["--log", "run", "--max_minutes", "3"], "give it with --config"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_plan_file(tmp_path / "plan.yaml")
    assert main(words) == 2
    assert message in capsys.readouterr().err
