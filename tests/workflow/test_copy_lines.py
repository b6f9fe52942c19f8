"""The words of a step go to its log as they are, and to the screen with its name."""

import subprocess
import sys

import pytest
from biom3d_workflow import copy_lines


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("logs/steps/train/my model/fold_0.log", "train my model 0"),
        ("logs/steps/predict/m/fold_3.log", "predict m fold_3"),  # a data set may be called so
        ("logs/steps/summary/all.log", "summary"),
    ],
)
def test_a_step_has_the_name_that_its_log_has(log, name):
    assert copy_lines.name_of(log) == name


@pytest.mark.parametrize("is_watched", [True, False])
def test_lines_are_copied_and_what_nobody_watches_is_in_the_log_all_the_same(tmp_path, is_watched):
    log = tmp_path / "logs/steps/check/a.log"
    log.parent.mkdir(parents=True)
    words = [sys.executable, "-ISs", copy_lines.__file__, str(log)]
    text = b"cases 2\n\n\xff" + b"x" * 200_000 + b"\nlast"
    copier = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if not is_watched:
        copier.stdout.close()
        copier.stdout = None
    shown = copier.communicate(text)[0]
    assert (copier.returncode, log.read_bytes()) == (0, text)
    if is_watched:
        assert shown == b"[check a] cases 2\n\n[check a] \xff" + b"x" * 200_000 + b"\n[check a] last"
