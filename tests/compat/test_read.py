from pathlib import Path

import pytest

from biom3d.compat.read import is_biom3d_config, read_biom3d_config
from biom3d.errors import ConfigError

NEEDED = "NUM_POOLS = [2, 3, 3]\nPATCH_SIZE = [8, 16, 16]\nNUM_CLASSES = 1\n"
YAML = "NUM_POOLS: [2, 3, 3]\nPATCH_SIZE: [8, 16, 16]\nNUM_CLASSES: 1\n"


def read(folder, text, name="config.py"):
    (folder / name).write_text(text)
    return read_biom3d_config(folder / name)


def test_a_python_configuration_is_read_and_not_run(tmp_path):
    harm = f"open({str(tmp_path / 'harm')!r}, 'w')\nHARM = __import__('os').listdir()\n"
    assert "HARM" not in read(tmp_path, NEEDED + harm)
    assert not (tmp_path / "harm").exists()


def test_names_sums_and_blocks_are_understood(tmp_path):
    values = read(
        tmp_path, NEEDED + "MODEL = Dict(kwargs=Dict(num_classes=NUM_CLASSES if False else NUM_CLASSES + 1))\n"
    )
    assert values["MODEL"] == {"kwargs": {"num_classes": 2}}


def test_comments_and_unknown_expressions_are_left_out(tmp_path):
    values = read(tmp_path, NEEDED + "CONFIG = Dict(**globals().copy()) # all\nLR = 1e-2 # rate\n")
    assert "CONFIG" not in values
    assert values["LR"] == 0.01


def test_old_names_are_those_of_today(tmp_path):
    assert read(tmp_path, NEEDED + "IMG_DIR = 'images_out'\n")["IMG_PATH"] == "images_out"


def test_tuples_of_python_in_yaml_are_lists(tmp_path):
    assert read(tmp_path, YAML + "A: !!python/tuple [1, 2]\n", "c.yaml")["A"] == [1, 2]


def test_a_dict_of_another_class_is_a_dict(tmp_path):
    text = YAML + "A: !!python/object/new:biom3d.utils.config.AttrDict\n  dictitems: {fct: Seg}\n"
    assert read(tmp_path, text, "c.yaml")["A"] == {"fct": "Seg"}


def test_objects_in_yaml_are_never_made(tmp_path):
    harm = f"A: !!python/object/apply:os.mkdir [{tmp_path / 'harm'}]\n"
    assert read(tmp_path, YAML + harm, "c.yaml")["A"] is None
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.py", "NUM_POOLS = [1]\n", "missing PATCH_SIZE, NUM_CLASSES"),
        ("c.py", "def (", "no valid configuration"),
        ("c.yaml", "- 1\n", "holds list"),
        ("c.yaml", "a: [", "no valid configuration"),
        ("c.py", "A = " + "(" * 5000, "no valid configuration"),
    ],
)
def test_what_is_no_configuration_is_refused_in_words(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, text, name)


def test_our_plans_are_not_taken_for_configurations(tmp_path):
    path = Path(tmp_path / "plan.yaml")
    path.write_text("desc: a\nnum_pools: [1, 1, 1]\n")
    assert not is_biom3d_config(path)
