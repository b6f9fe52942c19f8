"""The gate's own judgement, in this process: any line, any argument."""

import ast
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biom3d.remote.table import TEMPLATES
from biom3d.remote.template import Template
from biom3d.server.gatefile import render_gate
from tests.remote.test_commands import HOSTILE, names
from tests.server.gated import BY_NAME, load_gate, unchecked

many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
UPS = ["..", ".", "", "/", "a/../..", "/etc/passwd", "./../", "link", "link/passwd", "~", "%2e%2e", "..\\"]
parts = st.lists(st.one_of(names, st.sampled_from([*HOSTILE, *UPS])), min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def gate():
    """A gate without limits of its own, whose person has a link to /etc in a job's folder."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "home" / "lab" / ".biom3d" / "jobs" / ("a" * 24) / "work"
        work.mkdir(parents=True)
        (work / "link").symlink_to("/etc")
        module = load_gate()
        made = module.Gate("anna", str(Path(folder) / "home" / "lab"), None)
        made.venv = True
        made.refused = module.Refused
        made.FOLDERS = module.FOLDERS
        yield made


def decide(gate, line: str):
    """Return what the gate makes of a line, None if it refuses."""
    gate.FOLDERS.clear()
    try:
        return gate.decide(line)
    except gate.refused:
        return None


@given(st.text())
@many
def test_no_line_of_somebody_elses_making_is_let_through(gate, line):
    assert decide(gate, line) is None


@given(st.sampled_from(TEMPLATES), st.integers(0, 10_000), st.text(min_size=1, max_size=5))
@many
def test_a_script_with_anything_changed_is_refused(gate, template: Template, place, more):
    place %= len(template.script) + 1
    changed = template.script[:place] + more + template.script[place:]
    assert decide(gate, shlex.join(["sh", "-c", changed, template.name, *arguments_of(gate, template)])) is None


def arguments_of(gate, template: Template) -> list[str]:
    """Return arguments that fit."""
    job = f"{gate.root}/jobs/{'a' * 24}"
    fitting = {"workdir": gate.workdir, "whole": gate.workdir, "root": gate.root, "job": job, "work": f"{job}/work"}
    fitting |= {"injob": f"{job}/x", "data": f"{gate.workdir}/data/x", "tree": gate.workdir, "name": "x", "socket": ""}
    fitting |= {"leases": "/tmp/biom3d-gpus", "number": "1", "key": "a" * 64, "small": "up-" + "0" * 12}
    fitting |= {"big": f"big-{'a' * 64}-{'0' * 12}", "temporary": "tmp-" + "0" * 12, "device": "0", "tool": "tar"}
    fitting |= {"hasher": "sha256sum -b", "client": "a" * 16, "job-id": "a" * 24, "packing": "plain", "kind": "images"}
    fitting |= {
        "environment": f"{gate.workdir}/env",
        "mark": "biom3d.job={}",
        "variable": "A=b",
        "attempt": "1 2",
        "then": "go",
    }
    return [fitting[kind.rstrip("*")] for kind in template.kinds]


@pytest.mark.parametrize("template", [t for t in TEMPLATES if t.name != "dial_engine"], ids=lambda t: t.name)
def test_each_command_with_fitting_arguments_is_let_through(gate, template):
    arguments = arguments_of(gate, template)
    assert decide(gate, template.line(*arguments))[:3] == (template.name, template.script, arguments)


@given(st.sampled_from(["read_file", "write_file", "exists", "remove_folder", "place_dataset", "list_folders"]), parts)
@many
def test_a_path_that_is_let_through_leads_below_the_working_folder(gate, name, tail):
    template = BY_NAME[name]
    for start in ("", gate.workdir, gate.root, f"{gate.root}/jobs/{'a' * 24}/work"):
        words = arguments_of(gate, template)
        words[0] = f"{start}/{tail}" if start else tail
        made = decide(gate, unchecked(template, *words)) if "\0" not in words[0] else None
        if made:
            assert made[2] == words
            assert os.path.realpath(words[0]).startswith(f"{gate.workdir}/")


@given(parts)
@many
def test_a_name_that_is_let_through_leads_below_its_folder(gate, name):
    folder = f"{gate.root}/jobs/{'a' * 24}/work"
    gate.FOLDERS.clear()
    try:
        gate.check_name(name, folder)
    except gate.refused:
        return
    # The name "." is the folder itself, which is no way out.
    assert f"{os.path.realpath(f'{folder}/{name}')}/".startswith(f"{folder}/")


@given(st.sampled_from(["free_bytes", "begin_pieces", "find_free", "list_tools", "receive_files"]), st.data())
@many
def test_a_word_of_another_kind_is_refused(gate, name, draw):
    template = BY_NAME[name]
    words = arguments_of(gate, template)
    place = draw.draw(st.integers(0, len(words) - 1))
    words[place] = draw.draw(st.one_of(parts, st.text(max_size=20), st.sampled_from(HOSTILE)))
    made = decide(gate, shlex.join(["sh", "-c", template.script, name, *words]))
    assert made is None or made[2] == words == arguments_of(gate, template) or words[place].isalnum()


@given(st.lists(names, min_size=1, max_size=3))
@many
def test_what_the_client_writes_is_what_the_gate_reads(gate, words):
    name = f"it's/{'/'.join(words)}"
    made = decide(gate, BY_NAME["send_range"].line(f"{gate.root}/jobs/{'a' * 24}/work", name, 0, 1, "plain"))
    assert made is None if ".." in name.split("/") else made[2][1] == name


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("number", ["a[$(touch owned)]", "1;touch owned", "$(touch owned)", "-1", "1 touch owned", ""])
def test_a_number_in_a_stream_of_pieces_is_no_command(tmp_path, shell, number):
    upload = tmp_path / "tmp" / BIG_NAME
    upload.mkdir(parents=True)
    (upload / "data").write_bytes(bytes(65_536))
    template = BY_NAME["receive_pieces"]
    for place in range(4):
        words = ["0", "0", "1", "5"]
        words[place] = number.replace(" ", "\t")
        line = " ".join([*words, "-", "0" * 64]) + "\nhello"
        script = [shell, "-c", template.script, template.name, str(tmp_path), BIG_NAME, "sha256sum -b"]
        subprocess.run(script, input=line.encode(), capture_output=True, cwd=tmp_path)
        assert not list(tmp_path.rglob("owned")), (shell, words)


BIG_NAME = f"big-{'a' * 64}-{'0' * 12}"


def test_the_installed_file_is_read_by_an_old_python():
    ast.parse(render_gate(TEMPLATES, "1.2.3"), feature_version=(3, 9))


def test_the_installed_file_is_one_file_of_the_standard_library(tmp_path):
    (tmp_path / "biom3d-gate").write_text(render_gate(TEMPLATES, "1.2.3"))
    done = subprocess.run(
        [sys.executable, "-IS", tmp_path / "biom3d-gate", "--help"], capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, "--workdir" in done.stdout) == (0, True)
