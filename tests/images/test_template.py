"""Rules for the one Dockerfile: each stands for a defect seen in images of this field."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from biom3d.images.keys import template_parts
from biom3d.images.plan import plan_build
from biom3d.images.table import CHECKOUT, load_table

FOLDER = CHECKOUT / "containers"
TEXT = (FOLDER / "template.dockerfile").read_text()
LINES = [line for line in TEXT.splitlines() if not line.startswith("#")]
CODE = "\n".join(LINES)
SCRIPTS = "\n".join((FOLDER / name).read_text() for name in ("install.sh", "entrypoint.sh"))


def test_every_stage_starts_from_an_argument_or_a_stage():
    assert all(re.fullmatch(r"FROM \$\{(BASE|DEPENDENCIES)\} AS \w+", line) for line in LINES if "FROM" in line[:4])


def test_nothing_is_called_latest():
    assert "latest" not in TEXT + (FOLDER / "images.yaml").read_text()


def test_the_image_runs_as_a_number_that_is_not_root():
    users = [line for line in LINES if line.startswith("USER")]
    assert users == ["USER 10001:10001"]
    assert LINES.index(users[0]) > max(i for i, line in enumerate(LINES) if line.startswith("FROM"))


@pytest.mark.parametrize("word", ["|| true", "777", "python3.11", "apt-get", "curl", "wget", "COPY . ", "ADD "])
def test_a_habit_that_hides_failures_or_opens_doors_is_absent(word):
    assert word not in CODE + SCRIPTS


@pytest.mark.parametrize("word", ["--mount", "<<", "--link", "syntax=", "--chmod"])
def test_only_what_the_plain_builder_understands(word):
    assert word not in TEXT


def test_pip_takes_only_given_files_and_leaves_no_cache():
    calls = re.findall(r"pip install (?:.*\\\n)*.*", SCRIPTS)
    assert calls
    assert all(re.search("--no-index", call) and "--no-cache-dir" in call and "--no-deps" in call for call in calls)


@pytest.mark.parametrize("part", [0, 1])
def test_every_argument_of_the_template_is_given_by_the_plan(part):
    plan = plan_build(load_table(), "cpu", "abc")
    given = dict([plan.dependencies, plan.final][part].arguments)
    stages = template_parts(CHECKOUT)[part].split("FROM ", 1)[1]
    wanted = set(re.findall(r"^ARG (\w+)$", stages, flags=re.MULTILINE)) | {["BASE", "DEPENDENCIES"][part]}
    assert wanted == set(given)


def test_every_label_has_a_value_from_an_argument():
    labels = dict(re.findall(r'([\w.]+)="\$\{(\w+)\}"', CODE.split("LABEL org")[1]))
    assert {"biom3d.torch", "biom3d.cuda", "biom3d.python", "biom3d.driver", "biom3d.key"} <= set(labels)


def test_programs_replace_the_entrypoint_so_that_signals_reach_them():
    text = (FOLDER / "entrypoint.sh").read_text()
    assert all("exec" in line for line in text.splitlines() if "python -m" in line and not line.startswith("#"))


def test_hadolint_has_nothing_to_say():
    linter = Path(sys.prefix) / "bin" / "hadolint"
    assert linter.is_file(), "hadolint is missing from the environment; run: make setup"
    done = subprocess.run([linter, FOLDER / "template.dockerfile"], capture_output=True, text=True)
    assert done.stdout == ""


def test_shell_scripts_are_valid():
    for name in ("install.sh", "entrypoint.sh"):
        subprocess.run(["bash", "-n", FOLDER / name], check=True)
