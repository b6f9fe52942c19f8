"""Files of strangers that want to run code, fill the memory or read other files: models, data sets, configurations."""

import json
import os
import pickle
import re
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from biom3d.compat.read import read_biom3d_config
from biom3d.config import load_plan, read_yaml
from biom3d.errors import ConfigError, DataError
from biom3d.export.package import pack_model
from biom3d.io import read_volume
from biom3d.remote.profile import read_profile
from biom3d.server.card import read_card
from tests.bad_input.conftest import STEPS

HARM = Path("harm").absolute  # where the code would leave a trace, in the folder of the test
LAST, BEST = Path("model/fold_0/model/m.pth"), Path("model/fold_0/model/m_best.pth")
XML = "<OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06'>{}</OME>"


class Evil:
    """Makes a folder as soon as somebody unpickles it."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(HARM()),)


# Torch warns before it refuses what it did not write itself.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
PICKLES = {
    "a checkpoint that is an object": lambda path: torch.save(Evil(), path),
    "an object among the weights": lambda path: torch.save({"model": {"w": torch.zeros(1), "x": Evil()}}, path),
    "a checkpoint of old torch": lambda path: torch.save({"model": Evil()}, path, _use_new_zipfile_serialization=False),
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
}


@pytest.fixture(params=PICKLES)
def spoil(request, work):
    """Puts a pickle with code in the place of a file; it would do harm where pickles are trusted."""
    yield PICKLES[request.param]
    assert not HARM().exists()


def test_the_pickles_are_harmful_to_who_trusts_them(work):
    pickle.loads(pickle.dumps(Evil()))
    assert HARM().is_dir()


def test_code_in_the_weights_of_our_model_is_not_run(refused, spoil):
    spoil(BEST)
    refused("pred", f"'{BEST}' is damaged or no checkpoint of weights")


def test_code_in_the_weights_of_a_model_of_biom3d_is_not_run(refused, spoil):
    Path("model/fold_0/plan.yaml").unlink()  # what is left is a folder as Biom3d 0.1.2 makes it
    config = Path("model/fold_0/log/config.yaml")
    config.write_text(re.sub("TRAINED_ON_VERSION: .*", "TRAINED_ON_VERSION: 0.1.2", config.read_text()))
    spoil(BEST)
    refused("pred", f"'{BEST}' is damaged or no checkpoint of weights")


def test_code_in_the_weights_of_a_packed_model_is_not_run(refused, spoil):
    spoil(BEST)
    pack_model([Path("model/fold_0")], Path("m.zip"))
    refused("pred", "is damaged or no checkpoint of weights", options=["--log", "m.zip"])


def test_code_in_the_state_of_a_training_is_not_run(work, spoil, capfd):
    spoil(LAST)
    plan = Path("model/fold_0/plan.yaml")
    plan.write_text(plan.read_text().replace("num_epochs: 2", "num_epochs: 3"))
    assert import_module("biom3d.train").main(["--log", "model/fold_0"]) == 2
    assert f"'{LAST}' is damaged or no checkpoint" in capfd.readouterr().err


def test_code_in_the_model_that_a_training_starts_from_is_not_run(refused, spoil):
    spoil(BEST)
    refused("train", "is damaged or no checkpoint of weights", options=["--log", "model/fold_0"])


@pytest.mark.parametrize("name", ["fold_0/../../harm", "/tmp/harm", "fold_0/../harm", "..\\harm", "fold_0/a:b"])
def test_a_packed_model_that_would_land_elsewhere_is_refused(refused, name):
    pack_model([Path("model/fold_0")], Path("m.zip"))
    with zipfile.ZipFile("m.zip") as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    manifest = json.loads(files["manifest.json"])
    manifest["files"][name] = manifest["files"]["fold_0/plan.yaml"]
    files |= {"manifest.json": json.dumps(manifest).encode(), name: files["fold_0/plan.yaml"]}
    with zipfile.ZipFile("m.zip", "w") as archive:
        for entry, content in files.items():
            archive.writestr(entry, content)
    refused("pred", "would not land inside a fold_<k> folder", options=["--log", "m.zip"])
    assert not [path for path in (HARM(), Path("/tmp/harm"), Path("../harm")) if path.exists()]


ENTITIES = {
    "billion laughs": '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>' + XML.format("&b;"),
    "another file": '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + XML.format("&f;"),
    "another server": '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">' + XML.format(""),
    "other letters": "<?xml version='1.0'?><!doctype x [<! entity a 'b'>]>" + XML.format("&a;"),
}


@pytest.mark.parametrize("text", ENTITIES.values(), ids=ENTITIES)
@pytest.mark.parametrize("step", ["check", "preprocess", "pred"])
def test_entities_in_an_ome_tiff_are_refused_by_every_step(work, step, text, capfd):
    image = np.zeros((16, 24, 24), np.uint16)
    tifffile.imwrite("data/images/a.tif", image, description=text, metadata=None, ome=False)
    options = {**STEPS, "check": ["--img_path", "data/images", "--out", "out/check.json"]}[step]
    assert import_module(f"biom3d.{step}").main(options) == 2
    assert "its XML description defines entities (DOCTYPE)" in capfd.readouterr().err


@pytest.mark.parametrize("codec", [{"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle", "protocol": 4}}])
@pytest.mark.parametrize("dtype", ["<u2", "|O"])
def test_a_zarr_of_pickles_is_refused_and_not_run(work, codec, dtype):
    folder = Path("a.zarr")
    (folder / "0/0/0").mkdir(parents=True)
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    array = {"zarr_format": 2, "shape": [4] * 3, "chunks": [4] * 3, "dtype": dtype, "fill_value": 0, "order": "C"}
    array |= {"dimension_separator": "/", "filters": None, "compressor": None, **codec}
    for name, content in ((".zgroup", {"zarr_format": 2}), (".zattrs", {"multiscales": [image]}), ("0/.zarray", array)):
        (folder / name).write_text(json.dumps(content))
    (folder / "0/0/0/0").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"a\.zarr"):
        read_volume(folder)
    assert not HARM().exists()


READERS = {"plan": load_plan, "card": read_card, "profile": read_profile, "configuration of Biom3d": read_biom3d_config}
KEYS = "NUM_POOLS: [2, 3, 3]\nPATCH_SIZE: [8, 16, 16]\nNUM_CLASSES: "
TAGS = ("python/object/apply:os.mkdir [{}]", "python/object/new:os.mkdir [{}]", "python/name:os.mkdir", "ruby/x {}")


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_object_tags_in_a_configuration_are_refused(tmp_path, monkeypatch, read, tag):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"{KEYS}!!{tag.format(HARM())}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read("a.yaml" if read is read_profile else Path("a.yaml"))
    assert not HARM().exists()


def laughs(kind: str) -> str:
    """Return a few lines that stand for a billion values, as one value."""
    parts = ["&a [x, x, x, x, x, x, x, x, x, x]"]
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True):
        items = [f"*{before}"] * 10
        parts.append(
            f"&{letter} [{', '.join(items)}]"
            if kind == "list"
            else f"&{letter} {{{', '.join(f'k{number}: {item}' for number, item in enumerate(items))}}}"
        )
    return f"[{', '.join(parts)}]"


@pytest.mark.parametrize("kind", ["list", "mapping"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_yaml_bomb_is_refused_at_once(tmp_path, monkeypatch, read, kind):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"{KEYS}{laughs(kind)}\n")
    with pytest.raises(ConfigError, match="stand for more than"):
        read("a.yaml" if read is read_profile else Path("a.yaml"))


@pytest.mark.parametrize("text", ["[" * 100_000, "a: &a [*a]\n", "a: &a {b: *a}\n"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_yaml_without_an_end_is_refused(tmp_path, monkeypatch, read, text):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read("a.yaml" if read is read_profile else Path("a.yaml"))


def test_aliases_that_stand_for_little_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("one: &one [1, 2]\ntwo: *one\n")
    assert read_yaml(tmp_path / "a.yaml")["two"] == [1, 2]
