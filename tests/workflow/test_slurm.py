"""The workflow on a real Slurm of two nodes: the same results as without, what Slurm is asked for, what it ends."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.remote.server import wait_for
from tests.slurm_cluster import Cluster, install_plugin, running_slurm
from tests.workflow.conftest import (
    ROOT,
    SMALL_CONFIG,
    SMALL_ROWS,
    make_project,
    run_snakemake,
    snakemake,
    write_request,
)
from tests.workflow.test_docker import results

pytestmark = pytest.mark.system
PROFILE = ["--workflow-profile", str(ROOT / "profiles/slurm"), "--slurm-init-seconds-before-status-checks", "1"]
BAD = "bad\tdata/bad/images\t\t\ttiny"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return install_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def cluster(plugin):
    with running_slurm(plugin) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, cluster):
    """A project with one bad data set, and its run by Slurm, which goes on beside the first tests: it mostly waits."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("slurm")
    make_project(folder, SMALL_CONFIG, [*SMALL_ROWS, BAD])
    Path("data/bad/images").mkdir(parents=True)
    Path("data/bad/images/1.tif").write_bytes(next(Path("data/train/images").iterdir()).read_bytes()[:3000])
    with open("said.txt", "w") as said:
        process = cluster.start(*snakemake(*PROFILE), stdout=said, stderr=said)
    os.chdir(before)
    yield SimpleNamespace(folder=folder, process=process)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def done(whole_run, cluster):
    """The same after its end: folder, exit code, what was said, what Slurm says of the jobs."""
    code = whole_run.process.wait(600)
    jobs = cluster.jobs("--states=all", "--partition=main", form="%k %N")
    said = (whole_run.folder / "said.txt").read_text()
    return SimpleNamespace(folder=whole_run.folder, code=code, said=said, jobs=jobs)


WAIT = """
for _ in range(3000):
    if pathlib.Path("go").exists():
        break
    pathlib.Path("started").touch()
    __import__("time").sleep(0.1)
"""
TARGET = "logs/m/fold_0"
# The whole run beside these tests uses the main partition.
ONE = [TARGET, "--default-resources", "slurm_partition=other"]
OTHER = "--partition=other"


@pytest.fixture
def steps(stand_in, tmp_path, plugin):
    """A folder for PYTHONPATH with steps that do nothing, except that trainings wait for a file `go`."""
    shutil.copytree(stand_in, tmp_path / "steps")
    train = tmp_path / "steps/biom3d/train.py"
    train.write_text(train.read_text().replace("broken =", f"{WAIT}\nbroken =", 1))
    return {"PYTHONPATH": f"{tmp_path / 'steps'}:{plugin}"}


@pytest.fixture
def running(whole_run, folder, cluster, steps):
    """A run by Slurm of which a training with two GPUs is at work; what comes before it has run here."""
    write_request("gpu: 2\nmodels: {m: {folds: 1}}\n")
    before = run_snakemake("--cores", "2", "--notemp", "logs/m/plan.yaml", **steps)
    assert before.returncode == 0, before.stderr
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with cluster.start(*snakemake(*PROFILE, *ONE), environ=steps, **streams) as running:
        wait_for(Path("started").exists, "a training at work", 120)
        yield running
        running.kill()
    cluster.empty(OTHER)


def run_again(cluster: Cluster, steps: dict[str, str], *options: str) -> "subprocess.CompletedProcess[str]":
    return cluster.run(*snakemake(*PROFILE, *ONE, *options), **steps)


def test_what_rules_and_configuration_ask_for_reaches_slurm(running, cluster):
    asked = cluster.run("scontrol", "show", "job", "--details", cluster.jobs(OTHER)[0]).stdout.split()
    wanted = {"NumCPUs=8", "MinMemoryNode=16000M", "TimeLimit=2-00:00:00", "TresPerJob=gres:gpu:2", "Partition=other"}
    assert wanted <= set(asked)


def test_a_job_that_somebody_cancels_is_told_and_the_next_run_takes_it_up(running, cluster, steps):
    number = cluster.jobs(OTHER)[0]
    assert cluster.run("scancel", number).returncode == 0
    said, _ = running.communicate(timeout=120)
    assert f"train m/fold_0: Slurm ended job {number}: somebody cancelled it; run again" in said
    assert "Traceback" not in said
    Path("go").touch()
    assert run_again(cluster, steps).returncode == 0
    assert Path(TARGET).exists()


