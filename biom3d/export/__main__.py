"""`python -m biom3d.export`: label volumes as OME-TIFF and OME-Zarr, a trained model as one zip."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d.cli import add_subcommand, run_step, step_parser
from biom3d.config import SpacingUm
from biom3d.errors import ConfigError, DataError
from biom3d.events import Reporter
from biom3d.options import add_key_options, add_spacing_option, spacing_from

if TYPE_CHECKING:
    import numpy as np

DESCRIPTION = """Write results and models in forms that other programs read.

  biom3d export labels --path_pred predictions/ --path_in images/ --out_dir labels/
  biom3d export model --log logs/nuclei/fold_0 logs/nuclei/fold_1 --out nuclei.zip"""
FORMATS = "dicom-seg is for images that are DICOM, to whose series it refers (default: ome-tiff ome-zarr)"
PLANES_BYTES = 1 << 26  # about what is copied at once
SUFFIXES = {"ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr", "dicom-seg": ".dcm"}
DEFAULT = ["ome-tiff", "ome-zarr"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line with its two commands."""
    parser = step_parser("export", DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    labels = add_subcommand(commands, "labels", "predictions as OME-TIFF, and as OME-Zarr beside their image")
    for flag, text in (
        ("--path_pred", "folder of label volumes, or one file"),
        ("--path_in", "folder of the images of the same names, or one file"),
        ("--out_dir", "folder for <case>.ome.tif (labels) and <case>.ome.zarr (image and labels)"),
    ):
        labels.add_argument(flag, type=Path, required=True, metavar="DIR", help=text)
    labels.add_argument("--formats", nargs="+", choices=list(SUFFIXES), default=DEFAULT, help=FORMATS)
    labels.add_argument("--label_name", default="prediction", metavar="NAME", help="default: prediction")
    labels.add_argument(
        "--class_names", nargs="+", metavar="NAME", help="names of the classes 1, 2, ... for viewers (default: class N)"
    )
    labels.add_argument(
        "--label_values", type=int, nargs="+", metavar="V", help="values of the classes, where they are not 1, 2, ..."
    )
    add_key_options(labels, "img")
    add_spacing_option(labels)
    model = add_subcommand(commands, "model", "the best weights and plans of run folders as one zip for `pred --log`")
    model.add_argument("--log", type=Path, nargs="+", required=True, metavar="RUN", help="run folders, one a fold")
    model.add_argument("--out", type=Path, required=True, metavar="FILE", help="the zip to write")
    return parser


def execute(args: argparse.Namespace, report: Reporter) -> None:
    """Run the command that was asked for."""
    {"labels": export_labels, "model": export_model}[args.command](args, report)


def export_labels(args: argparse.Namespace, report: Reporter) -> None:
    """Write every prediction in every format that was asked for."""
    from biom3d.data.pairing import match_volumes, quoted
    from biom3d.io import is_dicom

    if not args.label_name or not args.label_name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"--label_name '{args.label_name}': wanted letters, digits, - and _ only")
    spacing, names = spacing_from(args), _class_names(args)
    found = match_volumes(args.path_pred, args.path_in, ("prediction", "image"), args.img_key)
    if found.unused:
        report.warn(f"{len(found.unused)} image(s) without a prediction are left out: {quoted(found.unused)}")
    not_dicom: list[str] = []
    problems: list[str] = []
    for pair in report.track(found.pairs, "cases", unit="case"):
        for form in dict.fromkeys(args.formats):
            if form == "dicom-seg" and not is_dicom(pair.second):
                not_dicom.append(pair.name)
                continue
            out = args.out_dir / f"{pair.name}{SUFFIXES[form]}"
            _refuse_input(out, (pair.first, pair.second))
            try:
                _write_labels(form, out, pair.second, pair.first, args.label_name, spacing, names)
            except (DataError, MemoryError) as error:  # the others can be done
                problems.append(
                    f"'{out.name}': out of memory: {error}" if isinstance(error, MemoryError) else str(error)
                )
                continue
            report.event("exported", case=pair.name, format=form, path=str(out))
    if args.formats == ["dicom-seg"] and len(not_dicom) == len(found.pairs):
        raise DataError(f"no image in '{args.path_in}' is DICOM, so no DICOM-SEG can be written; take other --formats")
    if not_dicom:
        report.warn(f"{len(not_dicom)} image(s) are no DICOM, so no DICOM-SEG is written of them: {quoted(not_dicom)}")
    if problems:
        count = f"{len(problems)} of {len(found.pairs)} cases cannot be exported; the others are done:"
        raise DataError(problems[0] if len(found.pairs) == 1 else "\n  ".join([count, *problems]))
    report.info(f"{len(found.pairs)} case(s) exported to '{args.out_dir}'")
    report.event("done", cases=len(found.pairs))


