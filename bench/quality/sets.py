"""The data sets of the quality benchmark, as every method gets them: TIFF volumes, one split, one patch size.

NIfTI becomes TIFF because Biom3d 0.1.2 cannot train on NIfTI; values, grid and voxel size stay. Where `train/` is a
single volume its last fifth along the longest axis is for validation, since no method works without.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

from biom3d.config import Triple
from biom3d.files import atomic_path, write_json
from biom3d.io import read_labels, read_volume

VALIDATION_PART, TUNING_PART, PARTS = 0, 2, 5  # of the sorted names, one in five validates


@dataclass(frozen=True)
class DataSet:
    """A data set and how it is trained on.

    Attributes:
        classes: names of the classes, the background not counted.
        unit: of HD95 and the stored voxel size; "voxels" where the files do not tell their size.
        patch, full_patch: patch (z, y, x) of the budgets tiny and full.
        labels: who made the labels.
        synth: options of `biom3d synth` for training and test volumes, where it is not in the folder of data.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    unit: str
    patch: Triple
    full_patch: Triple
    labels: str
    synth: tuple[str, str] = ("", "")


CELLS = "--shape 32 64 64 --cells 12 --classes 2 --snr 2 --format tif"
SETS = (
    DataSet(
        "hippocampus",
        "hippocampus (MRI)",
        ("anterior", "posterior"),
        "mm",
        (32, 48, 32),
        (40, 56, 40),
        "by humans (Medical Segmentation Decathlon)",
    ),
    DataSet("sarcoma_pet", "sarcoma (PET)", ("tumour",), "mm", (48, 32, 32), (96, 48, 48), "by humans (TCIA, IBSI)"),
    DataSet(
        "fly_neuropil",
        "fly neuropil (FIB-SEM)",
        ("membrane",),
        "voxels",
        (32, 48, 48),
        (48, 96, 96),
        "borders of neurons that humans corrected (gala)",
    ),
    DataSet(
        "ovule_nuclei",
        "ovule nuclei (confocal)",
        ("nucleus",),
        "µm",
        (32, 48, 48),
        (64, 80, 80),
        "proof-read nuclei (PlantSeg)",
    ),
    DataSet(
        "cells",
        "synthetic cells",
        ("cell", "nucleus"),
        "µm",
        (32, 48, 48),
        (32, 64, 64),
        "exact (`biom3d synth`)",
        (f"{CELLS} --count 10 --seed 1", f"{CELLS} --count 5 --seed 2"),
    ),
)


@dataclass(frozen=True)
class Prepared:
    """A data set on disk: `folder`/{train,test}/{images,masks}; `validation` are names of training volumes."""

    data: DataSet
    folder: Path
    training: tuple[str, ...]
    validation: tuple[str, ...]

    def path(self, part: str, kind: str) -> Path:
        """Return the folder of `part` (train or test) and `kind` (images or masks)."""
        return self.folder / part / kind

    def write_folds(self, path: Path, ending: str) -> None:
        """Write the table of folds that ours and Biom3d read: fold 0 validates."""
        rows = [f"{name}{ending},0,0" for name in self.validation] + [f"{name}{ending},0,1" for name in self.training]
        path.write_text("\n".join(["filename,hold_out,fold", *rows]) + "\n")


def prepare(data: DataSet, source: Path, folder: Path, tuning: bool) -> Prepared:
    """Write the data set into `folder` unless it is there.

    With `tuning` the volumes of test/ are not read: a part of train/ stands in for them, so that settings can be
    compared without touching the test set.
    """
    if not folder.is_dir():
        with atomic_path(folder) as new:
            read = synthetic if data.synth[0] else stored
            volumes = split(list(read(data, source, new, "train")), tuning)
            for part in ("training", "validation"):
                for volume in volumes[part]:
                    write_volume(new / "train", volume, data.unit)
            for volume in volumes["tuning"] if tuning else read(data, source, new, "test"):
                write_volume(new / "test", volume, data.unit)
            write_json(new / "split.json", {part: [v.name for v in found] for part, found in volumes.items()})
    names = json.loads((folder / "split.json").read_text())
    return Prepared(data, folder, tuple(names["training"]), tuple(names["validation"]))


