"""Biom3d 0.1.2 itself, in its image, as a user without name or home, without network, on a read-only root."""

import csv
import json
from pathlib import Path

import docker
import numpy as np
import pytest
import tifffile

from biom3d.io import read_header, read_labels
from tests.upstream.conftest import SHAPE, write_set

pytestmark = pytest.mark.system
UID = 12345
PREPROCESS = (
    "python -m biom3d_upstream.preprocess --img_path data/train/images --msk_path data/train/masks --num_classes 1"
    " --folds 2 --num_epochs 2 --num_steps 2 --max_dim 128 --optimizer sgd --seed 0 --patch_size 16 32 32 --width 4"
    " --desc m --out_dir data/preprocessed/m --plan_out logs/m/plan.yaml"
)
TRAIN = (
    "python -m biom3d_upstream.train --config logs/m/plan.yaml --data_dir data/preprocessed/m --fold {0}"
    " --run_dir logs/m/fold_{0} --threads 2 --events train_{0}.jsonl"
)
PREDICT = (
    "python -m biom3d_upstream.pred --log {} --out_dir {} --path_in data/test/images --no_tta --keep none --threads 2"
)
EVALUATE = (
    "python -m biom3d_upstream.eval --path_pred data/pred/m/test --path_lab data/test/masks --num_classes 1"
    " --out_csv results/m/test/metrics.csv --out_json results/m/test/metrics.json"
)


def run_in(client: docker.DockerClient, image: str, folder: Path, command: str) -> tuple[int, str]:
    """Run a command in the image; return its exit code and log."""
    container = client.containers.run(
        image,
        ["bash", "-c", command],
        detach=True,
        user=f"{UID}:{UID}",
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},
        volumes={str(folder): {"bind": str(folder), "mode": "rw"}},
        working_dir=str(folder),
    )
    try:
        return container.wait(timeout=500)["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module")
def done(docker_client, upstream_image, tmp_path_factory) -> Path:
    """A folder in which all steps have run."""
    folder = tmp_path_factory.mktemp("upstream")
    write_set(folder / "data/train", 4)
    write_set(folder / "data/test", 2)
    folder.chmod(0o777)
    (folder / "data").chmod(0o777)
    runs = ["logs/m/fold_0", "logs/m/fold_1"]
    predict = [PREDICT.format(" ".join(runs), "data/pred/m/test"), PREDICT.format(runs[0], "data/pred/m/one")]
    # Biom3d's own command on the same model, for comparison; a folder beside, since it writes caches
    plain = (
        "mkdir -p direct/home && export USER=me LOGNAME=me HOME=$PWD/direct/home MPLCONFIGDIR=$PWD/direct/home"
        " NUMBA_CACHE_DIR=$PWD/direct"
        " && python -m biom3d.pred --log logs/m/fold_0 --path_in data/test/images --path_out direct"
    )
    tta = PREDICT.format(runs[0], "data/pred/m/tta").replace("--no_tta", "--tta")
    steps = [PREPROCESS, TRAIN.format(0), TRAIN.format(1), *predict, tta, EVALUATE, plain]
    code, log = run_in(docker_client, upstream_image, folder, " && ".join(steps))
    assert code == 0, log[-5000:]
    return folder


def test_the_run_folder_has_names_without_a_clock(done):
    run = done / "logs/m/fold_0"
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"log/config.yaml", "log/log.csv", "log/folds.csv", "model/m.pth", "model/m_best.pth"} <= names
    assert not any("2026" in name or "-m" in name for name in names)


def test_nothing_half_done_is_left(done):
    assert not list(done.rglob("*.partial"))


def test_no_file_belongs_to_root(done):
    assert {path.stat().st_uid for path in (done / "logs").rglob("*")} == {UID}


def test_every_epoch_is_an_event(done):
    events = [json.loads(line) for line in (done / "train_0.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2]
    assert events[-1]["event"] == "done"


def test_predictions_have_shape_and_voxel_size_of_their_images(done):
    for path in (done / "data/test/images").iterdir():
        header = read_header(done / "data/pred/m/test" / path.name)
        assert header.shape == (1, *SHAPE)
        assert header.spacing_um == pytest.approx((0.5, 0.25, 0.25))


def test_a_prediction_is_that_of_the_command_of_biom3d(done):
    for path in (done / "direct/fold_0").iterdir():
        ours = read_labels(done / "data/pred/m/tta" / path.name).array[0]
        assert np.array_equal(ours, tifffile.imread(path).astype(np.uint8))


def test_the_scores_are_those_of_our_formula(done):
    for row in csv.DictReader((done / "results/m/test/metrics.csv").open()):
        pred = read_labels(done / "data/pred/m/test" / f"{row['case']}.tif").array[0] > 0
        true = tifffile.imread(done / "data/test/masks" / f"{row['case']}.tif") > 0
        dice = (2 * (pred & true).sum() + 1) / (pred.sum() + true.sum() + 1)  # it adds 1 to both
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        "report curves --log logs/m/fold_0 logs/m/fold_1 --out curves.png",
        "report overlay --path_pred data/pred/m/test --path_in data/test/images --path_lab data/test/masks"
        " --metrics results/m/test/metrics.json --out_dir overlays",
        "report summary --metrics results/m/test/metrics.json --out summary.csv",
        "export model --log logs/m/fold_0 logs/m/fold_1 --out m.zip",
        "export labels --path_pred data/pred/m/test --path_in data/test/images --out_dir labels",
    ],
)
def test_our_later_steps_work_on_its_results(done, monkeypatch, words):
    from biom3d.cli import main

    monkeypatch.chdir(done)
    assert main(words.split()) == 0


def test_a_training_stopped_by_sigterm_goes_on_where_it_was(done, docker_client, upstream_image):
    folder, run = done, "logs/m/stopped"
    train = TRAIN.format(0).replace("logs/m/fold_0", run).replace("train_0", "stopped").replace("--config", "-c")
    longer = "sed 's/NB_EPOCHS: 2/NB_EPOCHS: 4/' logs/m/plan.yaml > longer.yaml"
    train = train.replace("logs/m/plan.yaml", "longer.yaml")
    watch = "until grep -qs '\"epoch\": 2,' stopped.jsonl; do kill -0 $pid || exit 1; sleep 0.1; done"
    first = f"{longer}; {train} & pid=$!; {watch}; kill -TERM $pid; wait $pid; test $? = 130 && ! test -e {run}"
    code, log = run_in(docker_client, upstream_image, folder, f"({first}) && {train}")
    assert code == 0, log[-5000:]
    assert "resuming after epoch" in log
    with (folder / run / "log/log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]
