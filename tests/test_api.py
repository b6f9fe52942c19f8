"""The Python functions: their examples run, arrays and files give what the commands give, mistakes are told."""

import doctest
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from biom3d import api
from biom3d.errors import ConfigError, DataError
from biom3d.io import read_labels, read_volume
from biom3d.pred import main as pred
from biom3d.synth import main as synth

ROOT = Path(__file__).parents[1]
SPACING = (0.6, 0.3, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three volumes of cells, and a model: what the examples make, in the order of the docstrings."""
    folder, before = tmp_path_factory.mktemp("api"), Path.cwd()
    os.chdir(folder)
    words = ["--count", "3", "--shape", "16", "32", "32", "--cells", "5", "--anisotropy", "2"]
    assert synth([".", *words]) == 0
    globs = {**vars(api)}
    for name in ("read_volume", "plan", "preprocess", "train", "predict", "evaluate", "export_labels"):
        (example,) = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs=globs)
        runner = doctest.DocTestRunner()
        assert len(example.examples) > 0
        assert runner.run(example).failed == 0, name
    yield folder
    os.chdir(before)


def test_every_function_has_an_example_that_runs(folder):
    assert (folder / "model").is_dir()
    assert (folder / "cells.ome.zarr").is_dir()


def test_an_array_is_predicted_as_its_file_is_by_the_command(folder):
    image = folder / "images/cells_002.tif"
    assert pred(["--log", "model", "--path_in", str(image), "--out_dir", "by-command"]) == 0
    labels = read_labels(folder / "by-command/cells_002.tif").array[0]
    from_array, scores = api.predict("model", read_volume(image).array, SPACING, scores=True)
    assert np.array_equal(from_array, labels)
    assert np.array_equal(api.predict("model", image), labels)
    assert scores.shape == (2, 16, 32, 32)
    is_sure = abs(scores[1].astype(float) - 0.5) > 0.001  # the scores are rounded to 16 bits
    assert is_sure.mean() > 0.5
    assert np.array_equal(scores.argmax(0)[is_sure], labels[is_sure])


def test_arrays_teach_as_their_files_do(folder):
    images = [read_volume(path).array[0] for path in sorted((folder / "images").iterdir())]
    masks = [read_labels(path).array[0] for path in sorted((folder / "masks").iterdir())]
    options = {"num_epochs": 1, "num_steps": 2, "width": 4, "spacing": SPACING}
    from_arrays = api.preprocess(images, masks, "from-arrays", **options)
    from_files = api.preprocess("images", "masks", "from-files", **options)
    for path in sorted((from_files.parent / "data/images").iterdir()):
        number = path.stem[-3:]
        twin = from_arrays.parent / f"data/images/volume_0{number}.npy"
        assert np.array_equal(np.load(path), np.load(twin))


def test_a_plan_is_not_trained_on_the_arrays_of_another(folder):
    options = {"num_epochs": 1, "num_steps": 2, "width": 4}
    shutil.copy(api.preprocess("images", "masks", "shared", **options), "first.yaml")
    few = [sorted((folder / name).iterdir())[:2] for name in ("images", "masks")]
    second = api.preprocess(*few, "shared", **options)
    with pytest.raises(DataError, match="are those of another plan"):
        api.train("first.yaml", "mixed")
    assert api.train(second, "second").is_dir()


def test_scores_of_arrays_and_files_are_the_same(folder):
    truth = folder / "masks/cells_001.tif"
    array = read_labels(truth).array[0]
    shifted = np.roll(array, 1, axis=1)
    assert api.evaluate(shifted, array, spacing_um=SPACING) == api.evaluate(shifted, truth)


def test_the_page_runs_as_it_is_written(folder, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    short = code.replace("num_epochs=50", "num_epochs=1, num_steps=2, width=4").replace('"prepared"', '"on-the-page"')
    assert short != code
    exec(compile(short, "docs/api.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1
    assert (folder / "cells_001.ome.zarr").is_dir()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: api.plan("images", "masks", num_epoch=3), ConfigError, "'num_epoch' is no option of"),
        (lambda: api.plan("images", "masks", num_epochs="many"), ConfigError, "invalid int value: 'many'"),
        (lambda: api.predict("model", np.zeros(5)), DataError, "an array of shape (5,)"),
        (lambda: api.evaluate(np.zeros((4, 4)), np.zeros((4, 4))), DataError, "the prediction is float64 (4, 4)"),
        (lambda: api.export_labels("m.tif", "i.tif", "labels.png"), ConfigError, "ends in .ome.tif or .ome.zarr"),
        (lambda: api.read_volume("none.tif"), DataError, "none.tif"),
    ],
)
def test_a_mistake_is_told(call, error, message, folder):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
