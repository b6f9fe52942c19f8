"""The steps as Python functions: arrays or paths in, values out.

Each function runs the code of the command of the same name, so results are equal. Arrays have the axes (y, x),
(z, y, x) or (c, z, y, x); voxel spacing is (z, y, x) in µm. Mistakes in the input raise `biom3d.errors.InputError`.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter

if TYPE_CHECKING:
    import numpy as np

    from biom3d.config import Plan, SpacingUm
    from biom3d.io import Volume
    from biom3d.metrics import ClassScore

    PathLike = str | os.PathLike[str]
    Images = PathLike | Sequence[PathLike] | Sequence[np.ndarray]

__all__ = ["evaluate", "export_labels", "plan", "predict", "preprocess", "read_volume", "train"]
AXES = {2: "YX", 3: "ZYX", 4: "CZYX"}


def read_volume(path: "PathLike", labels: bool = False) -> "Volume":
    """Read an image, or a label volume, of any format that the steps read.

    Args:
        path: a file or a `.zarr` folder; `file.h5:volumes/raw` names one array of several.
        labels: the file holds labels: integers, one channel.

    Returns:
        A volume: `array` with the axes (c, z, y, x), and `header` with `spacing_um` (z, y, x), `channel_names`
        and what else the file says.

    Raises:
        DataError: the file cannot be read, or holds several arrays of which none is named.

    >>> volume = read_volume("images/cells_001.tif")
    >>> volume.array.shape
    (1, 16, 32, 32)
    >>> volume.header.spacing_um
    (0.6, 0.3, 0.3)
    """
    from biom3d import io

    return io.read_labels(os.fspath(path)) if labels else io.read_volume(os.fspath(path))


def plan(images: "Images", masks: "Images | None" = None, **options: Any) -> "Plan":
    """Configure a model for a data set and this machine, without training.

    The planner follows nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    Args:
        images: a folder, files, or arrays.
        masks: label volumes of the same names, or in the same order: 0 is background.
        options: those of `biom3d plan`, such as `num_classes=2` or `spacing=(0.5, 0.2, 0.2)`.

    Returns:
        The plan. `plan.patch_size` and `plan.num_pools` are (z, y, x); `plan.why` gives the reason of each choice.

    >>> plan("images", "masks", num_classes=1).num_channels
    1
    """
    from biom3d.data.dataset import find_cases
    from biom3d.data.planner import plan_cases
    from biom3d.options import keys_from, plan_order
    from biom3d.plan import build_parser

    with ExitStack() as stack:
        words = _data_words(stack, images, masks, options)
        args = _parse(build_parser(), words, options)
        report = _report("plan", args)
        return plan_cases(
            plan_order(args), find_cases(args.img_path, args.msk_path, report.info, keys_from(args)), report
        )


def preprocess(images: "Images", masks: "Images", out_dir: "PathLike", **options: Any) -> Path:
    """Normalise and resample a data set, split it into folds, and plan the training.

    Args:
        images, masks: as in `plan`.
        out_dir: folder to make, for the arrays (`data/`) and the plan (`plan.yaml`).
        options: those of `biom3d preprocess`, such as `num_classes=2`, `num_epochs=50`, `spacing=(0.5, 0.2, 0.2)`.

    Returns:
        The path of the plan, which `train` takes.

    >>> preprocess("images", "masks", "prepared", num_epochs=1, num_steps=2, width=4).name
    'plan.yaml'
    """
    from biom3d import preprocess as step

    folder = Path(out_dir)
    with ExitStack() as stack:
        words = _data_words(stack, images, masks, options)
        words += ["--out_dir", str(folder / "data"), "--plan_out", str(folder / "plan.yaml")]
        args = _parse(step.build_parser(), words, options)
        return step.preprocess(args, _report("preprocess", args))[1].plan


def train(plan_file: "PathLike", run_dir: "PathLike", fold: int = 0, **options: Any) -> Path:
    """Train one model; a training that was interrupted goes on.

    Args:
        plan_file: what `preprocess` returned.
        run_dir: model folder to make.
        fold: the part of the data set that is kept for validation, from 0.
        options: those of `biom3d train`, such as `threads=4` or `max_minutes=30`.

    Returns:
        The model folder, which `predict` takes.

    >>> train("prepared/plan.yaml", "model").name
    'model'
    """
    from biom3d import train as step

    words = ["--config", str(plan_file), "--run_dir", str(run_dir), "--fold", str(fold), *_words(options)]
    args = _parse(step.build_parser(), words, {})
    return step.run(words, _report("train", args))


def predict(
    model: "PathLike | Sequence[PathLike]",
    image: "PathLike | np.ndarray",
    spacing_um: "SpacingUm | None" = None,
    scores: bool = False,
    **options: Any,
) -> "np.ndarray | tuple[np.ndarray, np.ndarray]":
    """Segment one image with a trained model.

    Args:
        model: a model folder, several of them (an ensemble), or a zip made by `biom3d export model`.
        image: a file, or an array (y, x), (z, y, x) or (c, z, y, x).
        spacing_um: voxel spacing (z, y, x) in µm, for arrays and for files that do not tell.
        scores: return the scores too.
        options: those of `biom3d pred`, such as `tta=True`, `keep="biggest"` or `memory_limit=4`.

    Returns:
        Labels (z, y, x), or (y, x) for a 2D image: 0 is background. With `scores` also an array (class, z, y, x)
        of 16-bit numbers from 0 to 1, the background first.

    >>> image = read_volume("images/cells_001.tif").array
    >>> predict("model", image, spacing_um=(0.6, 0.3, 0.3)).shape
    (16, 32, 32)
    """
    from biom3d import io
    from biom3d import pred as step
    from biom3d.data.predictions import SCORES

    with tempfile.TemporaryDirectory(prefix="biom3d-predict-") as scratch:
        source = _write_array(image, Path(scratch, "image.h5"), spacing_um) if _is_array(image) else Path(str(image))
        models = [model] if isinstance(model, str | os.PathLike) else list(model)
        words = ["--log", *map(str, models), "--path_in", str(source), "--out_dir", str(Path(scratch, "out"))]
        more = dict(options) | ({"scores": True} if scores else {})
        args = _parse(step.build_parser(), words, more | ({"spacing": spacing_um} if spacing_um else {}))
        step.execute(args, _report("pred", args))
        (path,) = io.list_volumes(Path(scratch, "out"))
        volume = io.read_labels(path)
        labels = volume.array[0]
        if not scores:
            return labels[0] if volume.header.is_2d else labels
        shares = io.read_volume(Path(scratch, "out", SCORES, f"{io.volume_name(path)}.ome.zarr")).array
        return (labels[0], shares[:, 0]) if volume.header.is_2d else (labels, shares)


def evaluate(
    prediction: "PathLike | np.ndarray",
    truth: "PathLike | np.ndarray",
    num_classes: int = 1,
    spacing_um: "SpacingUm | None" = None,
) -> "list[ClassScore]":
    """Compare one label volume with the truth.

    Args:
        prediction, truth: files, or arrays (y, x) or (z, y, x) of integers from 0 to `num_classes`. Where the truth
            is negative nobody has annotated it, and nothing counts.
        num_classes: classes, the background not counted.
        spacing_um: voxel spacing (z, y, x) in µm; default: what the files say.

    Returns:
        A score of each class: `dice`, `iou`, `hd95` in `unit`, sizes in voxels. HD95 is weighted by surface area
        (Nikolov et al. 2021, doi:10.2196/26151).

    Raises:
        DataError: the shapes differ, or a label is above `num_classes`.

    >>> import numpy as np
    >>> truth = np.zeros((8, 8, 8), np.uint8)
    >>> truth[2:6, 2:6, 2:6] = 1
    >>> [score] = evaluate(truth, truth, spacing_um=(1, 1, 1))
    >>> score.dice, score.hd95, score.unit
    (1.0, 0.0, 'µm')
    """
    from biom3d.metrics import score_case

    (pred, _), (true, stored) = _labels_of(prediction, "prediction"), _labels_of(truth, "truth")
    return score_case(pred, true, num_classes, spacing_um or stored)


def export_labels(
    labels: "PathLike | np.ndarray",
    image: "PathLike | np.ndarray",
    path: "PathLike",
    spacing_um: "SpacingUm | None" = None,
    label_name: str = "prediction",
) -> Path:
    """Write labels for viewers: OME-TIFF with the labels, or OME-Zarr (NGFF 0.5) with the image and the labels.

    Args:
        labels: a file, or an array (y, x) or (z, y, x) of integers.
        image: the image that they belong to: a file, or an array.
        path: what to write; its name ends in `.ome.tif` or `.ome.zarr`.
        spacing_um: voxel spacing (z, y, x) in µm, for arrays and for files that do not tell.
        label_name: name of the labels in the file.

    Returns:
        `path`.

    >>> export_labels("masks/cells_001.tif", "images/cells_001.tif", "cells.ome.zarr").name
    'cells.ome.zarr'
    """
    from biom3d.export.__main__ import SUFFIXES, write_ome_tiff
    from biom3d.export.ome_zarr import write_with_labels

    out = Path(path)
    writers = {SUFFIXES["ome-tiff"]: write_ome_tiff, SUFFIXES["ome-zarr"]: write_with_labels}
    write = next((writers[suffix] for suffix in writers if out.name.endswith(suffix)), None)
    if write is None:
        raise ConfigError(f"'{out}': wanted a name that ends in {' or '.join(writers)}")
    with tempfile.TemporaryDirectory(prefix="biom3d-export-") as scratch:
        given = [
            _write_array(source, Path(scratch, f"{name}.h5"), spacing_um) if _is_array(source) else Path(str(source))
            for name, source in (("image", image), ("labels", labels))
        ]
        write(out, given[0], given[1], label_name, spacing_um)
    return out


def _labels_of(source: "PathLike | np.ndarray", name: str) -> "tuple[np.ndarray, SpacingUm | None]":
    """Return labels (z, y, x) and their voxel spacing."""
    if not _is_array(source):
        volume = read_volume(source, labels=True)  # type: ignore[arg-type]
        return volume.array[0], volume.header.spacing_um
    array: Any = source
    if array.ndim not in (2, 3) or array.dtype.kind not in "iub":
        raise DataError(f"the {name} is {array.dtype} {array.shape}; wanted integers (y, x) or (z, y, x)")
    return array if array.ndim == 3 else array[None], None


def _data_words(stack: ExitStack, images: "Images", masks: "Images | None", options: Mapping[str, Any]) -> list[str]:
    """Return images and masks as options of a step; arrays are written into a folder that goes with `stack`."""
    spacing = options.get("spacing")
    words = ["--img_path", *stack.enter_context(_paths(images, spacing))]
    return [*words, "--msk_path", *stack.enter_context(_paths(masks, spacing))] if masks is not None else words


@contextmanager
def _paths(given: "Images", spacing_um: "SpacingUm | None") -> Iterator[list[str]]:
    if isinstance(given, str | os.PathLike):
        yield [os.fspath(given)]
        return
    sources = list(given)
    if not any(map(_is_array, sources)):
        yield [os.fspath(source) for source in sources]  # type: ignore[arg-type]
        return
    with tempfile.TemporaryDirectory(prefix="biom3d-arrays-") as folder:
        for number, array in enumerate(sources):
            _write_array(array, Path(folder, f"volume_{number:04}.h5"), spacing_um)
        yield [folder]


def _is_array(source: object) -> bool:
    return hasattr(source, "__array__")


def _write_array(array: Any, path: Path, spacing_um: "SpacingUm | None") -> Path:
    """Write an array where the steps can read it."""
    import numpy as np

    from biom3d.io import Header, write_volume

    array = np.asarray(array)
    if array.ndim not in AXES:
        raise DataError(f"an array of shape {array.shape}; wanted the axes (y, x), (z, y, x) or (c, z, y, x)")
    full = array.reshape((1,) * (4 - array.ndim) + array.shape)
    c, z, y, x = full.shape
    spacing = tuple(float(size) for size in spacing_um) if spacing_um else None
    write_volume(path, full, Header((c, z, y, x), full.dtype, AXES[array.ndim], spacing))  # type: ignore[arg-type]
    return path


def _words(options: Mapping[str, Any]) -> list[str]:
    """Return Python's options as those of a command: True is the option alone, a sequence is several values."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        values = [] if value is True else list(value) if isinstance(value, list | tuple) else [value]
        words += [f"--{name}", *map(str, values)]
    return words


def _parse(parser: argparse.ArgumentParser, words: Sequence[str], options: Mapping[str, Any]) -> argparse.Namespace:
    """Return the options of a step; what its parser refuses is a ConfigError."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message)

    parser.error = refuse  # type: ignore[method-assign]
    known = {flag for action in parser._actions for flag in action.option_strings}
    for name in options:
        if f"--{name}" not in known:
            raise ConfigError(f"'{name}' is no option of {parser.prog}; {parser.prog} --help lists them")
    return parser.parse_args([*words, *_words(options)])


def _report(step: str, args: argparse.Namespace) -> Reporter:
    """Return what tells of the work: lines on stderr, as the commands do."""
    report = Reporter(step, getattr(args, "events", None))
    report.is_strict = bool(getattr(args, "strict", False))
    return report
