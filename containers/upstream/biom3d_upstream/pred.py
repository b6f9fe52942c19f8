"""`python -m biom3d_upstream.pred`: prediction by a model of Biom3d, or by several that vote, into the named folder."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biom3d_upstream import mapping, volumes
from biom3d_upstream.contract import (
    InputError,
    Reporter,
    StepError,
    refuse_taken,
    run_step,
    step_parser,
    working_folder,
    write_text,
    yaml_text,
)
from biom3d_upstream.options import add_spacing, add_threads
from biom3d_upstream.preprocess import read_plan
from biom3d_upstream.theirs import run_theirs


@dataclass(frozen=True)
class Image:
    """An image to predict and the name under which Biom3d sees it."""

    path: Path
    name: str


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the options with which the rules call `biom3d.pred`."""
    parser = step_parser("pred", "Segment images with models of Biom3d 0.1.2; several models vote per voxel.")
    parser.add_argument("-l", "--log", nargs="+", required=True, type=Path, metavar="RUN", help="model folder(s)")
    parser.add_argument("-i", "--path_in", "--dir_in", required=True, type=Path, metavar="DIR", help="images")
    parser.add_argument("-o", "--path_out", "--dir_out", type=Path, metavar="DIR", help="write DIR/<first model>/")
    parser.add_argument("--out_dir", type=Path, metavar="DIR", help="write exactly here")
    parser.add_argument("--tta", action="store_true", help="average mirrored views (default: as the model says)")
    parser.add_argument("--no_tta", action="store_true", help="do not mirror")
    parser.add_argument("--keep", choices=sorted(mapping.KEEP), default="none", help="objects to keep of each class")
    parser.add_argument(
        "--models",
        choices=("unseen", "all"),
        default="all",
        help="taken, not followed: Biom3d does not know which fold learned from what, so all models vote",
    )
    add_spacing(parser)
    add_threads(parser)
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Predict all images with all models."""
    if (args.path_out is None) == (args.out_dir is None):
        raise InputError("give --path_out DIR (a sub-folder per model is made) or --out_dir DIR (exactly there)")
    if args.tta and args.no_tta:
        raise InputError("--tta and --no_tta contradict each other; give one of them")
    out = args.out_dir or args.path_out / args.log[0].resolve().name
    configs = [read_model(run) for run in args.log]
    paths = volumes.list_volumes(args.path_in)
    names = mapping.safe_names([volumes.volume_name(path) for path in paths])
    images = [Image(path, name) for path, name in zip(paths, names, strict=True)]
    refuse_taken(out, "output folder")
    tta = True if args.tta else False if args.no_tta else None
    with working_folder(out) as work:
        stage(images, work / "in", args.spacing, is_2d=configs[0]["IS_2D"] is True)
        for number, (run, config) in enumerate(zip(args.log, configs, strict=True)):
            stage_model(run, mapping.prediction_config(config, tta, args.keep), work / f"model_{number}")
            follow = Progress(images, number == len(args.log) - 1, report)
            words = ["--log", f"model_{number}", "--path_in", "in", "--path_out", "out"]
            (work / "out").mkdir(exist_ok=True)
            run_theirs("pred", words, work, args.threads, follow.line)
        collect(images, [work / "out" / f"model_{k}" for k in range(len(configs))], work / "done", args.spacing)
        (work / "done").replace(out)
    if args.models == "unseen" and len(configs) > 1:
        report.info("all models vote, also those that learned from an image: Biom3d 0.1.2 knows no others")
    voted = f"; {len(configs)} models voted" if len(configs) > 1 else ""
    report.info(f"{len(images)} images in '{out}'{voted}")
    report.event("done", images=len(images), out=str(out))


class Progress:
    """Tells of each image when Biom3d prints that it saved it; events only for the last model."""

    def __init__(self, images: Sequence[Image], is_last: bool, report: Reporter) -> None:
        self.images = {f"{image.name}.tif": image.path.name for image in images}
        self.is_last, self.report, self.done, self.last = is_last, report, 0, time.monotonic()

    def line(self, line: str) -> None:
        """Look at a printed line."""
        name = mapping.saved_image(line)
        if name in self.images:
            seconds, self.last = round(time.monotonic() - self.last, 3), time.monotonic()
            self.done += 1
            if self.is_last:
                fields = {"index": self.done, "of": len(self.images), "seconds": seconds}
                self.report.event("image", name=self.images[name], **fields)


def read_model(run: Path) -> mapping.Config:
    """Return the configuration of a model folder; InputError where it is none, or of labels we cannot write."""
    if run.suffix == ".zip":
        raise InputError(f"'{run}': Biom3d 0.1.2 reads folders; unpack it, or use engine biom3d")
    config = read_plan(run / "log" / "config.yaml")
    best = run / "model" / f"{config['DESC']}_best.pth"
    if not best.is_file():
        raise InputError(f"no checkpoint '{best}'; give a folder made by train")
    if config.get("USE_SOFTMAX", True) is False:
        raise InputError(f"'{run}' has sigmoid outputs, whose classes overlap; a label volume cannot hold them")
    return config


def stage(images: Sequence[Image], folder: Path, spacing_um: Sequence[float] | None, is_2d: bool) -> None:
    """Put the images where Biom3d finds them."""
    folder.mkdir()
    for image in images:
        volumes.stage_image(image.path, folder / f"{image.name}.tif", spacing_um, is_2d)


def stage_model(run: Path, config: mapping.Config, folder: Path) -> None:
    """Make a model folder of its weights and another configuration: the model itself is not touched."""
    write_text(folder / "log" / "config.yaml", yaml_text(config))
    (folder / "model").symlink_to((run / "model").resolve())


def collect(images: Sequence[Image], folders: Sequence[Path], target: Path, spacing_um: Sequence[float] | None) -> None:
    """Write the labels of all images under our names, checked: Biom3d may change the shape of odd axes."""
    target.mkdir()
    for image in images:
        wanted = volumes.shape_of(image.path)[1:]
        labels = [read_prediction(folder / f"{image.name}.tif", image, wanted) for folder in folders]
        volumes.write_labels_like(image.path, vote(labels), target / image.path.name, spacing_um)


def read_prediction(path: Path, image: Image, shape: tuple[int, ...]) -> np.ndarray:
    """Return the labels (z, y, x), uint8, that Biom3d wrote for an image."""
    import tifffile

    if not path.is_file():
        raise StepError(f"Biom3d's pred wrote nothing for '{image.path}'; see its output above")
    labels = np.asarray(tifffile.imread(path))
    labels = labels[None] if labels.ndim == 2 else labels
    if labels.shape != shape:
        raise InputError(
            f"'{image.path}': Biom3d 0.1.2 gives shape {labels.shape} for an image of {shape} (z, y, x); it misreads "
            "3 or 4 planes and channels that are not first; save it as ImageJ TIFF with a voxel size"
        )
    return labels.astype(np.uint8)  # it writes signed bytes


def vote(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Return the label with the most votes in each voxel; where several have as many, the first model's, if it can."""
    if len(labels) == 1:
        return labels[0]
    out = np.empty_like(labels[0])
    classes = max(int(array.max()) for array in labels) + 1
    for z in range(out.shape[0]):  # a plane at a time: counts need a byte a class and voxel
        counts = np.stack([sum((array[z] == c).astype(np.uint8) for array in labels) for c in range(classes)])
        most = counts.max(0)
        first = np.take_along_axis(counts, labels[0][z][None].astype(np.intp), 0)[0]
        out[z] = np.where(first == most, labels[0][z], counts.argmax(0))
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("pred", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