def _class_names(args: argparse.Namespace) -> dict[int, str]:
    """Return value -> name of the classes that were named."""
    names = args.class_names or []
    values = args.label_values or range(1, len(names) + 1)
    if names and len(names) != len(values):
        raise ConfigError(f"--class_names has {len(names)} names, --label_values {len(values)} values; wanted as many")
    return dict(zip(values, names, strict=False))


def _refuse_input(out: Path, inputs: Sequence[Path]) -> None:
    from biom3d.io import volume_file

    for path in inputs:
        if out.exists() and out.samefile(volume_file(path)):
            raise ConfigError(f"'{out}' would replace the input '{path}'; choose another --out_dir")


def _write_labels(
    form: str,
    out: Path,
    image: Path,
    labels: Path,
    label_name: str,
    spacing_um: SpacingUm | None,
    names: Mapping[int, str],
) -> None:
    if form == "ome-zarr":
        from biom3d.export.ome_zarr import write_with_labels

        write_with_labels(out, image, labels, label_name, spacing_um, names)
    elif form == "dicom-seg":
        from biom3d.export.dicom_seg import write_segmentation

        write_segmentation(out, image, labels, label_name, names)
    else:
        write_ome_tiff(out, image, labels, label_name, spacing_um)


def write_ome_tiff(out: Path, image: Path, labels: Path, label_name: str, spacing_um: SpacingUm | None = None) -> None:
    """Write labels as compressed OME-TIFF with the voxel size of the image and `label_name` as the channel.

    `spacing_um` (z, y, x) replaces what the image file says. Raises DataError where the shapes differ.
    """
    from biom3d.files import output_error, scratch_folder
    from biom3d.io import read_header, write_volume

    if out.exists() and not _is_ours(out, label_name):
        raise DataError(
            f"'{out}' is there and is no earlier export of '{label_name}'; move it away or choose another --out_dir"
        )
    header = read_header(image)
    if spacing_um:
        header = replace(header, spacing_um=spacing_um, unit="µm")
    try:
        with scratch_folder(out.parent) as scratch:
            array = _mapped_labels(labels, image, header.shape, scratch / "labels.npy")
            axes = header.axes.replace("C", "")
            write_volume(out, array, replace(header, axes=axes, channel_names=(label_name,)))
    except OSError as error:
        raise output_error(out, error) from error


def _mapped_labels(path: Path, image: Path, shape: Sequence[int], copy: Path) -> "np.ndarray":
    """Return labels (1, z, y, x) as a memory map of a plain copy, of few planes in memory at a time.

    64-bit integers, and whole numbers that were floats, become a smaller type, as OME-TIFF wants them.
    """
    import numpy as np

    from biom3d.io import open_volume, read_labels
    from biom3d.io.formats import require_one_channel
    from biom3d.io.mapped import array_on_disk, forget_pages, limits

    with open_volume(path, "mask") as lazy:
        found = lazy.header
        require_one_channel(path, found)
        if found.shape[1:] != tuple(shape[1:]):
            raise DataError(
                f"labels '{path}' have shape {found.shape} (c, z, y, x), the image '{image}' {tuple(shape)}; "
                "wanted the same grid"
            )
        if found.dtype.kind in "iu" and found.dtype.itemsize < 8:
            array = array_on_disk(copy, found.dtype, found.shape)
            step = max(1, PLANES_BYTES // (found.shape[2] * found.shape[3]))
            for z in range(0, found.shape[1], step):
                array[:, z : z + step] = lazy.read(z, min(z + step, found.shape[1]))
                forget_pages(array)
            return array
    labels = read_labels(path, folder=copy.parent).array
    low, high = limits(labels[0])
    array = array_on_disk(copy, np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)), labels.shape)
    for z, plane in enumerate(labels[0]):
        array[0, z] = plane
        forget_pages(array)
        forget_pages(labels)
    return array


def _is_ours(path: Path, label_name: str) -> bool:
    """Say whether a file is an earlier export: export names the channel, and other programs name it otherwise."""
    from biom3d.io import read_header

    try:
        return read_header(path).channel_names == (label_name,)
    except DataError:
        return False


def export_model(args: argparse.Namespace, report: Reporter) -> None:
    """Pack run folders into one zip."""
    from biom3d.export.package import pack_model

    if args.out.suffix.lower() != ".zip":
        raise ConfigError(f"--out '{args.out}': wanted a name that ends in .zip")
    manifest = pack_model(args.log, args.out)
    size = args.out.stat().st_size / 1e6
    report.info(f"{manifest['folds']} fold(s) of '{manifest['desc']}' in '{args.out}' ({size:.1f} MB)")
    report.event("done", out=str(args.out), folds=manifest["folds"], bytes=args.out.stat().st_size)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step; return its exit code."""
    return run_step("export", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
