"""Synthetic cells with exact truth: rotated ellipsoids that never touch, seen through a noisy microscope."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d.cli import run_step, step_parser
from biom3d.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from biom3d.events import Reporter
    from biom3d.io import Spacing

FORMATS = ("tif", "ome.tif", "nii.gz", "npy", "h5", "zarr")
PIXEL_UM = 0.3  # y, x; a common confocal sampling
FILL = 0.15  # part of the volume that cells take, if they find room
SHRINK = 0.97  # of a cell that found no room, before the next try
TRIES = 200
MIN_RADIUS_VOXELS = 2.0  # smaller cells would be one voxel, and their nuclei might miss every voxel
# Above sqrt(3), so that no two cells touch, not even by a corner; growing radii grows the cell a bit less.
GAP_VOXELS = 1.85
NUCLEUS_RADIUS = 0.55  # of the cell's
READ_NOISE = 2.0  # standard deviation in photons, of a good camera
OFFSET, CELL_COUNTS = 2000, 1000  # grey values of darkness, and of a cell above the background


@dataclass(frozen=True)
class Ellipsoid:
    """A cell in µm; `rotation` has one semi-axis direction a column."""

    center: "np.ndarray"
    radii: "np.ndarray"
    rotation: "np.ndarray"

    def scaled(self, factor: float) -> "Ellipsoid":
        """Return the same cell with radii times `factor`."""
        return Ellipsoid(self.center, self.radii * factor, self.rotation)

    def grown(self, margin_um: float) -> "Ellipsoid":
        """Return the same cell with `margin_um` added to every radius."""
        return Ellipsoid(self.center, self.radii + margin_um, self.rotation)


def make_cells(
    shape: Sequence[int],
    cells: int,
    classes: int,
    rng: "np.random.Generator",
    *,
    snr: float = 5.0,
    spacing_um: Sequence[float] = (1.0, 1.0, 1.0),
) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Draw one volume of cells, each class 1, or class 1 with a nucleus of class 2 inside.

    Args:
        shape: (z, y, x) in voxels; z = 1 draws discs, for 2D.
        cells: how many; between any two there is at least one background voxel.
        classes: 1 or 2.
        rng: decides everything; the same generator gives the same volume.
        snr: brightness of a cell above the background over the standard deviation of the noise in it.
        spacing_um: voxel size (z, y, x); only the ratios matter.

    Returns:
        image uint16, labels uint8 (0..classes), instances uint16 (0..cells), all (z, y, x).

    Raises:
        ConfigError: the cells do not fit, or a value is out of range.
    """
    import numpy as np

    _check_values(shape, cells, classes, snr, spacing_um)
    flat = shape[0] == 1
    size = tuple(shape[1:] if flat else shape)
    spacing = np.asarray(spacing_um[1:] if flat else spacing_um, dtype=float)
    instances = np.zeros(size, np.uint16)
    labels = np.zeros(size, np.uint8)
    for number in range(1, cells + 1):
        cell = _find_room(instances, number, cells, spacing, rng)
        box, inside = _rasterise(cell, size, spacing)
        instances[box][inside] = number
        labels[box][inside] = 1
        if classes == 2:
            box, inside = _rasterise(cell.scaled(NUCLEUS_RADIUS), size, spacing)
            labels[box][inside] = 2
    image = _photograph(labels, instances, cells, snr, rng)
    return image.reshape(shape), labels.reshape(shape), instances.reshape(shape)


def _check_values(shape: Sequence[int], cells: int, classes: int, snr: float, spacing_um: Sequence[float]) -> None:
    if len(shape) != 3 or min(shape[1:]) < 8 or (shape[0] != 1 and shape[0] < 4):
        raise ConfigError(f"shape {tuple(shape)} is too small; Y and X must be at least 8, Z at least 4 (or 1 for 2D)")
    if not 1 <= cells <= 65535:
        raise ConfigError(f"{cells} cells cannot be drawn; give 1 to 65535")
    if classes not in (1, 2):
        raise ConfigError(f"{classes} classes cannot be drawn; give 1 (cell) or 2 (cell, nucleus)")
    if not snr > 0 or not min(spacing_um) > 0:
        raise ConfigError(f"snr {snr} and spacing {tuple(spacing_um)} must be above 0")


def _find_room(
    instances: "np.ndarray", number: int, cells: int, spacing: "np.ndarray", rng: "np.random.Generator"
) -> Ellipsoid:
    """Return cell `number` where no other cell touches it; it shrinks until it finds such a place."""
    import numpy as np

    extent = spacing * instances.shape
    smallest = MIN_RADIUS_VOXELS * spacing.max()
    unit_ball = 4.19 if instances.ndim == 3 else np.pi
    radius = (FILL * extent.prod() / cells / unit_ball) ** (1 / instances.ndim)
    radii = radius * rng.uniform(0.75, 1.35, instances.ndim)
    for _ in range(TRIES):
        rotation = np.linalg.qr(rng.normal(size=(instances.ndim, instances.ndim)))[0]
        center = rng.uniform(0, extent - spacing)
        cell = Ellipsoid(center, np.maximum(radii, smallest), rotation)
        box, inside = _rasterise(cell.grown(GAP_VOXELS * spacing.max()), instances.shape, spacing)
        if not instances[box][inside].any():
            return cell
        radii = radii * SHRINK
    raise ConfigError(
        f"only {number - 1} of {cells} cells found room in {instances.shape} voxels; "
        "take fewer --cells or a larger --shape"
    )


