"""The whole workflow in containers: the same results as without, and Biom3d 0.1.2 itself behind the same rules."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from biom3d import demo
from tests.workflow.conftest import ROOT, SMALL_CONFIG, make_project, run_snakemake

pytestmark = pytest.mark.system
# What a run writes about itself (times, folders); all else must be there in both.
NOTES = (".snakemake_timestamp", ".biom3d-predictions.json")
OWN = ("logs/steps", "logs/outcome", ".snakemake", "config", "data/train", "data/my")


@pytest.fixture(scope="module")
def folders(in_this_python, tmp_path_factory, cpu_image):
    """Two folders with the same project, run in this Python and in containers."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("docker")
    make_project(folder, SMALL_CONFIG)
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/docker"))
    assert done.returncode == 0, done.stderr
    yield {"local": in_this_python, "docker": folder}
    os.chdir(before)


def results(folder: Path) -> dict[str, str]:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path for name, path in files.items() if not name.startswith(OWN) and path.name not in NOTES}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def test_predictions_and_metrics_are_equal_bit_for_bit(folders):
    ours, theirs = results(folders["local"]), results(folders["docker"])
    assert sorted(ours) == sorted(theirs)
    assert len([name for name in ours if name.startswith("data/pred") and name.endswith(".tif")]) == 2
    wanted = [name for name in ours if name.startswith(("data/pred", "results/tiny/new/metrics", "results/summary"))]
    assert [name for name in wanted if ours[name] != theirs[name]] == []


def test_every_step_ran_in_its_container_and_left_its_log_and_benchmark(folders):
    logs = {str(path.relative_to(folders["local"])) for path in (folders["local"] / "logs/steps").rglob("*")}
    assert {str(path.relative_to(folders["docker"])) for path in (folders["docker"] / "logs/steps").rglob("*")} == logs


def test_the_report_says_which_jobs_ran_in_an_image_of_ours(folders):
    pages = {name: (folder / "report.html").read_text(encoding="utf-8") for name, folder in folders.items()}
    assert {name: "in an image of ours" in page for name, page in pages.items()} == {"local": False, "docker": True}


def test_a_second_run_has_nothing_to_do(folders, monkeypatch):
    monkeypatch.chdir(folders["docker"])
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/docker"))
    assert "Nothing to be done" in done.stderr


def test_the_preprocessed_arrays_are_gone_at_the_end(folders):
    assert not (folders["docker"] / "data/preprocessed").exists()
    assert list((folders["docker"] / ".snakemake/biom3d/jobs").iterdir()) == []


def test_the_demo_gives_the_same_predictions_in_containers(tmp_path, monkeypatch, cpu_image):
    """The real volumes of `make demo`, with a shorter training."""
    wheels = ROOT / ".cache"
    short = (ROOT / "config/config.yaml").read_text().replace("num_epochs: 10\n", "num_epochs: 2\n")
    for profile in ("local", "docker"):
        folder = tmp_path / profile
        (folder / "config").mkdir(parents=True)
        monkeypatch.chdir(folder)
        assert demo.main(["data/demo", "--cache", str(wheels)]) == 0
        (folder / "config/config.yaml").write_text(short)
        (folder / "config/datasets.tsv").write_text((ROOT / "config/datasets.tsv").read_text())
        done = run_snakemake("--workflow-profile", str(ROOT / "profiles" / profile))
        assert done.returncode == 0, done.stderr
    ours, theirs = results(tmp_path / "local"), results(tmp_path / "docker")
    predicted = [name for name in ours if name.startswith("data/pred/nuclei/demo_test/")]
    assert len(predicted) == 4
    assert [name for name in predicted if ours[name] != theirs[name]] == []


def test_biom3d_itself_runs_behind_the_same_rules(tmp_path, monkeypatch, cpu_image, upstream_image):
    monkeypatch.chdir(tmp_path)
    options = "folds: 2, num_epochs: 1, num_steps: 2, width: 4, patch_size: [16, 32, 32]"
    make_project(tmp_path, f"engine: upstream-0.1.2\nmodels:\n  tiny: {{{options}}}\n")
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/docker"))
    assert done.returncode == 0, done.stderr + (tmp_path / "logs/outcome.txt").read_text()
    metrics = json.loads((tmp_path / "results/tiny/new/metrics.json").read_text())
    assert metrics
    assert len(list((tmp_path / "data/pred/tiny/new").glob("*.tif"))) == 2


def test_biom3d_itself_is_refused_without_containers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, f"engine: upstream-0.1.2\n{SMALL_CONFIG}")
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/local"))
    assert done.returncode == 1
    assert "engine 'upstream-0.1.2' runs only in its image" in done.stderr
    assert "Traceback" not in done.stderr
