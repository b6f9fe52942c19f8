"""The screen before a run: what is trained, predicted, replaced, how long."""

import io
import re
import shutil
from pathlib import Path

import pytest
from biom3d_workflow import records
from biom3d_workflow.announce import Todo, ask, describe
from biom3d_workflow.forecast import THREADS, duration_text, read_times, size_text

from tests.workflow.conftest import ROOT

A, B = "A\tdata/a/images\tdata/a/masks\tm", "B\tdata/b/images\tdata/b/masks\t\tm"
TRAIN = [Todo("train", {"model": "m", "fold": str(fold)}) for fold in range(2)]
PREDICT = Todo("predict", {"model": "m", "dataset": "B"})
CONFIG = "models: {m: {folds: 2, num_epochs: 10, num_steps: 5}}"


@pytest.fixture
def screen(request_of):
    def make(*jobs: Todo, rows: list[str] | None = None, cores: int | None = 2) -> dict[str, str]:
        text, _ = describe(request_of(CONFIG, rows or [A, B]), jobs, cores)
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()[1:] if line.strip()}

    return make


def put_run(seconds: float, epochs: int, steps: int = 5, name: str = "fold_0") -> None:
    folder = Path("logs/m", name, "log")
    folder.mkdir(parents=True)
    rows = [f"{epoch},0.{50 + epoch},{seconds}" for epoch in range(epochs)]
    (folder / "log.csv").write_text("\n".join(["epoch,val_dice,seconds", *rows]) + "\n")
    (folder.parent / "plan.yaml").write_text(f"num_steps: {steps}\n")


def put_benchmark(path: str, seconds: float) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")


def test_trainings_predictions_and_the_rest_are_counted(screen):
    told = screen(*TRAIN, PREDICT, *[Todo("check", {"dataset": "B"})] * 2, Todo("qualities", {}), Todo("all", {}))
    assert (told["train"], told["predict"], told["besides"]) == (
        "m: 2 folds of 10 epochs",
        "1 data set with m",
        "2 checks, 1 list of unusual volumes",
    )


def test_a_model_that_is_replaced_is_told_with_what_it_cost(request_of):
    put_run(60, 3)
    jobs = [Todo("train", {"model": "m", "fold": "0"}, ("logs/m/fold_0",))]
    text, models = describe(request_of(CONFIG, [A, B]), jobs, 2)
    wanted = "  replaces trained model 'm' (3 epochs, Dice 0.52, 3 min); it is kept until the new one is whole"
    assert (text.splitlines()[-1], models) == (wanted, ["m"])


def test_nobody_is_asked_about_a_training_that_only_gets_longer(request_of):
    put_run(60, 3)
    project = request_of(CONFIG, [A, B])
    records.write("logs/m/fold_0", {"params": [repr("made of: sets [x]; num_epochs 3; fold 0")]})
    jobs = [Todo("train", {"model": "m", "fold": "0"}, ("logs/m/fold_0",), "made of: sets [x]; num_epochs 10; fold 0")]
    text, models = describe(project, jobs, 2)
    assert ("goes on with trained model 'm'" in text, models) == (True, [])


def test_a_training_that_goes_on_says_so(screen):
    Path("logs/m/fold_0.partial").mkdir(parents=True)
    assert screen(*TRAIN)["train"] == "m: 2 folds of 10 epochs; goes on where it was stopped"


def test_predictions_that_are_made_again_are_counted(request_of):
    Path("data/pred/m/B").mkdir(parents=True)
    text, models = describe(request_of(CONFIG, [A, B]), [Todo("predict", PREDICT.wildcards, ("data/pred/m/B",))], 2)
    assert (text.splitlines()[-1], models) == ("  replaces 1 prediction", [])


def test_rows_that_cannot_be_read_are_named(screen):
    assert screen(PREDICT, rows=[A, B, "C\tnowhere\t\t\tm"])["left"].startswith("out  C: images: folder 'nowhere' not")


def test_without_any_measured_job_the_time_is_not_known(screen):
    assert screen(PREDICT)["time"] == "not known: no job of this kind has been measured here yet"


