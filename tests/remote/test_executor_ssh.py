"""The executor plugin over SSH as Snakemake sees it: its own test classes, and what a user does at the terminal."""

import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase
from snakemake_executor_plugin_ssh import ExecutorSettings

from biom3d.remote.job import LABEL
from tests.remote.server import names_in, wait_for
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]
pytestmark = pytest.mark.system


class TestOverSSH(TestWorkflowsLocalStorageBase):
    """Snakemake's tests of an executor: single jobs, and groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def use_host(self, client, with_engine, base_image):
        self.client, self.image = client, base_image

    def get_executor(self):
        return "ssh"

    def get_executor_settings(self):
        return ExecutorSettings(
            host="server",
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


def start_snakemake(folder: Path, client, image: str) -> subprocess.Popen[str]:
    (folder / "Snakefile").write_text(SNAKEFILE)
    settings = {"host": "server", "config": client.config, "key-file": client.folder / "key", "image": image}
    words = [str(word) for name, value in settings.items() for word in (f"--ssh-{name}", value)]
    command = [sys.executable, "-m", "snakemake", "--executor", "ssh", "--jobs", "2", "--nolock", *words]
    command += ["--ssh-workdir", "stopped", "--rerun-incomplete"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def our_containers(name: str) -> list:
    every = docker.from_env().containers.list(all=True, filters={"label": f"{LABEL}.name={name}"}, ignore_removed=True)
    return list(every)


def test_ctrl_c_stops_the_containers_and_the_next_run_goes_on(tmp_path, client, with_engine, base_image, account):
    running = start_snakemake(tmp_path, client, base_image)
    jobs = account.home / "stopped/.biom3d/jobs"
    wait_for(lambda: any(jobs.glob("*/work/go")), "the job at work")
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert "Traceback" not in said
    assert our_containers("stopped") == []
    done = start_snakemake(tmp_path, client, base_image)
    said, _ = done.communicate(timeout=60)
    assert done.returncode == 0, said
    assert (tmp_path / "out.txt").read_text() == "run\nrun\n"
    assert names_in(jobs) == []
