"""Steps on volumes that are too large for the memory: the same results, from arrays on disk, few planes at a time."""

import csv
import hashlib
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from biom3d import eval as evaluation
from biom3d import metrics, preprocess, quality, report
from biom3d.data import facts, normalise
from biom3d.export import __main__ as export
from biom3d.io import Header, mapped, read_labels, write_labels, write_volume

SPACING = (0.5, 0.25, 0.25)


@pytest.fixture
def small_memory(monkeypatch):
    """Take arrays of a few kilobytes for large ones."""
    monkeypatch.setattr(mapped, "HELD_BYTES", 1000)
    monkeypatch.setattr(mapped, "SLAB_BYTES", 9000)
    monkeypatch.setattr(facts, "PLANES_BYTES", 10)


def make_set(folder: Path, shape=(20, 24, 28), channels=1, spacings=(SPACING,) * 2, classes=3, dtype="uint16") -> Path:
    """Write images and masks of cubes; 255 in the masks' last planes."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, spacing in enumerate(spacings):
        cubes = rng.integers(0, classes + 1, [-(-n // 4) for n in shape])
        labels = np.kron(cubes, np.ones((4, 4, 4), int))[: shape[0], : shape[1], : shape[2]].astype(np.uint8)
        labels[-2:] = 255
        image = (rng.normal(100, 20, (channels, *shape)) + 10 * labels).astype(dtype)
        header = Header(image.shape, image.dtype, "ZYX" if channels == 1 else "CZYX", spacing)
        write_volume(folder / "images" / f"{name}.tif", image, header)
        write_labels(folder / "masks" / f"{name}.tif", labels, header)
    return folder


def preprocess_to(folder: Path, source: Path, *options: str) -> dict[str, str]:
    """Run preprocess; return hashes of what it wrote by name, without the plan, which names its folder."""
    paths = ["--img_path", str(source / "images"), "--msk_path", str(source / "masks"), "--out_dir", str(folder)]
    words = ["--plan_out", str(folder.parent / "plan.yaml"), "--ignore_label", "255", "--num_classes", "3"]
    assert preprocess.main([*paths, *words, "--folds", "2", "--desc", "m", *options]) == 0
    return {str(path.relative_to(folder)): _hash(path) for path in folder.rglob("*") if path.is_file()}


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("made", "options"),
    [
        ({}, ()),
        ({"channels": 2, "dtype": "float32", "spacings": [SPACING]}, ()),  # cut into blocks
        ({"spacings": [SPACING, (1.0, 0.25, 0.25), (0.5, 0.2, 0.2)]}, ()),  # z resampled, y and x resampled
        ({"spacings": [SPACING, (0.3, 0.4, 0.25), (0.9, 0.2, 0.3)], "channels": 2}, ("--ct_norm",)),
    ],
)
def test_preprocessing_on_disk_writes_the_same_bytes(tmp_path, request, made, options):
    source = make_set(tmp_path / "set", **made)
    held = preprocess_to(tmp_path / "held", source, *options)
    plan = (tmp_path / "plan.yaml").read_text()
    request.getfixturevalue("small_memory")
    assert preprocess_to(tmp_path / "disk", source, *options) == held
    assert (tmp_path / "plan.yaml").read_text() == plan.replace(str(tmp_path / "held"), str(tmp_path / "disk"))


def test_preprocessing_on_disk_holds_a_part_of_a_volume(tmp_path, monkeypatch):
    shape = (96, 128, 128)
    source = make_set(tmp_path / "set", shape, spacings=(SPACING, (1.0, 0.25, 0.25), SPACING))
    monkeypatch.setattr(mapped, "HELD_BYTES", 1000)
    monkeypatch.setattr(mapped, "SLAB_BYTES", 2 * 4 * 128 * 128)
    monkeypatch.setattr(facts, "PLANES_BYTES", 10)
    monkeypatch.setattr(facts, "LABELS_AT_ONCE", 2 * 128 * 128)
    monkeypatch.setattr(normalise, "VOXELS_AT_ONCE", 1 << 14)
    import cc3d  # noqa: F401, imported here so that it does not count

    tracemalloc.start()
    preprocess_to(tmp_path / "pre", source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * 4 * np.prod(shape)  # of the float32 image, which was held several times


@pytest.fixture
def compare(tmp_path, request):
    """Return what runs a step on masks and moved masks, in memory and from disk, and compares what it writes."""
    source = make_set(tmp_path / "set")
    (source / "pred").mkdir()
    for path in (source / "masks").iterdir():
        labels = read_labels(path)
        moved = np.roll(labels.array[0], 1, axis=1)
        moved[moved == 255] = 1
        write_labels(source / "pred" / path.name, moved, labels.header)

    def run_both(step: ModuleType, words: str) -> None:
        paths = {name: str(source / name) for name in ("images", "masks", "pred")}
        for place in ("held", "disk"):
            if place == "disk":
                request.getfixturevalue("small_memory")
            assert step.main(words.format(**paths, out=tmp_path / place).split()) == 0
        found = [
            {path.name: _hash(path) for path in (tmp_path / place).rglob("*") if path.is_file()}
            for place in ("held", "disk")
        ]
        assert found[0] == found[1]
        assert found[0]

    return run_both


@pytest.mark.parametrize("labels", ["--num_classes 3 --ignore_label 255", "--num_classes 4 --label_values 1 2 3 255"])
def test_scores_from_disk_are_the_same(compare, labels):
    compare(
        evaluation,
        f"--path_pred {{pred}} --path_lab {{masks}} --out_csv {{out}}/m.csv --out_json {{out}}/m.json {labels}",
    )


def test_quality_from_disk_is_the_same(compare):
    compare(quality, "--path_pred {pred} --path_in {images} --out_csv {out}/q.csv")


def test_pictures_from_disk_are_the_same(compare):
    words = "overlay --path_pred {pred} --path_in {images} --path_lab {masks} --num_classes 3 --ignore_label 255"
    compare(report, f"{words} --out_dir {{out}}")


def test_labels_that_are_floats_are_exported_from_disk(tmp_path, small_memory):
    source = make_set(tmp_path / "set", spacings=(SPACING,))
    labels = read_labels(source / "masks" / "0.tif")
    (source / "pred").mkdir()
    write_volume(source / "pred" / "0.tif", labels.array.astype(np.float32), labels.header)
    words = f"labels --path_pred {source}/pred --path_in {source}/images --out_dir {tmp_path}/out --formats ome-tiff"
    assert export.main(words.split()) == 0
    exported = read_labels(tmp_path / "out" / "0.ome.tif").array
    assert exported.dtype == np.uint8
    np.testing.assert_array_equal(exported, labels.array)


def test_scores_without_hd95_where_that_takes_more_memory_than_there_is(tmp_path, monkeypatch, capfd):
    masks = str(make_set(tmp_path / "set", spacings=(SPACING,)) / "masks")
    monkeypatch.setattr(metrics, "HD95_BYTES", 1e9)
    words = (
        f"--path_pred {masks} --path_lab {masks} --out_csv {tmp_path}/m.csv --num_classes 4 --label_values 1 2 3 255"
    )
    assert evaluation.main(words.split()) == 0
    assert "no HD95 of class 1, 2, 3, 4: it would take up to" in capfd.readouterr().err
    with open(tmp_path / "m.csv", newline="") as file:
        assert {(row["dice"], row["hd95_um"]) for row in csv.DictReader(file)} == {("1.0", "")}
