"""`python -m biom3d.pred`: segment images with one trained model or an ensemble."""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser
from biom3d.compat.options import add_foreign_options, answer_foreign_options
from biom3d.config import SpacingUm
from biom3d.data.predictions import CROSS_VALIDATED, LEFT_OUT, RECORD, TRAINING, Prediction, described
from biom3d.errors import Biom3dError, ConfigError, DataError, OutputError
from biom3d.events import Reporter
from biom3d.files import is_taken, output_error, remove, scratch_folder, write_json
from biom3d.memory import memory_limit, resident_bytes
from biom3d.options import (
    add_key_options,
    add_memory_option,
    add_spacing_option,
    add_strict_option,
    add_threads_option,
    spacing_from,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from biom3d.config import Plan
    from biom3d.data.learned import TrainingSet
    from biom3d.io import Header, LazyVolume
    from biom3d.models import UNet
    from biom3d.prediction.biom3d import Scheme
    from biom3d.prediction.room import Room
    from biom3d.prediction.sliding import Predictor

# Of a plan: what models must agree on to be averaged.
LIKE = ("num_classes", "num_channels", "is_2d", "patch_size", "spacing_um", "normalisation", "label_values")
DESCRIPTION = """Segment images with a trained model.

  biom3d pred --log logs/nuclei/fold_0 --path_in images/ --path_out predictions/

Several model folders after --log are averaged (an ensemble, such as all folds of one training). A zip made by
`biom3d export model` works too, and so does a folder trained by Biom3d 0.1.2, whose result is that of Biom3d. Label
volumes get the names, format and voxel spacing of the images. An image that some of the models learned from is
predicted by the others alone, whatever its name is, so that a score of it is an honest one."""


@dataclass(frozen=True)
class PredictOptions:
    """How a folder is predicted.

    `mirror` averages all mirrored views; `keep` is a name in `postprocess.KEEP`; `windows` is "own" or "biom3d", None:
    as the program that made the model. A model of Biom3d may itself ask for mirrored views, which `plain` forbids,
    and for a `keep`, which counts where none is given here. `precision` is "auto", 16-bit numbers where the device is
    fast at them, or "float32". `every_model` asks those too that learned from a volume; `scores` keeps the scores.
    `skip_bad` leaves out images that are bad; `earlier` is a folder of predictions: those by the same model are taken.
    """

    mirror: bool = False
    keep: str = "none"
    spacing_um: SpacingUm | None = None
    windows: str | None = None
    plain: bool = False
    precision: str = "auto"
    img_key: str | None = field(default=None, repr=False)  # counts for each image, see `_content_key`
    every_model: bool = field(default=False, repr=False)  # not in the identity of predictions made before there was it
    scores: bool = field(default=False, repr=False)
    skip_bad: bool = field(default=False, repr=False)  # neither decides what is in a prediction
    earlier: Path | None = field(default=None, repr=False)

    def identity(self) -> str:
        """Return a text that tells options apart that give other results."""
        later = [name for name in ("every_model", "scores") if getattr(self, name)]
        return repr(self) + " ".join(later)


@dataclass(frozen=True)
class Model:
    """Loaded networks and how to predict with them; with a `scheme` as Biom3d 0.1.2 does.

    Of each network: its name, its `prior_shift`, and what it learned from, None where nobody recorded it. `held_bytes`
    is the memory of this process with the networks loaded and no image: later it holds what it freed, too.
    """

    predictor: "Predictor"
    names: tuple[str, ...]
    shifts: tuple[Sequence[float], ...]
    records: "tuple[TrainingSet | None, ...]"
    keep: str = "none"
    scheme: "Scheme | None" = None
    held_bytes: int = field(default_factory=resident_bytes)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options of Biom3d 0.1.2 and explicit paths."""
    parser = step_parser("pred", DESCRIPTION)
    parser.add_argument(
        "-n",
        "--name",
        default="seg",
        metavar="NAME",
        help="kept for Biom3d's users: seg, seg_multiple or seg_single, which do the same",
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
    parser.add_argument("--no_tta", action="store_true", help="do not mirror (the default, unless a Biom3d model does)")
    parser.add_argument(
        "--keep",
        default="none",
        choices=["none", "biggest", "big"],
        help="keep of each class: everything, the biggest object, or all but the small ones",
    )
    parser.add_argument(
        "--windows",
        choices=["own", "biom3d"],
        help="how a volume is covered: as biom3d-workflow does (faster), or exactly as Biom3d 0.1.2 (default: as the "
        "program that trained the model)",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32"],
        default="auto",
        help="auto: 16-bit numbers where the device is fast at them; float32: single precision, two to three times the "
        "time on a CPU",
    )
    add_key_options(parser, "img")
    add_strict_option(parser)
    parser.add_argument(
        "--skip_bad",
        action="store_true",
        help="leave out images that are damaged or cannot be segmented otherwise, say which, and go on with the rest",
    )
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="DIR",
        help="predictions of another run: those by the same model of images that have not changed are taken from there",
    )
    parser.add_argument(
        "--models",
        dest="ask",
        choices=["unseen", "all"],
        default="unseen",
        help="which models predict an image that some of them learned from: those that did not, or all, whose score "
        "would flatter (default: unseen)",
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="keep the scores too: scores/<name>.ome.zarr beside the labels, a channel per class, 0 to 1, 16 bits",
    )
    add_spacing_option(parser)
    add_threads_option(parser)
    add_memory_option(parser, "; of that about 3 GB are used, given more it may be a little faster")
    add_foreign_options(parser, "pred")
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Predict all images that the options name."""
    from biom3d.training.device import choose_device, describe_device, prepare_cpu

    answer_foreign_options(args, "pred", report)
    if args.tta and args.no_tta:
        raise ConfigError("--tta and --no_tta contradict each other; give one of them")
    if (args.path_out is None) == (args.out_dir is None):
        raise ConfigError("give --path_out DIR (a sub-folder per model is made) or --out_dir DIR (exactly there)")
    options = PredictOptions(
        args.tta,
        args.keep,
        spacing_from(args),
        args.windows,
        plain=args.no_tta,
        precision=args.precision,
        img_key=args.img_key,
        every_model=args.ask == "all",
        scores=args.scores,
        skip_bad=args.skip_bad,
        earlier=args.earlier,
    )
    prepare_cpu(args.threads)
    report.event("device", **describe_device(choose_device()))
    with _model_folders(args.log) as runs:
        if args.out_dir is not None:
            final = Path(args.out_dir)
            partial = final.parent / f"{final.name}.partial"
            if is_taken(final):
                raise DataError(f"'{final}' exists and is no empty folder; choose another --out_dir or remove it")
            predict_folder(runs, Path(args.path_in), partial, options, report, True, args.memory_limit)
            partial.replace(final)
        else:
            folder = Path(args.path_out) / Path(args.log[0]).resolve().name.removesuffix(".zip")
            predict_folder(runs, Path(args.path_in), folder, options, report, False, args.memory_limit)


def predict_folder(
    runs: Sequence[Path],
    images: Path,
    folder: Path,
    options: PredictOptions,
    report: Reporter,
    is_ours: bool,
    memory_gb: float | None = None,
) -> None:
    """Write one label volume per image into `folder`; volumes that this model already wrote there are kept.

    `is_ours` says that nobody else writes there, so that what is left of another model may be replaced. An image
    that cannot be predicted does not stop the others; all problems are raised together at the end, unless bad ones are
    to be left out. A result that
    cannot be written does: the next could not either. `memory_gb` limits
    the memory of this process, None: what is there.
    """
    from biom3d.data.remarks import tell_passed_over
    from biom3d.io import list_volumes, result_name, volume_file
    from biom3d.prediction.parts import is_bad, take_over

    paths = list_volumes(images, options.img_key)
    is_one = len(paths) == 1 and volume_file(paths[0]) == volume_file(images)
    if folder.resolve() == (volume_file(images).parent if is_one else volume_file(images)).resolve():
        raise DataError(f"'{folder}' is the folder of the images, which would be overwritten; choose another one")
    tell_passed_over([images], report)
    model = load_model(runs, options)
    record = _open_record(folder, paths, _identity(runs, options), is_ours)
    write_json(folder / RECORD, record)  # also says which names are ours, should this process be killed
    if options.earlier:
        keys = {result_name(path): _content_key(path) for path in paths}
        _tell_taken(take_over(options.earlier, folder, record, keys), len(paths), options.earlier, report)
        write_json(folder / RECORD, record)
    problems: list[str] = []
    bad: dict[str, str] = {}
    unexpected: Exception | None = None
    for number, path in enumerate(paths, start=1):
        key, name = _content_key(path), result_name(path)
        if key and record["images"].get(name) == key and (folder / name).exists():
            report.info(f"{name}: done before")
            continue
        try:
            prediction, seconds = _predict_file(model, path, folder / name, options, report, memory_gb)
        except OutputError:  # not the image's fault: a full disk takes no other result either
            raise
        except Exception as error:  # whatever it is, the other images can be done
            unexpected = unexpected or (None if isinstance(error, Biom3dError | MemoryError) else error)
            problems.append(_reason(path, error))
            if is_bad(path, error):
                bad[name] = problems[-1]
            report.info(f"cannot predict {problems[-1]}")
            continue
        record["images"][name] = key
        record["volumes"][name] = described(prediction)
        write_json(folder / RECORD, record)
        report.info(f"{name}  {number}/{len(paths)}  {seconds:.1f} s{_words(prediction, len(model.names))}")
        report.event("image", name=name, index=number, of=len(paths), seconds=round(seconds, 3), kind=prediction.kind)
    if unexpected is not None:
        raise unexpected
    if options.skip_bad and problems and len(problems) == len(bad) < len(paths):
        write_json(folder / RECORD, record | {LEFT_OUT: bad})
        report.warn(f"left out {len(bad)} of {len(paths)} images:\n  " + "\n  ".join(problems))
    elif problems:
        count = f"{len(problems)} of {len(paths)} images cannot be predicted; the others are done:"
        raise DataError(problems[0] if len(problems) == 1 else "\n  ".join([count, *problems]))


def _tell_taken(names: Sequence[str], images: int, earlier: Path, report: Reporter) -> None:
    if names:
        report.info(f"{len(names)} of {images} predictions are those of '{earlier}': same model, same images")


def _reason(path: Path, error: Exception) -> str:
    """Return why an image cannot be predicted, with its name."""
    if isinstance(error, MemoryError):
        reason = f"out of memory: {error}"
    else:
        reason = str(error) if isinstance(error, Biom3dError) else f"{type(error).__name__}: {error}"
    return reason if reason.startswith(f"'{path}'") else f"'{path}': {reason}"


def _words(prediction: Prediction, models: int) -> str:
    """Say what is to be known of a prediction that is not an ordinary one."""
    if prediction.kind == CROSS_VALIDATED:
        return f"  (cross-validated: by {len(prediction.models)} of {models} model(s), which did not learn from it)"
    return "  (learned from it: a score of it flatters)" if prediction.kind == TRAINING else ""


def load_model(runs: Sequence[Path], options: PredictOptions) -> Model:
    """Load the best weights of each model folder; their plans must agree on what the data look like."""
    from biom3d.compat.model import read_model
    from biom3d.data.learned import read_of_run
    from biom3d.prediction.biom3d import Scheme
    from biom3d.prediction.sliding import Predictor
    from biom3d.training.device import choose_device

    device = choose_device()
    as_biom3d = (options.windows or ("own" if _is_ours(runs[0]) else "biom3d")) == "biom3d"
    plans = [_plan_of(run) for run in runs]
    _refuse_unlike(runs, plans, LIKE)
    models = [None if _is_ours(run) and not as_biom3d else read_model(run) for run in runs]
    outputs = [model.num_outputs if model else plan.num_classes + 1 for model, plan in zip(models, plans, strict=True)]
    prepare, precision = _choose_precision(device, as_biom3d, options.precision)
    loaded = [_load_network(run, plan, n, device) for run, plan, n in zip(runs, plans, outputs, strict=True)]
    networks = [prepare(network) for network, _ in loaded]
    shifts, records = tuple(shift for _, shift in loaded), tuple(read_of_run(run) for run in runs)
    facts = tuple(run.resolve().name for run in runs), shifts, records
    first = models[0]
    keep = first.keep if first and options.keep == "none" else options.keep
    mirror = options.mirror or bool(first and first.mirror and not options.plain)
    if as_biom3d and options.scores:
        raise ConfigError("--scores: windows as those of Biom3d give labels only; give --windows own, or leave it out")
    if not as_biom3d:
        if not all(model is None or model.softmax for model in models):
            raise ConfigError("this model scores no background (USE_SOFTMAX is False); give --windows biom3d")
        return Model(Predictor(plans[0], networks, device, mirror, precision), *facts, keep)
    assert first is not None
    schemes = [Scheme(m.spacing, m.clip, m.moments, m.softmax) for m in models if m is not None]
    _refuse_unlike(runs, schemes, ("spacing", "clip", "moments", "softmax"))
    return Model(Predictor(plans[0], networks, device, mirror, precision), *facts, keep, schemes[0])


def choose_networks(model: Model, members: Sequence[int]) -> "Predictor":
    """Return the predictor of some of the networks, for one volume."""
    import numpy as np

    from biom3d.prediction.agreement import Agreement

    whole = model.predictor
    networks = [whole.networks[place] for place in members]
    # as the scores, whose mean decides; the windows of Biom3d know nothing of it
    shifts = [model.shifts[place] for place in members]
    shift = [0.0] * len(shifts[0]) if model.scheme else np.mean(shifts, axis=0).tolist()
    is_compared = (len(networks) > 1 or whole.mirror) and (model.scheme is None or model.scheme.softmax)
    agreement = Agreement(shift, whole.mirror) if is_compared else None
    return dataclasses.replace(whole, networks=networks, prior_shift=shift, agreement=agreement)


def _choose_precision(
    device: "torch.device", as_biom3d: bool, precision: str
) -> "tuple[Callable[[UNet], torch.nn.Module], Callable[[torch.device], AbstractContextManager[None]]]":
    """Return what brings a network into the form to predict with, and the context to run it in.

    A CPU takes bfloat16 where it is fast at it, for models of Biom3d too, though Biom3d does not: a third of the time,
    99.97 % or more of the same labels (bench/peers.md).
    """
    import torch

    from biom3d.models.inference import CpuForm
    from biom3d.prediction.biom3d import biom3d_half
    from biom3d.training.device import autocast_to, half_precision

    half = half_precision(device) if precision == "auto" else None
    if device.type == "cpu":
        return lambda network: CpuForm(network, half or torch.float32), functools.partial(autocast_to, None)
    if as_biom3d and precision == "auto":
        half = biom3d_half(device)
    return lambda network: network, functools.partial(autocast_to, half)


def _is_ours(run: Path) -> bool:
    """Tell our model folders, whole or not, and what is none at all, from those of Biom3d."""
    from biom3d.compat.read import read_biom3d_config
    from biom3d.compat.write import OURS

    config = run / "log" / "config.yaml"
    if (run / "plan.yaml").exists() or not config.exists():
        return True
    return str(read_biom3d_config(config).get("TRAINED_ON_VERSION", "")).startswith(OURS)


def _plan_of(run: Path) -> "Plan":
    from biom3d.compat.model import read_model
    from biom3d.training.checkpoint import load_run_plan

    return load_run_plan(run) if _is_ours(run) else read_model(run).plan


def _refuse_unlike(runs: Sequence[Path], facts: Sequence[Any], keys: Sequence[str]) -> None:
    for key in keys:
        values = [getattr(fact, key) for fact in facts]
        if any(value != values[0] for value in values):
            named = ", ".join(f"'{run}': {value}" for run, value in zip(runs, values, strict=True))
            raise DataError(f"these models cannot be averaged, {key} differs ({named}); give models of one plan")


def _load_network(run: Path, plan: "Plan", outputs: int, device: "torch.device") -> "tuple[UNet, Sequence[float]]":
    """Return the network of a model folder with its best weights, ready to predict, and its `prior_shift`."""
    from biom3d.models import UNet
    from biom3d.training.checkpoint import best_path, load_checkpoint, prior_shift_of
    from biom3d.training.loop import load_weights

    path = best_path(run, plan.desc)
    network = UNet(plan.num_channels, outputs, plan.num_pools, plan.width)
    saved = load_checkpoint(path, device)
    load_weights(network, saved["model"], str(path))
    return network.to(device).eval(), prior_shift_of(saved, outputs, path)


def _predict_file(
    model: Model, path: Path, target: Path, options: PredictOptions, report: Reporter, memory_gb: float | None
) -> tuple[Prediction, float]:
    """Predict one image; labels lie on disk meanwhile, so that memory does not depend on the volume."""
    import time

    import numpy as np

    from biom3d.data.remarks import tell_remarks
    from biom3d.data.unlike import strange_intensities
    from biom3d.io import open_volume, write_labels
    from biom3d.io.mapped import array_on_disk
    from biom3d.prediction.biom3d import predict_like_biom3d
    from biom3d.prediction.choice import choose_members
    from biom3d.prediction.postprocess import KEEP, with_values
    from biom3d.prediction.sliding import predict_labels
    from biom3d.training.device import explain_out_of_memory

    started = time.monotonic()
    try:
        with (
            open_volume(path) as volume,
            scratch_folder(target.parent) as scratch,
            explain_out_of_memory("more was needed than was there", "give a lower --memory_limit, or more memory"),
        ):
            header = volume.header
            tell_remarks([(path, header)], report)
            choice = choose_members(volume, model.records, options.every_model)
            predictor = choose_networks(model, choice.members)
            _warn_without_spacing(path, header, predictor.plan, options, report)
            values = predictor.plan.label_values
            highest = max(predictor.plan.num_classes, *values, 0)
            shape = header.shape[1:]
            labels = array_on_disk(scratch / "labels.npy", np.min_scalar_type(highest), shape)
            classes = predictor.plan.num_classes + 1
            shares = array_on_disk(scratch / "scores.npy", np.float16, (classes, *shape)) if options.scores else None
            finite = dataclasses.replace(volume, read=_finite_reader(volume))
            if words := strange_intensities(finite, model.records):
                report.warn(f"'{path}': {words}; was it taken in another way? look at the result")
            room = _room(model, header, scratch, memory_gb)
            if model.scheme is None:
                spacing = options.spacing_um or header.spacing_um
                predict_labels(predictor, finite, spacing, labels, report, room, shares)
            else:
                spacing = options.spacing_um or _stored_spacing(header)
                predict_like_biom3d(predictor, model.scheme, finite, spacing, labels, report, room)
            if shares is not None:
                _write_scores(target, shares, header)
            write_labels(target, with_values(KEEP[model.keep](labels), values), header)
    except OSError as error:
        raise output_error(target, error) from error
    names = tuple(model.names[place] for place in choice.members)
    agreement = predictor.agreement
    folds, views = (agreement.folds(), agreement.views()) if agreement else (None, None)
    return Prediction(choice.kind, names, folds, views), time.monotonic() - started


def _write_scores(labels: Path, shares: "np.ndarray", header: "Header") -> None:
    from biom3d.data.predictions import SCORES
    from biom3d.io import volume_name, write_volume

    names = ("background", *(f"class {label}" for label in range(1, len(shares))))
    new = dataclasses.replace(header, axes="CYX" if header.is_2d else "CZYX", channel_names=names, extra={})
    write_volume(labels.parent / SCORES / f"{volume_name(labels)}.ome.zarr", shares, new)


def _warn_without_spacing(
    path: Path, header: "Header", plan: "Plan", options: PredictOptions, report: Reporter
) -> None:
    if options.spacing_um or header.spacing_um or not plan.spacing_um:
        return
    assumed = " x ".join(f"{size:g}" for size in plan.spacing_um)
    report.warn(
        f"'{path}' does not tell its voxel size; that of the model is assumed, {assumed} µm (z, y, x); if it is "
        "another one give --spacing Z Y X"
    )


def _room(model: Model, header: "Header", scratch: Path, memory_gb: float | None) -> "Room":
    """Return the room that the prediction of a volume has in memory and, for copies, on disk."""
    from biom3d.prediction.postprocess import refuse_large
    from biom3d.prediction.room import measure_room

    limit = memory_limit(memory_gb)
    refuse_large(model.keep, header.shape[1:], model.held_bytes, limit)
    held = model.held_bytes + model.predictor.window_bytes()
    return measure_room(limit, header, held, scratch, memory_gb is not None)


def _stored_spacing(header: "Header") -> SpacingUm | None:
    """Return the voxel size as the file has it, since Biom3d knows no units; NIfTI is read in mm."""
    from biom3d.io.units import spacing_in_unit

    if header.spacing_um is None:
        return None
    return spacing_in_unit(header.spacing_um, "mm" if "affine" in header.extra else header.unit)


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
                runs += _folds_of(path)
        yield runs


def _folds_of(path: Path) -> list[Path]:
    """Return the folds in the folder of a model, logs/MODEL; what is a fold itself, or none of ours, as it is."""
    if (path / "plan.yaml").is_file():
        return [path]
    folds = [(int(fold.name[5:]), fold) for fold in path.glob("fold_*") if fold.name[5:].isdigit()]
    return [fold for _, fold in sorted(folds)] or [path]


def _open_record(folder: Path, images: Sequence[Path], identity: str, is_ours: bool) -> dict[str, Any]:
    """Return what was written here by the same model before; refuse to overwrite files that we did not write."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        written = set(dict(record["images"]))
    except (OSError, ValueError, KeyError, TypeError):
        record, written = {}, set()
    from biom3d.io import result_name

    names = {result_name(image) for image in images}
    foreign = sorted(name for name in names - written if (folder / name).exists())
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
    if is_ours:
        for name in written - names:  # of an image that is no longer asked for
            remove(folder / Path(name).name)
        written = names
    is_same = record.get("identity") == identity
    done, told = (record["images"], record.get("volumes")) if is_same else ({}, {})
    return {
        "identity": identity,
        "images": {name: done.get(name, "") for name in sorted(written | names)},
        "volumes": told if isinstance(told, dict) else {},
    }


def _identity(runs: Sequence[Path], options: PredictOptions) -> str:
    """Return a hash of the weights and options that decide the result."""
    from biom3d.training.checkpoint import best_path

    digest = hashlib.sha256(options.identity().encode())
    for run in runs:
        plan = _plan_of(run)
        digest.update(repr((plan.patch_size, plan.spacing_um, plan.normalisation)).encode())
        if (run / "log" / "config.yaml").is_file():
            digest.update((run / "log" / "config.yaml").read_bytes())
        with open(best_path(run, plan.desc), "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _content_key(path: Path) -> str:
    """Return what tells whether an image changed since it was predicted: sizes and times of its files, "" for none."""
    from biom3d.io import volume_file

    given, path = path, volume_file(path)
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        facts = [(str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    except OSError:  # a broken link; reading it will say so
        return ""
    named = [str(given)] if given != path else []  # which array of the file
    return hashlib.sha256(repr(facts + named).encode()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("pred", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
