import importlib
import json
from pathlib import Path

import pytest

from biom3d.compat.options import FOREIGN, NAMES

OPTIONS = json.loads((Path(__file__).parent / "biom3d_options.json").read_text())
EVERY = [(step, option["flags"]) for step, options in OPTIONS.items() for option in options]


def parser_of(step):
    return importlib.import_module(f"biom3d.{step}").build_parser()


@pytest.mark.parametrize(("step", "flags"), EVERY)
def test_our_parser_takes_every_option_of_biom3d(step, flags):
    known = {flag for action in parser_of(step)._actions for flag in action.option_strings}
    assert set(flags) <= known


@pytest.mark.parametrize(("step", "option"), [(step, option) for step in FOREIGN for option in FOREIGN[step]])
def test_an_option_that_does_nothing_is_answered_in_one_line(step, option, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    required = {"preprocess": ["--img_path", "x", "--msk_path", "x"], "train": [], "pred": ["-l", "x", "-i", "x"]}
    given = [option.flags[0]] if option.is_switch else [option.flags[0], "1"]
    assert importlib.import_module(f"biom3d.{step}").main(required[step] + given) == 2
    first = capfd.readouterr().err.splitlines()[0]
    assert f"--{option.name}" in first
    assert option.answer in first


@pytest.mark.parametrize(("step", "name"), [(step, n) for step in NAMES for n, answer in NAMES[step].items() if answer])
def test_a_method_that_is_not_offered_is_answered_in_one_line(step, name, capfd):
    required = {"train": [], "pred": ["-l", "x", "-i", "x", "-o", "x"]}
    assert importlib.import_module(f"biom3d.{step}").main([*required[step], "-n", name]) == 2
    assert NAMES[step][name] in capfd.readouterr().err.splitlines()[0]
