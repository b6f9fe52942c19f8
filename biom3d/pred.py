"""`python -m biom3d.pred`: segment images with one trained model or an ensemble."""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser
from biom3d.config import SpacingUm
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.files import is_taken, output_error, remove, scratch_folder, write_json
from biom3d.options import add_spacing_option, add_threads_option, spacing_from

if TYPE_CHECKING:
    import numpy as np

    from biom3d.io import LazyVolume
    from biom3d.prediction.sliding import Predictor

RECORD = ".biom3d-predictions.json"  # lists what this program wrote into a folder, and with which model
DESCRIPTION = """Segment images with a trained model.

  biom3d pred --log logs/nuclei/fold_0 --path_in images/ --path_out predictions/

Several model folders after --log are averaged (an ensemble, such as all folds of one training). A zip made by
`biom3d export model` works too. Label volumes get the names, format and voxel spacing of the images."""


@dataclass(frozen=True)
class PredictOptions:
    """How a folder is predicted. `mirror` averages all mirrored views; `keep` is a name in `postprocess.KEEP`."""

    mirror: bool = False
    keep: str = "none"
    spacing_um: SpacingUm | None = None


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options of Biom3d 0.1.2 and explicit paths."""
    parser = step_parser("pred", DESCRIPTION)
    parser.add_argument(
        "-n",
        "--name",
        default="seg",
        choices=["seg", "seg_multiple", "seg_single"],
        help="kept for Biom3d's users",
    )
    parser.add_argument("-l", "--log", nargs="+", required=True, metavar="RUN", help="model folder(s) or zip")
    parser.add_argument(
        "-i", "--path_in", "--dir_in", required=True, metavar="DIR", help="folder of images, or one image"
    )
    parser.add_argument(
        "-o",
        "--path_out",
        "--dir_out",
        metavar="DIR",
        help="write DIR/<name of the first model folder>/<image>",
    )
    parser.add_argument(
        "--out_dir", metavar="DIR", help="write exactly here; DIR.partial holds the work until all is done"
    )
    parser.add_argument("--tta", action="store_true", help="average mirrored views: a little better, up to 8 x slower")
    parser.add_argument("--no_tta", action="store_true", help="do not mirror (the default)")
    parser.add_argument(
        "--keep",
        default="none",
        choices=["none", "biggest", "big"],
        help="keep of each class: everything, the biggest object, or all but the small ones",
    )
    add_spacing_option(parser)
    add_threads_option(parser)
    parser.add_argument("-a", "--path_lab", "--dir_lab", help=argparse.SUPPRESS)
    parser.add_argument("-e", "--eval_only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--skip_preprocessing", action="store_true", help=argparse.SUPPRESS)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Predict all images that the options name."""
    from biom3d.training.device import prepare_cpu

    if args.path_lab or args.eval_only:
        raise ConfigError("pred only predicts; compare with the truth by `biom3d eval --path_pred ... --path_lab ...`")
    if args.skip_preprocessing:
        raise ConfigError("--skip_preprocessing is not offered; leave it out and give the raw images")
    if args.tta and args.no_tta:
        raise ConfigError("--tta and --no_tta contradict each other; give one of them")
    if (args.path_out is None) == (args.out_dir is None):
        raise ConfigError("give --path_out DIR (a sub-folder per model is made) or --out_dir DIR (exactly there)")
    options = PredictOptions(args.tta, args.keep, spacing_from(args))
    prepare_cpu(args.threads)
    with _model_folders(args.log) as runs:
        if args.out_dir is not None:
            final = Path(args.out_dir)
            partial = final.parent / f"{final.name}.partial"
            if is_taken(final):
                raise DataError(f"'{final}' exists and is no empty folder; choose another --out_dir or remove it")
            predict_folder(runs, Path(args.path_in), partial, options, report, is_ours=True)
            partial.replace(final)
        else:
            folder = Path(args.path_out) / Path(args.log[0]).resolve().name.removesuffix(".zip")
            predict_folder(runs, Path(args.path_in), folder, options, report, is_ours=False)


def predict_folder(
    runs: Sequence[Path],
    images: Path,
    folder: Path,
    options: PredictOptions,
    report: Reporter,
    is_ours: bool,
) -> None:
    """Write one label volume per image into `folder`; volumes that this model already wrote there are kept.

    `is_ours` says that nobody else writes there, so that what is left of another model may be replaced. An image
    that cannot be predicted does not stop the others; all problems are raised together at the end.
    """
    from biom3d.io import list_volumes

    paths = list_volumes(images)
    if folder.resolve() == (images if images.is_dir() else images.parent).resolve():
        raise DataError(f"'{folder}' is the folder of the images, which would be overwritten; choose another one")
    predictor = load_predictor(runs, options.mirror)
    record = _open_record(folder, paths, _identity(runs, options), is_ours)
    write_json(folder / RECORD, record)  # also says which names are ours, should this process be killed
    problems = []
    for number, path in enumerate(paths, start=1):
        key = _content_key(path)
        if key and record["images"].get(path.name) == key and (folder / path.name).exists():
            report.info(f"{path.name}: done before")
            continue
        try:
            seconds = _predict_file(predictor, path, folder / path.name, options, report)
        except (DataError, MemoryError) as error:
            reason = str(error) if isinstance(error, DataError) else f"out of memory: {error}"
            problems.append(reason if reason.startswith(f"'{path}'") else f"'{path}': {reason}")
            report.info(f"cannot predict {problems[-1]}")
            continue
        record["images"][path.name] = key
        write_json(folder / RECORD, record)
        report.info(f"{path.name}  {number}/{len(paths)}  {seconds:.1f} s")
        report.event("image", name=path.name, index=number, of=len(paths), seconds=round(seconds, 3))
    if problems:
        count = f"{len(problems)} of {len(paths)} images cannot be predicted; the others are done:"
        raise DataError(problems[0] if len(problems) == 1 else "\n  ".join([count, *problems]))


