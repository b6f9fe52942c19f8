"""The executor plugin over SSH as Snakemake sees it: its own test classes, and what a user does at the terminal."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase
from snakemake_executor_plugin_host import ExecutorSettings

from biom3d.remote.job import LABEL
from tests.remote.server import names_in, wait_for
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]
pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def nothing_left(account):
    """What a test leaves, as one does that presses Ctrl-C twice, is not in the way of the next."""
    yield
    for name in ("stopped", "arrays", "fold 0", "fold 1", "fold 2"):
        for container in our_containers(name, account):
            container.remove(force=True)
    shutil.rmtree(account.home / "stopped", ignore_errors=True)


class TestOverSSH(TestWorkflowsLocalStorageBase):
    """Snakemake's tests of an executor: single jobs, and groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def use_host(self, client, with_engine, base_image):
        self.client, self.image = client, base_image

    def get_executor(self):
        return "host"

    def get_executor_settings(self):
        return ExecutorSettings(
            address="server",
            config=str(self.client.config),
            key_file=str(self.client.folder / "key"),
            workdir="snakemake",
            image=self.image,
        )

    def get_assume_shared_fs(self):
        return False


SNAKEFILE = """
rule stopped:
    output: "out.txt"
    shell: "echo run >> runs; if [ -e go ]; then cp runs {output}; else touch go; sleep 60; fi"
"""


def test_ctrl_c_pressed_twice_prints_no_traceback(tmp_path, client, with_engine, base_image, account):
    running = start_snakemake(
        tmp_path, client, base_image, SNAKEFILE.replace("sleep 60", "trap : TERM; sleep 5; sleep 5")
    )
    wait_for(lambda: any((account.home / "stopped/.biom3d/jobs").glob("*/work/go")), "the job at work")
    said = ""
    while "stopping the running jobs" not in said:
        running.send_signal(signal.SIGINT) if not said else None
        said += running.stdout.readline()
    running.send_signal(signal.SIGINT)
    rest, _ = running.communicate(timeout=60)
    assert "not waiting: what has not stopped yet may run on" in rest
    assert "Traceback" not in said + rest


FOLDS = """
rule all:
    input: expand("fold_{k}", k=[0, 1, 2])
rule arrays:
    output: temp(directory("arrays"))
    shell: "mkdir {output}; touch {output}/empty; seq 20000 > {output}/a"
rule fold:
    input: "arrays"
    output: directory("fold_{k}")
    shell:
        "[ ! -e {output} ] && if [ {wildcards.k} = 1 ] && [ ! -e go ]; then touch go; sleep 60; fi;"
        " mkdir {output}; cp {input}/* {output}"
"""


def start_snakemake(folder: Path, client, image: str, snakefile: str = SNAKEFILE) -> subprocess.Popen[str]:
    (folder / "Snakefile").write_text(snakefile)
    settings = {"address": "server", "config": client.config, "key-file": client.folder / "key", "image": image}
    words = [str(word) for name, value in settings.items() for word in (f"--host-{name}", value)]
    command = [sys.executable, "-m", "snakemake", "--executor", "host", "--jobs", "2", "--nolock", *words]
    command += ["--host-workdir", "stopped", "--rerun-incomplete"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def our_containers(name: str, account) -> list:
    every = docker.from_env().containers.list(all=True, filters={"label": f"{LABEL}.name={name}"}, ignore_removed=True)
    # Those of another run of the tests beside this one have the same names.
    return [one for one in every if any(str(account.home) in mount["Source"] for mount in one.attrs["Mounts"])]


def test_ctrl_c_stops_the_containers_and_the_next_run_goes_on(tmp_path, client, with_engine, base_image, account):
    running = start_snakemake(tmp_path, client, base_image)
    jobs = account.home / "stopped/.biom3d/jobs"
    wait_for(lambda: any(jobs.glob("*/work/go")), "the job at work")
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert "Traceback" not in said
    assert our_containers("stopped", account) == []
    done = start_snakemake(tmp_path, client, base_image)
    said, _ = done.communicate(timeout=60)
    assert done.returncode == 0, said
    assert (tmp_path / "out.txt").read_text() == "run\nrun\n"
    assert names_in(jobs) == []


def interrupt_second_fold(folder: Path, client, image: str, account) -> Path:
    """Start three folds, press Ctrl-C when two have ended; return the folder of the jobs on the server."""
    running = start_snakemake(folder, client, image, FOLDS)
    jobs = account.home / "stopped/.biom3d/jobs"
    wait_for(lambda: any(jobs.glob("*/work/go")), "the second fold at work")
    wait_for(lambda: (folder / "fold_0/a").exists() and (folder / "fold_2/a").exists(), "the others here")
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert "Traceback" not in said
    return jobs


def test_folds_run_side_by_side_come_home_when_they_end_and_share_arrays_that_stay(
    tmp_path, client, with_engine, base_image, account
):
    jobs = interrupt_second_fold(tmp_path, client, base_image, account)
    arrays = (tmp_path / "fold_0/a").read_bytes()
    assert "a" not in names_in(tmp_path / "arrays")
    assert (tmp_path / "arrays/on-server.json").exists()
    said, _ = start_snakemake(tmp_path, client, base_image, FOLDS).communicate(timeout=60)
    assert "rule arrays" not in said
    assert {(tmp_path / f"fold_{k}/a").read_bytes() for k in range(3)} == {arrays}
    assert (tmp_path / "fold_1/empty").read_bytes() == b""
    assert not (tmp_path / "arrays").exists()
    assert names_in(jobs) == []


def test_arrays_that_somebody_removed_on_the_server_are_made_again(tmp_path, client, with_engine, base_image, account):
    jobs = interrupt_second_fold(tmp_path, client, base_image, account)
    for path in jobs.parent.glob("store/*/*"):
        path.unlink()
    said, _ = start_snakemake(tmp_path, client, base_image, FOLDS).communicate(timeout=60)
    assert "what 'arrays' stands for is no longer there" in said
    done = start_snakemake(tmp_path, client, base_image, FOLDS)
    said, _ = done.communicate(timeout=60)
    assert done.returncode == 0, said
    assert "rule arrays" in said
    assert len({(tmp_path / f"fold_{k}/a").read_bytes() for k in range(3)}) == 1
    assert names_in(jobs) == []