def test_ctrl_c_leaves_no_job_of_ours_in_the_queue_not_even_one_that_the_plugin_forgot(running, cluster):
    submit = ["sbatch", "--parsable", OTHER, "--output", "/dev/null", "--wrap", "sleep 600"]
    assert cluster.run(*submit, "--comment", "rule_forgotten").returncode == 0
    own = cluster.run(*submit).stdout.strip()
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=120)
    assert cluster.jobs(OTHER) == [own]
    assert "Traceback" not in said


def test_jobs_of_a_killed_snakemake_are_not_run_beside_themselves(running, cluster, steps):
    running.kill()
    running.communicate()
    numbers = cluster.jobs(OTHER)
    assert run_again(cluster, steps, "--unlock").returncode == 0
    again = run_again(cluster, steps)
    assert again.returncode == 1
    assert f"scancel {numbers[0]} " in again.stderr
    assert cluster.jobs(OTHER) == numbers


def test_results_by_slurm_equal_those_of_this_python_bit_for_bit(in_this_python, done):
    ours, theirs = results(in_this_python), results(done.folder)
    assert set(ours) <= set(theirs)
    wanted = [name for name in ours if name.startswith(("data/pred", "results/tiny/new/metrics", "results/summary"))]
    assert len(wanted) > 4
    assert [name for name in wanted if ours[name] != theirs[name]] == []


def test_the_bad_data_set_fails_alone_and_the_table_names_it(done):
    lines = (done.folder / "logs/outcome.txt").read_text().splitlines()
    assert done.code == 1
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["bad", "tiny", "failed"],
        ["(training)", "tiny", "passed"],
        ["new", "tiny", "passed"],
    ]


def test_what_the_failed_step_said_on_its_node_is_shown_here(done):
    assert "data/bad/images/1.tif': the file is damaged or cut off" in done.said
    assert "Traceback" not in done.said


def test_every_step_is_a_job_of_its_own_that_squeue_shows_by_its_name(done):
    names = [line.split()[0].removeprefix("rule_") for line in done.jobs]
    assert len(names) == 14
    assert {"check_wildcards_bad", "train_wildcards_tiny_0", "train_wildcards_tiny_1", "summary"} <= set(names)


def test_both_nodes_are_used(done):
    assert {line.split()[-1] for line in done.jobs} == {"n1", "n2"}


def test_arrays_that_only_trainings_read_are_removed_after_the_last(done):
    assert not (done.folder / "data/preprocessed/tiny").exists()


def test_once_the_bad_row_is_off_there_is_nothing_to_do_but_the_summaries(done, cluster, monkeypatch):
    monkeypatch.chdir(done.folder)
    write_request(SMALL_CONFIG, SMALL_ROWS)
    assert cluster.run(*snakemake(*PROFILE)).returncode == 0
    assert "Nothing to be done" in cluster.run(*snakemake(*PROFILE)).stderr


def test_without_slurm_one_line_says_where_to_go(folder, tmp_path, plugin):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "which"):
        (programs / name).symlink_to(shutil.which(name))
    done = run_snakemake(*PROFILE, PATH=str(programs), PYTHONPATH=str(plugin))
    assert done.returncode == 1
    assert "there is no 'sbatch' on this machine; run Snakemake on a login node of the cluster" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_plugin_snakemake_ends_with_the_line_that_our_page_explains(folder):
    said = run_snakemake("--workflow-profile", str(ROOT / "profiles/slurm")).stderr.strip().splitlines()[-1]
    message = "argument --executor/-e: invalid choice: 'slurm'"
    assert message in said
    assert message in (ROOT / "docs/slurm.md").read_text()


def test_biom3d_itself_is_refused_without_containers(folder, plugin):
    write_request("engine: upstream-0.1.2\nmodels: {m: {folds: 1}}\n")
    done = run_snakemake(*PROFILE, PYTHONPATH=str(plugin))
    assert done.returncode == 1
    assert "engine 'upstream-0.1.2' runs only in its image" in done.stderr