@dataclass(frozen=True)
class Labelled:
    """An image and its labels (z, y, x), and the voxel size in the unit of the data set."""

    name: str
    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float] | None


def stored(data: DataSet, source: Path, _scratch: Path, part: str) -> Iterator[Labelled]:
    """Yield the volumes of a folder of labelled data, sorted by name."""
    per_unit = {"mm": 1e-3, "µm": 1.0, "voxels": 1.0}[data.unit]
    for path in sorted((source / data.name / part / "images").iterdir()):
        volume, labels = read_volume(path), read_labels(source / data.name / part / "masks" / path.name)
        um = volume.header.spacing_um
        spacing = (um[0] * per_unit, um[1] * per_unit, um[2] * per_unit) if um else None
        image = volume.array[0]
        image = image if image.dtype in (np.uint8, np.uint16) else image.astype(np.float32)
        yield Labelled(path.name.split(".")[0], image, labels.array[0].astype(np.uint8), spacing)


def synthetic(data: DataSet, _source: Path, scratch: Path, part: str) -> Iterator[Labelled]:
    """Make volumes with `biom3d synth` and yield them."""
    made = scratch / "synth" / part
    options = data.synth[part == "test"].split()
    subprocess.run([sys.executable, "-m", "biom3d.synth", str(made), *options], check=True, capture_output=True)
    (made.parent / data.name).mkdir(exist_ok=True)
    made.rename(made.parent / data.name / part)
    yield from stored(data, made.parent, scratch, part)


def split(volumes: list[Labelled], tuning: bool) -> dict[str, list[Labelled]]:
    """Part the training volumes into training, validation and, for tuning, what stands in for the test set."""
    if len(volumes) == 1:
        return cut(volumes[0], tuning)
    parts: dict[str, list[Labelled]] = {"training": [], "validation": [], "tuning": []}
    for i, volume in enumerate(volumes):
        held = {VALIDATION_PART: "validation", TUNING_PART: "tuning" if tuning else "training"}
        parts[held.get(i % PARTS, "training")].append(volume)
    return parts


def cut(volume: Labelled, tuning: bool) -> dict[str, list[Labelled]]:
    """Cut a single volume along its longest axis: 4/5 train, 1/5 validates (tuning: 3/5, 1/5, and 1/5 held out)."""
    axis = max(range(3), key=lambda a: (volume.image.shape[a], a))
    length = volume.image.shape[axis]
    edges = [0, length * 3 // 5, length * 4 // 5, length] if tuning else [0, length * 4 // 5, length, length]
    parts: dict[str, list[Labelled]] = {}
    for name, (begin, end) in zip(("training", "validation", "tuning"), pairwise(edges), strict=True):
        image, labels = (array.take(range(begin, end), axis) for array in (volume.image, volume.labels))
        parts[name] = [replace(volume, name=name, image=image, labels=labels)] if begin < end else []
    return parts


def write_volume(folder: Path, volume: Labelled, unit: str) -> None:
    """Write image and mask as ImageJ TIFF, from which ours and Biom3d read the voxel size."""
    about: dict[str, object] = {"axes": "ZYX"}
    options: dict[str, object] = {}
    if volume.spacing is not None:
        z, y, x = volume.spacing
        about |= {"spacing": z, "unit": {"µm": "micron"}.get(unit, unit)}
        options = {"resolution": (1 / x, 1 / y)}
    for kind, array in (("images", volume.image), ("masks", volume.labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        path = folder / kind / f"{volume.name}.tif"
        tifffile.imwrite(path, np.ascontiguousarray(array), imagej=True, metadata=about, **options)  # type: ignore[arg-type]
