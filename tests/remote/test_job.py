"""What a job is: names, identity, and the scripts, which run here in a real shell."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from biom3d.errors import ConfigError
from biom3d.remote.containers import ContainerSource
from biom3d.remote.host import Entry
from biom3d.remote.job import (
    DEVICE_TAKEN,
    Command,
    JobSpec,
    Resources,
    fit,
    identify,
    job_name,
    output_name,
    steps_script,
    supervisor_script,
)

SPEC = JobSpec("copy a", (Command("copy", "cp in.txt out.txt"),), "image", (("in.txt", Path("in.txt")),), ("out.txt",))
ENTRY = Entry("in.txt", Path("/here/in.txt"), "key", 3)


def start(folder: Path, *commands: Command, leases: str = "", edit: tuple[str, str] = ("", "")) -> subprocess.Popen:
    (folder / "work").mkdir(exist_ok=True)
    (folder / "steps.sh").write_text(steps_script(commands))
    (folder / "run.sh").write_text(supervisor_script(Resources(runtime_min=1)).replace(*edit))
    environment = {**os.environ, "BIOM3D_LEASES": leases}
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", str(folder / "run.sh")], env=environment, stdout=pipe, stderr=pipe)


def run(folder: Path, *commands: Command, **options) -> int:
    process = start(folder, *commands, **options)
    process.communicate(timeout=60)
    return process.returncode


def wait_for(path: Path, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.tif", "a/b.tif"),
        ("./a//b", "a/b"),
        ("/data/x.tif", "/data/x.tif"),
        ("../../x.tif", "/x.tif"),
        ("-a", "-a"),
    ],
)
def test_a_job_finds_a_file_under_the_name_that_the_workflow_uses(path, name):
    assert job_name(path) == name


@pytest.mark.parametrize("path", ["../x", "/proc/self", "../..", "/sys"])
def test_a_name_that_would_hide_a_part_of_the_container_is_refused(path):
    with pytest.raises(ConfigError, match="full path"):
        job_name(path)


@pytest.mark.parametrize("path", ["/tmp/out.txt", "../../out.txt"])
def test_an_output_outside_the_working_folder_is_refused(path):
    with pytest.raises(ConfigError, match="outside the working folder"):
        output_name(path)


def test_the_identity_of_a_job_is_its_commands_image_and_input_contents():
    first = identify(SPEC, "sha256:1", [ENTRY])
    assert identify(SPEC, "sha256:1", [replace(ENTRY, source=Path("/there/in.txt"))]) == first
    others = [
        identify(SPEC, "sha256:2", [ENTRY]),
        identify(SPEC, "sha256:1", [replace(ENTRY, key="other")]),
        identify(replace(SPEC, commands=(Command("copy", "cp in.txt out"),)), "sha256:1", [ENTRY]),
        identify(replace(SPEC, outputs=("other.txt",)), "sha256:1", [ENTRY]),
    ]
    assert len({first, *others}) == 5


def test_more_memory_leaves_the_identity_so_that_the_job_goes_on_where_it_was():
    larger = replace(SPEC, resources=Resources(mem_mb=64000))
    assert identify(larger, "i", [ENTRY]) == identify(SPEC, "i", [ENTRY])


def test_resources_are_cut_down_to_the_host():
    assert fit(Resources(8, 16000), cores=2, memory_mb=4000) == Resources(2, 4000)
    assert fit(Resources(1, 5), cores=2, memory_mb=4000) == Resources(1, 64)


def test_commands_run_in_their_order_and_the_exit_code_is_kept(tmp_path):
    assert run(tmp_path, Command("a", "echo 1 > x"), Command("b", "cat x x > y")) == 0
    assert (tmp_path / "work/y").read_text() == "1\n1\n"
    assert (tmp_path / "exit").read_text() == "0\n"


def test_the_first_failure_ends_the_job_with_its_code(tmp_path):
    assert run(tmp_path, Command("a", "false || exit 7"), Command("b", "touch never")) == 7
    assert not (tmp_path / "work/never").exists()
    assert (tmp_path / "exit").read_text() == "7\n"


def test_a_pipe_fails_with_its_first_part_as_in_snakemake(tmp_path):
    assert run(tmp_path, Command("a", "exit 3 | cat")) == 3


def test_folders_of_outputs_are_made_and_touched_files_exist(tmp_path):
    command = Command("a", "echo 1 > 'a b/$c'", makes=("a b/$c", "-d/e"), touch=("-d/e",))
    assert run(tmp_path, command) == 0
    assert (tmp_path / "work/a b/$c").read_text() == "1\n"
    assert (tmp_path / "work/-d/e").exists()


def test_quotes_and_newlines_in_a_command_reach_the_shell_as_they_are(tmp_path):
    shell = 'printf \'%s\' "it\'s $((1 + 1))\n\\"quoted\\"" > out'
    assert run(tmp_path, Command("a", shell)) == 0
    assert (tmp_path / "work/out").read_text() == 'it\'s 2\n"quoted"'


def test_a_benchmark_is_written_as_snakemake_does(tmp_path):
    assert run(tmp_path, Command("a", "sleep 0.3", benchmark="b/a.tsv")) == 0
    header, values = (tmp_path / "work/b/a.tsv").read_text().splitlines()
    record = dict(zip(header.split("\t"), values.split("\t"), strict=True))
    assert 0.3 <= float(record["s"]) < 20
    assert record["h:m:s"].startswith("0:00:")
    assert float(record["cpu_time"]) < 20


def test_a_time_limit_ends_the_job_and_says_so_by_its_code(tmp_path):
    assert run(tmp_path, Command("a", "sleep 60"), edit=("timeout -k 30 60 ", "timeout -k 30 0.2 ")) == 124
    assert (tmp_path / "exit").read_text() == "124\n"


def test_a_step_that_is_asked_to_stop_may_save_its_work_first(tmp_path):
    shell = "trap 'sleep 0.3; echo saved > saved; exit 9' TERM; touch ready; while :; do sleep 0.05; done"
    process = start(tmp_path, Command("a", f'bash -c "{shell}" | cat'))
    wait_for(tmp_path / "work/ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert (tmp_path / "work/saved").exists()
    assert (tmp_path / "exit").read_text().strip() != "0"


def test_temporary_files_are_gone_at_the_end(tmp_path):
    assert run(tmp_path, Command("a", "touch $TMPDIR/x $HOME/y", benchmark="a.tsv")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended-1", "exit", "run.sh", "steps.sh", "work"]


def test_a_device_that_cannot_be_leased_is_told_by_the_exit_code(tmp_path):
    assert run(tmp_path, Command("a", "touch ran"), leases="no-such-device") == DEVICE_TAKEN
    assert not (tmp_path / "work/ran").exists()


def log(*lines: str) -> Iterator[bytes]:
    """What an engine sends that stamps lines with whole seconds, as Podman does."""
    return iter([f"2026-01-01T00:00:0{line}\n".encode() for line in lines])


def test_lines_of_one_second_are_all_shown_and_none_twice_after_a_break():
    source = ContainerSource(None, "name")
    first = list(source._new_lines(log("1+01:00 a", "1+01:00 b")))
    again = list(source._new_lines(log("1+01:00 a", "1+01:00 b", "1+01:00 c", "2+01:00 d")))
    assert (first, again) == (["a", "b"], ["c", "d"])


def test_stdout_and_stderr_out_of_order_lose_no_line():
    lines = list(ContainerSource(None, "name")._new_lines(log("2Z late", "1Z early", "3Z next")))
    assert lines == ["late", "early", "next"]