def test_the_time_is_that_of_earlier_jobs_on_these_cores(screen):
    put_benchmark("logs/steps/predict/m/X.tsv", 60)
    put_benchmark("logs/steps/check/X.tsv", 4)
    check = [Todo("check", {"dataset": "B"})] * 10
    assert screen(PREDICT, *check)["time"] == "about 80 s with 2 cores, by what was measured here"
    assert screen(PREDICT, cores=None)["time"] == "about 60 s of computing, added up, by what was measured here"


def test_a_training_takes_what_its_epochs_took_and_more_for_more_of_them(screen):
    put_run(30, 2, steps=10, name="fold_0.partial")
    assert (
        screen(*TRAIN)["time"] == "about 5 min with 2 cores, by what was measured here"
    )  # 2 x 10 x 30 s, half the steps


def test_a_model_of_which_no_epoch_is_known_is_measured(request_of):
    text, _ = describe(request_of(CONFIG, [A, B]), TRAIN, 2, {"m": 600.0}.get)
    assert "about 20 min with 2 cores, by what was measured here" in text


def test_a_limit_of_time_is_told_and_bounds_the_forecast(request_of):
    project = request_of(CONFIG.replace("num_steps: 5", "num_steps: 5, max_minutes: 3"), [A, B])
    for folder, seconds, told in (
        ("none", 0, "about 6 min"),
        ("fold_0", 600, "about 6 min"),
        ("fold_1", 6, "about 2 min"),
    ):
        if seconds:
            put_run(seconds, 2, name=folder)
        text, _ = describe(project, TRAIN, 2)
        assert "m: 2 folds of 10 epochs, at most 3 min each" in text
        assert told in text
        shutil.rmtree("logs", ignore_errors=True)


def test_what_has_not_been_measured_is_named(screen):
    put_benchmark("logs/steps/check/X.tsv", 200)
    told = screen(*TRAIN, Todo("check", {"dataset": "B"}))["time"]
    assert told.endswith(", without train, never measured here")


def test_times_of_the_same_model_go_before_those_of_others(folder):
    put_benchmark("logs/steps/predict/o/X.tsv", 5)
    assert (read_times("predict", "m"), read_times("predict", "o")) == ([5], [5])
    put_benchmark("logs/steps/predict/m/X.tsv", 7)
    assert read_times("predict", "m") == [7]


def test_sizes_are_those_of_the_images(screen):
    Path("data/b/images/1.tif").write_bytes(b"x" * 2000)
    assert screen(PREDICT)["data"].startswith("3 images, 2.0 kB; results take up to 6.0 kB; ")


def test_what_goes_to_a_host_is_told_before_the_start(request_of):
    for name in ("a/images/1", "a/masks/1", "b/images/1"):
        Path(f"data/{name}.tif").write_bytes(b"x" * 1000)
    jobs = [Todo("preprocess", {"model": "m"}), PREDICT]
    project = request_of(CONFIG, [A, B])
    assert (
        "  send     up to 3.0 kB; what is there already is not sent again"
        in describe(project, jobs, None, is_sent=True)[0]
    )
    assert "  send " not in describe(project, jobs, None)[0]


def test_threads_are_those_of_the_rules():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    found = {
        name: int(count)
        for name, count in re.findall(r"^rule (\w+):.*?threads: (\d+)", rules, re.DOTALL | re.MULTILINE)
    }
    assert {name: count for name, count in found.items() if count > 1} == THREADS


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (80, "80 s"), (700, "12 min"), (11400, "3 h 10 min"), (190000, "2 days 4 h")]
)
def test_durations_are_written_in_the_units_that_matter(seconds, text):
    assert duration_text(seconds) == text


def test_sizes_are_written_with_their_unit():
    assert [size_text(size) for size in (12, 1.2e9)] == ["12 bytes", "1.2 GB"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_replacement_is_agreed_to_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert ask("the plan", ["m"])
    assert "the plan" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_replaced(monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(ValueError, match="nothing was changed; m stays as it is"):
        ask("the plan", ["m"])


def test_where_nobody_is_there_nobody_is_asked(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert not ask("the plan", ["m"])
