"""The executor plugin as Snakemake sees it: its own test classes, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase
from snakemake_executor_plugin_host import ExecutorSettings

pytestmark = pytest.mark.system


class TestOnThisMachine(TestWorkflowsLocalStorageBase):
    """Snakemake's tests of an executor: single jobs, and groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def use_image(self, base_image):
        self.image = base_image

    def get_executor(self):
        return "host"

    def get_executor_settings(self):
        return ExecutorSettings(address="local", image=self.image)

    def get_assume_shared_fs(self):
        return False


class TestInThisEnvironment(TestOnThisMachine):
    """The same without containers."""

    @pytest.fixture(autouse=True)
    def use_image(self):
        """None is needed."""

    def get_executor_settings(self):
        return ExecutorSettings(address="local", runtime="venv")


SNAKEFILE = """
rule all:
    input: "b.txt"
rule a:
    output: temp("a.txt")
    group: "g"
    shell: "echo hello > {output}; hostname > host_a.txt"
rule b:
    input: "a.txt"
    output: "b.txt"
    benchmark: "b.tsv"
    log: "b.log"
    group: "g"
    threads: 2
    resources: mem_mb=100, runtime=10
    shell: "cat {input} > {output}; echo done | tee {log}"
"""


def snakemake(folder: Path, *arguments: str, snakefile: str = SNAKEFILE) -> subprocess.CompletedProcess[str]:
    (folder / "Snakefile").write_text(snakefile)
    command = [sys.executable, "-m", "snakemake", "--executor", "host", "--jobs", "4", "--nolock", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_group_is_one_container_and_its_inner_files_never_come_back(tmp_path, base_image):
    done = snakemake(tmp_path, "--host-image", base_image)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.txt").read_text() == "hello\n"
    assert (tmp_path / "b.log").read_text() == "done\n"
    assert (tmp_path / "b.tsv").read_text().startswith("s\th:m:s\tmax_rss")
    assert not (tmp_path / "a.txt").exists()
    assert done.stderr.count("] started in ") == 1


def test_a_group_runs_without_containers_and_without_an_image(tmp_path):
    done = snakemake(tmp_path, "--host-runtime", "venv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.txt").read_text() == "hello\n"
    assert f"] started in environment '{sys.prefix}'" in done.stderr
    assert not (tmp_path / "a.txt").exists()


def test_a_second_run_has_nothing_to_do(tmp_path, base_image):
    snakemake(tmp_path, "--host-image", base_image)
    assert "Nothing to be done" in snakemake(tmp_path, "--host-image", base_image).stderr


@pytest.mark.parametrize(
    ("snakefile", "arguments", "message"),
    [
        (SNAKEFILE, [], "has no image; give it a `container:`"),
        (SNAKEFILE, ["--host-image", "nobody/nothing"], "image 'nobody/nothing' is not there"),
        ("rule a:\n    output: 'a'\n    run: pass\n", ["--host-image", "x"], "make it a shell: rule"),
        ("rule a:\n    output: '/tmp/a'\n    shell: 'true'\n", ["--host-image", "x"], "outside the working folder"),
        (
            SNAKEFILE,
            ["--host-runtime", "conda", "--host-image", "x"],
            "runtime is 'conda'; wanted docker, podman or venv",
        ),
        (SNAKEFILE, ["--host-runtime", "venv", "--host-venv", "/none"], "there is no environment '/none'"),
        (
            SNAKEFILE,
            ["--host-runtime", "venv", "--host-image", "biom3d-workflow/upstream-0.1.2:a"],
            "runs only where there are containers",
        ),
        (SNAKEFILE, ["--host-engine-socket", "/no/such.sock", "--host-image", "x"], "no container engine answers"),
    ],
)
def test_what_cannot_run_is_told_in_one_message(tmp_path, snakefile, arguments, message):
    done = snakemake(tmp_path, *arguments, snakefile=snakefile)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_image_costs_no_result(tmp_path):
    (tmp_path / "b.txt").write_text("of last week")
    done = snakemake(tmp_path, "--host-image", "nobody/nothing", "--forceall")
    assert (tmp_path / "b.txt").read_text() == "of last week"
    assert "ExecutorError:\nthis machine: image 'nobody/nothing' is not there" in done.stderr
    assert "Error in" not in done.stderr


def test_a_failed_group_is_told_once(tmp_path, base_image):
    done = snakemake(tmp_path, "--host-image", base_image, snakefile=SNAKEFILE.replace("echo done |", "exit 3 |"))
    assert done.stderr.count("job 'g' on this machine: exit 3") == 1
    assert "message: None" not in done.stderr


def test_a_folder_that_cannot_be_written_is_told_in_one_message(tmp_path, base_image):
    (tmp_path / ".snakemake").mkdir()
    (tmp_path / ".snakemake/biom3d").touch()
    done = snakemake(tmp_path, "--host-image", base_image)
    assert ".snakemake/biom3d': File exists; a part of this path is a file" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_clients_in_one_folder_are_refused(tmp_path, base_image):
    import fcntl

    folder = tmp_path / ".snakemake/biom3d"
    folder.mkdir(parents=True)
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = snakemake(tmp_path, "--host-image", base_image)
    assert "another Snakemake works in" in done.stderr


def test_snakemake_without_our_executor_does_not_load_its_parts():
    code = (
        "import sys, snakemake_executor_plugin_host\n"
        "heavy = {'paramiko', 'docker', 'torch', 'biom3d'} & set(sys.modules)\n"
        "raise SystemExit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