def _rasterise(cell: Ellipsoid, shape: Sequence[int], spacing: "np.ndarray") -> "tuple[tuple[slice, ...], np.ndarray]":
    """Return the cell's bounding box within `shape` and which voxels of the box are inside the cell."""
    import numpy as np

    reach = np.sqrt((cell.rotation**2) @ (cell.radii**2))
    low = np.maximum(np.ceil((cell.center - reach) / spacing), 0).astype(int)
    high = np.minimum(np.floor((cell.center + reach) / spacing) + 1, shape).astype(int)
    box = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    axes = [np.arange(a.start, a.stop) * s - c for a, s, c in zip(box, spacing, cell.center, strict=True)]
    to_ball = (cell.rotation / cell.radii).T
    distance = np.zeros([len(axis) for axis in axes])
    for row in to_ball:
        ramps = (axis * weight for axis, weight in zip(axes, row, strict=True))
        distance += sum(np.meshgrid(*ramps, indexing="ij", sparse=True)) ** 2
    return box, distance <= 1


def _photograph(
    labels: "np.ndarray", instances: "np.ndarray", cells: int, snr: float, rng: "np.random.Generator"
) -> "np.ndarray":
    """Return what a camera sees: uneven light, cells that differ, blur, photon and read noise; uint16."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    # With background = signal / 4: snr = signal / sqrt(1.25 * signal + READ_NOISE^2), solved for the signal.
    signal = (1.25 * snr**2 + np.sqrt((1.25 * snr**2) ** 2 + 4 * (snr * READ_NOISE) ** 2)) / 2
    brightness = np.concatenate([[0], rng.uniform(0.8, 1.2, cells)]).astype(np.float32)
    photons = brightness[instances] * np.array([0, 1, 2], np.float32)[labels]
    photons += 0.25 * _uneven_light(labels.shape, rng)
    photons = gaussian_filter(photons, 1.0, output=np.float32) * signal
    noisy = rng.poisson(photons) + READ_NOISE * rng.standard_normal(photons.shape, np.float32)
    return np.clip(np.rint(noisy * (CELL_COUNTS / signal) + OFFSET), 0, 65535).astype(np.uint16)


def _uneven_light(shape: Sequence[int], rng: "np.random.Generator") -> "np.ndarray":
    """Return a smooth field around 1, from about 0.6 to 1.4: a slope along each axis."""
    import numpy as np

    slopes = rng.uniform(-0.4, 0.4, len(shape)) / len(shape) ** 0.5
    ramps = [np.linspace(-s, s, n, dtype=np.float32) for s, n in zip(slopes, shape, strict=True)]
    return np.float32(1) + np.add.reduce(np.meshgrid(*ramps, indexing="ij"))


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `python -m biom3d.synth`."""
    parser = step_parser("synth", "Make synthetic cells with exact truth: OUT_DIR/images and OUT_DIR/masks.")
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="folder to write into")
    parser.add_argument("--count", type=int, default=4, metavar="N", help="volumes (default 4)")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=[32, 64, 64], metavar=("Z", "Y", "X"),
        help="voxels of one volume (default 32 64 64); Z = 1 makes 2D images",
    )  # fmt: skip
    parser.add_argument("--cells", type=int, default=8, metavar="N", help="cells in one volume (default 8)")
    parser.add_argument("--classes", type=int, default=1, choices=(1, 2), help="1: cell; 2: cell and the nucleus in it")
    parser.add_argument("--format", default="tif", choices=FORMATS, help="file format (default tif)")
    parser.add_argument(
        "--snr", type=float, default=5.0,
        help="brightness of a cell above the background / noise in it (default 5; 2 is hard, 20 easy)",
    )  # fmt: skip
    parser.add_argument(
        "--anisotropy", type=float, default=1.0, metavar="A",
        help=f"z step / pixel size: voxels of A*{PIXEL_UM} x {PIXEL_UM} x {PIXEL_UM} µm (default 1)",
    )  # fmt: skip
    parser.add_argument("--instances", action="store_true", help="also write OUT_DIR/instances: cell numbers")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same volumes (default 0)")
    return parser


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """Write `args.count` volumes and their truth; a volume depends on the seed and its number only."""
    import numpy as np

    if args.count < 1 or args.seed < 0:
        raise ConfigError(f"--count {args.count} must be at least 1 and --seed {args.seed} at least 0")
    spacing = (args.anisotropy * PIXEL_UM, PIXEL_UM, PIXEL_UM)
    for number in report.track(range(args.count), "volumes"):
        rng = np.random.default_rng([args.seed, number])
        image, labels, instances = make_cells(
            args.shape, args.cells, args.classes, rng, snr=args.snr, spacing_um=spacing
        )
        truths = {"masks": labels} | ({"instances": instances} if args.instances else {})
        _write_case(args.out_dir, f"cells_{number:03}.{args.format}", image, truths, spacing)
    report.info(f"{args.count} volumes in '{args.out_dir}'")


def _write_case(
    out_dir: Path, name: str, image: "np.ndarray", truths: "dict[str, np.ndarray]", spacing: "Spacing"
) -> None:
    from biom3d.io import Header, write_labels, write_volume

    flat = image.shape[0] == 1
    header = Header(shape=(1, *image.shape), dtype=image.dtype, axes="YX" if flat else "ZYX", spacing_um=spacing)
    write_volume(out_dir / "images" / name, image[None], header)
    for folder, labels in truths.items():
        write_labels(out_dir / folder / name, labels, header)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; see the step contract for the exit codes."""
    return run_step("synth", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
