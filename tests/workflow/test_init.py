import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from biom3d_workflow.project import load_project

from biom3d.images.keys import lookup
from biom3d.init import Labels, config_text, find_labels, main
from biom3d.io import Header, write_labels
from biom3d.sources import CHECKOUT
from biom3d.synth import main as synth


@pytest.fixture
def stacks(tmp_path, monkeypatch):
    """Four stacks, two with masks that number the cells; the working folder is beside them."""
    monkeypatch.chdir(tmp_path)
    assert synth(["made", "--count", "4", "--shape", "16", "48", "48", "--cells", "6", "--instances"]) == 0
    Path("made/images").rename("my stacks")
    Path("masks").mkdir()
    for mask in sorted(Path("made/instances").iterdir())[:2]:
        shutil.copy(mask, "masks")
    return tmp_path


def rows(table="study/config/datasets.tsv"):
    with open(table, newline="") as file:
        return list(csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t"))


def test_a_project_is_ready_to_run(stacks, monkeypatch, capsys):
    assert main(["study", "--images", "my stacks", "--masks", "masks", "--model", "cells"]) == 0
    assert capsys.readouterr().out == "cd study && biom3d run\n"
    (row,) = rows()
    assert (row["dataset"], row["train"], row["predict"]) == ("my_stacks", "cells", "cells")
    assert Path(row["images"]) == stacks / "my stacks"
    monkeypatch.chdir("study")
    config = yaml.safe_load(Path("config/config.yaml").read_text())
    assert list(config["models"]) == ["cells"]
    assert config["models"]["cells"]["instances"] is True
    project = load_project(config, ["config/config.yaml"], {})
    assert [str(problem) for problem in project.problems if not problem.is_warning] == []
    assert Path("workflow/Snakefile").is_file()
    assert Path("profiles/local/profile.yaml").is_file()


def test_a_data_set_is_named_after_what_tells_it_apart(stacks, capsys):
    Path("embryo 7").mkdir()
    Path("my stacks").rename("embryo 7/images")
    names = []
    for project, options in (("a", []), ("b", ["--name", "day1"])):
        assert main([project, "--images", "embryo 7/images", *options]) == 0
        names += [row["dataset"] for row in rows(f"{project}/config/datasets.tsv")]
    assert names == ["embryo_7", "day1"]
    assert main(["c", "--images", "embryo 7/images", "--name", "a b"]) == 2
    assert "--name 'a b': wanted letters, digits" in capsys.readouterr().err


def test_the_images_of_a_project_are_those_of_the_checkout_that_it_leads_to(stacks):
    assert main(["study"]) == 0
    code = "from biom3d_workflow.image import find_image; print(find_image('cpu').url)"
    for library in (CHECKOUT / "workflow/lib", Path("study/workflow/lib").absolute()):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(library)}, capture_output=True, text=True
        )
        assert done.stdout.startswith(f"docker://{lookup('cpu').reference}"), done.stderr


def test_nothing_of_the_user_is_overwritten(stacks, capsys):
    assert main(["study"]) == 0
    assert rows() == []
    table = Path("study/config/datasets.tsv")
    table.write_text("mine")
    Path("study/config/config.yaml").unlink()
    assert main(["study"]) == 0
    assert table.read_text() == "mine"
    assert Path("study/config/config.yaml").is_file()
    assert main(["study", "--images", "my stacks"]) == 2
    assert "add the images as a row there" in capsys.readouterr().err


def test_links_are_mended_after_the_checkout_has_moved(stacks):
    assert main(["study"]) == 0
    Path("study/workflow").unlink()
    Path("study/workflow").symlink_to("/old/checkout/workflow")
    assert main(["study"]) == 0
    assert Path("study/workflow").readlink() == CHECKOUT / "workflow"


def test_folders_of_the_user_are_never_taken_for_links(stacks, capsys):
    Path("study/workflow").mkdir(parents=True)
    assert main(["study"]) == 2
    assert "'study/workflow' exists and is no link of ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "--masks", "masks"], "--masks without --images"),
        (["study", "--images", "none"], "'none'"),
        (["study", "--model", "a b"], "--model 'a b': wanted letters"),
        ([str(CHECKOUT)], "holds the workflow itself"),
    ],
)
def test_a_wrong_wish_makes_nothing(words, message, stacks, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not Path("study").exists()


def mask(path, labels):
    write_labels(path, labels, Header((1, *labels.shape), labels.dtype, "ZYX", (1.0, 1.0, 1.0)))
    return path


def boxes(*values):
    """Return labels with a box for each value; equal values are pieces of one."""
    labels = np.zeros((8, 8, 4 * len(values)), np.int16)
    for number, value in enumerate(values):
        labels[2:6, 2:6, 4 * number + 1 : 4 * number + 3] = value
    return labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 1, 1], Labels()),
        ([255, 255], Labels()),
        ([1, 2, 3, 4, 5], Labels(instances=True)),
        ([1, 300], Labels(instances=True)),
        ([1, 2], Labels(num_classes=2)),  # organs
        ([1, 4], Labels(num_classes=2, values=(1, 4))),
        ([1, 255], Labels(ignored=255)),
        ([1, 2, 255, 255], Labels(num_classes=2, ignored=255)),
        ([1, 2, 3, 4, 5, 255], Labels(instances=True, ignored=255)),
        ([1, -1], Labels(ignored=-1)),
        ([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], Labels(num_classes=4)),
    ],
)
def test_numbers_of_objects_are_told_from_kinds_of_objects(values, labels, tmp_path):
    assert find_labels([mask(tmp_path / "m.tif", boxes(*values))]) == labels


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_machine_without_a_graphics_card_gets_a_short_training(has_gpu):
    labels = Labels(num_classes=2, values=(1, 4), ignored=255)
    config = yaml.safe_load(config_text(CHECKOUT, "m", labels, has_gpu))
    short = {} if has_gpu else {"folds": 2, "max_minutes": 30}
    assert config["models"] == {
        "m": {"num_classes": 2, "label_values": [1, 4], "ignore_label": 255, "instances": False, **short}
    }
    assert config["defaults"] == yaml.safe_load((CHECKOUT / "config/config.yaml").read_text())["defaults"]