def load_predictor(runs: Sequence[Path], mirror: bool) -> "Predictor":
    """Load the best weights of each model folder; their plans must agree on what the data look like."""
    from biom3d.models import build_network
    from biom3d.prediction.sliding import Predictor
    from biom3d.training.checkpoint import best_path, load_checkpoint, load_run_plan
    from biom3d.training.device import choose_device
    from biom3d.training.loop import load_weights

    device = choose_device()
    plans = [load_run_plan(run) for run in runs]
    for key in ("num_classes", "num_channels", "is_2d", "patch_size", "spacing_um", "normalisation"):
        values = [getattr(plan, key) for plan in plans]
        if any(value != values[0] for value in values):
            named = ", ".join(f"'{run}': {value}" for run, value in zip(runs, values, strict=True))
            raise DataError(f"these models cannot be averaged, {key} differs ({named}); give models of one plan")
    networks = []
    for run, plan in zip(runs, plans, strict=True):
        network = build_network(plan)
        path = best_path(run, plan.desc)
        load_weights(network, load_checkpoint(path, device)["model"], str(path))
        networks.append(network.to(device).eval())
    return Predictor(plans[0], networks, device, mirror)


def _predict_file(predictor: "Predictor", path: Path, target: Path, options: PredictOptions, report: Reporter) -> float:
    """Predict one image; labels lie on disk meanwhile, so that memory does not depend on the volume."""
    import time

    from biom3d.io import open_volume, write_labels
    from biom3d.prediction.postprocess import KEEP
    from biom3d.prediction.sliding import predict_labels

    started = time.monotonic()
    try:
        with open_volume(path) as volume, scratch_folder(target.parent) as scratch:
            shape, spacing = volume.header.shape[1:], options.spacing_um or volume.header.spacing_um
            labels = _label_file(scratch / "labels.npy", shape, predictor.plan.num_classes)
            finite = dataclasses.replace(volume, read=_finite_reader(volume))
            predict_labels(predictor, finite, spacing, labels, report)
            write_labels(target, KEEP[options.keep](labels), volume.header)
    except OSError as error:
        raise output_error(target, error) from error
    return time.monotonic() - started


def _label_file(path: Path, shape: tuple[int, ...], num_classes: int) -> "np.ndarray":
    """Return an array on disk with its room reserved: a disk that fills later would kill the process (SIGBUS)."""
    import numpy as np

    labels = np.lib.format.open_memmap(path, "w+", np.uint8 if num_classes < 256 else np.uint16, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return labels


def _finite_reader(volume: "LazyVolume") -> "Callable[[int, int], np.ndarray]":
    """Return `volume.read` that raises DataError for NaN and infinity: one would make the whole volume background."""
    from biom3d.data.normalise import refuse_not_finite

    def read(z0: int, z1: int) -> "np.ndarray":
        block = volume.read(z0, z1)
        refuse_not_finite(block, z0)
        return block

    return read


@contextlib.contextmanager
def _model_folders(given: Sequence[str]) -> Iterator[list[Path]]:
    """Yield model folders; zips are unpacked for the time of the prediction."""
    from biom3d.export.package import unpack_model

    with contextlib.ExitStack() as stack:
        runs: list[Path] = []
        for path in map(Path, given):
            if path.suffix == ".zip":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="biom3d-model-"))
                runs += unpack_model(path, Path(folder))
            else:
                runs.append(path)
        yield runs


def _open_record(folder: Path, images: Sequence[Path], identity: str, is_ours: bool) -> dict[str, Any]:
    """Return what was written here by the same model before; refuse to overwrite files that we did not write."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        written = set(dict(record["images"]))
    except (OSError, ValueError, KeyError, TypeError):
        record, written = {}, set()
    foreign = [image.name for image in images if (folder / image.name).exists() and image.name not in written]
    if foreign and not is_ours:
        raise DataError(
            f"'{folder / foreign[0]}' exists and was not written by pred ({len(foreign)} such files); "
            "choose another output folder or move them away"
        )
    if written and not is_ours and record.get("identity") != identity:
        raise DataError(
            f"'{folder}' holds predictions of another model or with other options; choose another --path_out, or "
            "remove it"
        )
    names = {image.name for image in images}
    if is_ours:
        for name in written - names:  # of an image that is no longer asked for
            remove(folder / Path(name).name)
        written = names
    done = record["images"] if record.get("identity") == identity else {}
    return {"identity": identity, "images": {name: done.get(name, "") for name in sorted(written | names)}}


def _identity(runs: Sequence[Path], options: PredictOptions) -> str:
    """Return a hash of the weights and options that decide the result."""
    from biom3d.training.checkpoint import best_path, load_run_plan

    digest = hashlib.sha256(repr(options).encode())
    for run in runs:
        plan = load_run_plan(run)
        digest.update(repr((plan.patch_size, plan.spacing_um, plan.normalisation)).encode())
        with open(best_path(run, plan.desc), "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _content_key(path: Path) -> str:
    """Return what tells whether an image changed since it was predicted: sizes and times of its files, "" for none."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        facts = [(str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    except OSError:  # a broken link; reading it will say so
        return ""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("pred", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
