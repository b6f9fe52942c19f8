"""The cases of a data set as training wants them: paired, checked, with labels 0..N, and planned for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biom3d.config import SpacingUm
from biom3d.data.labels import PLAIN, Coding, apply_rule, class_type, find_rule
from biom3d.data.normalise import refuse_not_finite
from biom3d.data.pairing import ANY, Case, Keys, pair_volumes, refuse
from biom3d.data.remarks import tell_remarks
from biom3d.errors import DataError
from biom3d.events import Reporter
from biom3d.io import Header, Spacing, channels_advice, read_header, read_labels, read_volume, volume_file
from biom3d.io.geometry import are_comparable, direction_of, place_of
from biom3d.io.mapped import forget_pages, new_array, slabs
from biom3d.io.units import spacing_in_unit


@dataclass(frozen=True)
class LoadedCase:
    """Image (c, z, y, x) as stored and labels (z, y, x) as classes 0..N; `warning` says what was changed."""

    image: np.ndarray
    labels: np.ndarray
    header: Header
    warning: str | None = None


def find_cases(
    images: Sequence[str], masks: Sequence[str] | None, say: Callable[[str], None], keys: Keys = ANY
) -> list[Case]:
    """Return the cases of the folders, with `masks` those that have one; DataError names every mask that is alone."""
    pairing = pair_volumes(images, masks, keys)
    refuse(pairing.problems)
    if pairing.unmasked:
        say(pairing.coverage())
    return list(pairing.cases)


def read_headers(
    cases: Sequence[Case], spacing: SpacingUm | None = None, report: Reporter | None = None
) -> list[Header]:
    """Return the images' headers; DataError names every file that does not fit the others.

    `report` is told what was left out or assumed.
    """
    headers: list[Header] = []
    problems: list[str] = []
    read: list[tuple[Path, Header]] = []
    warnings: list[str] = []
    for case in cases:
        try:
            header = read_header(case.image)
            headers.append(header)
            read.append((case.image, header))
            if case.mask is not None:
                mask = read_header(case.mask, "mask", header)
                read.append((case.mask, mask))
                problems += shape_problems(case, header, mask)
                warnings += place_warnings(case.mask, mask, case.image, header)
        except DataError as error:
            problems.append(str(error))
    refuse([*problems, *mixture_problems(cases, headers, spacing)])
    if report is not None:
        tell_remarks(read, report)
        for warning in warnings:
            report.warn(warning)
    return headers


def shape_problems(case: Case, image: Header, mask: Header) -> list[str]:
    """Return what is wrong with the shape or the orientation of a mask."""
    if case.mask is not None and is_one_array(case.image, image, case.mask, mask):
        what = f"its array '{image.array}'" if image.array else "it"
        return [
            f"'{volume_file(case.image)}': {what} would be image and mask at once, no labels are known beside the "
            "image; give the masks by --msk_path, or name the array of the labels by --msk_key"
        ]
    if mask.shape[1:] == image.shape[1:] and mask.shape[0] == 1:
        if same_orientation(image, mask):
            return []
        return [
            f"'{case.mask}': its axes point elsewhere than those of '{case.image}' (NIfTI affine), so the same "
            "voxel is another place; save the mask with the affine of the image"
        ]
    if mask.shape[0] > 1:
        problem = f"mask with {mask.shape[0]} channels; wanted one channel of labels 0, 1, ..., N"
        return [f"'{case.mask}': {problem}{channels_advice(mask)}"]
    return [
        f"'{case.mask}': mask of {_text(mask.shape)} voxels, its image '{case.image}' has {_text(image.shape)} "
        "(z x y x x); wanted the same; export the mask at the size of the image"
    ]


def is_one_array(image: Path, image_header: Header, mask: Path, mask_header: Header) -> bool:
    """Tell whether image and mask are the same array of the same file."""
    return volume_file(image) == volume_file(mask) and image_header.array == mask_header.array


def same_orientation(first: Header, second: Header) -> bool:
    """Tell whether the axes of two files point the same way; files that do not tell agree with all."""
    directions = [direction_of(header) for header in (first, second)]
    if directions[0] is None or directions[1] is None:
        return True
    return bool(np.abs(directions[0] - directions[1]).max() < 0.05)  # about 3 degrees: files round


def place_warnings(path: Path, header: Header, other_path: Path, other: Header) -> list[str]:
    """Return a line where two files of one size say that they lie at different places, by half a voxel or more."""
    here, there = place_of(header), place_of(other)
    spacing = other.spacing_um or header.spacing_um
    if not are_comparable(header, other) or header.shape[1:] != other.shape[1:]:
        return []
    if here is None or there is None or spacing is None:
        return []
    if all(abs(a - b) < size / 2 for a, b, size in zip(here, there, spacing, strict=True)):
        return []
    unit = other.unit
    return [
        f"'{path}' and '{other_path}' lie at different places: the first voxel is at {_place(here, unit)} and at "
        f"{_place(there, unit)} (z, y, x); voxels are compared by their number, so is it the same crop?"
    ]


def _place(place_um: Spacing, unit: str) -> str:
    return f"{', '.join(f'{value:.6g}' for value in spacing_in_unit(place_um, unit))} {unit}"


def mixture_problems(cases: Sequence[Case], headers: Sequence[Header], spacing: SpacingUm | None) -> list[str]:
    """Return what is wrong where one model is to learn from all of these images; the majority is right."""
    if len(headers) != len(cases) or not headers:
        return []
    problems = _odd_ones(
        cases, ["2D" if h.is_2d else "3D" for h in headers], "is {}, most are {}; one model takes either 2D or 3D"
    )
    problems += _odd_ones(
        cases, [h.shape[0] for h in headers], "has {} channel(s), most have {}; give all images the same channels"
    )
    known = [h.spacing_um is not None for h in headers]
    if spacing is None and any(known) and not all(known):
        without = cases[known.index(False)].image
        problems.append(
            f"{known.count(False)} of {len(known)} images do not tell their voxel spacing, such as '{without}'; "
            "give --spacing Z Y X in µm for all, or write it into the files"
        )
    return problems


def read_case(case: Case, num_classes: int, coding: Coding = PLAIN, folder: Path | None = None) -> LoadedCase:
    """Read one case with its mask; DataError names the file and what is wrong in it.

    Large arrays become memory maps on the disk of `folder`, where that is given.
    """
    assert case.mask is not None, "training needs masks"
    volume = read_volume(case.image, folder=folder)
    depth = volume.array.shape[1]
    try:
        for z0, z1 in slabs(depth, volume.array[:, 0].nbytes):
            refuse_not_finite(volume.array[:, z0:z1], z0)
            forget_pages(volume.array)
    except DataError as error:
        raise DataError(f"'{case.image}': {error}") from error
    labels, _, warning = read_classes(case.mask, num_classes, coding, volume.header, folder)
    return LoadedCase(volume.array, labels, volume.header, f"'{case.mask}': {warning}" if warning else None)


def read_classes(
    path: Path, num_classes: int, coding: Coding = PLAIN, like: Header | None = None, folder: Path | None = None
) -> tuple[np.ndarray, Header, str | None]:
    """Read labels (z, y, x) as classes 0..num_classes, by the rules of training; `like` is the image, where known.

    Returns the labels, on the disk of `folder` where that is given and they are large, the header of the file, and what
    was changed without asking (a mask of 0 and 255), or None. Raises DataError for other values.
    """
    volume = read_labels(path, like, folder)
    labels = volume.array[0]
    rule = find_rule(labels, num_classes, coding)
    try:
        classes = new_array(folder, class_type(rule, num_classes), labels.shape)
        for z0, z1 in slabs(len(labels), labels[0].nbytes):
            classes[z0:z1] = apply_rule(labels[z0:z1], rule, num_classes)
            forget_pages(classes)
            forget_pages(labels)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error
    return classes, volume.header, rule.warning


def _odd_ones(cases: Sequence[Case], values: Sequence[object], text: str) -> list[str]:
    usual = max(set(values), key=values.count)
    return [
        f"'{case.image}' {text.format(value, usual)}"
        for case, value in zip(cases, values, strict=True)
        if value != usual
    ]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))
