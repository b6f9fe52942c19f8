"""The cases of a data set as training wants them: paired, checked, with labels 0..N, and planned for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biom3d.config import SpacingUm
from biom3d.data.labels import apply_rule, find_rule
from biom3d.data.normalise import refuse_not_finite
from biom3d.data.pairing import Case, pair_volumes, refuse
from biom3d.errors import DataError
from biom3d.io import Header, read_header, read_labels, read_volume


@dataclass(frozen=True)
class LoadedCase:
    """Image (c, z, y, x) as stored and labels (z, y, x) as classes 0..N; `warning` says what was changed."""

    image: np.ndarray
    labels: np.ndarray
    header: Header
    warning: str | None = None


def find_cases(images: Sequence[str], masks: Sequence[str] | None) -> list[Case]:
    """Return the cases of the folders; DataError names every image or mask that is alone."""
    pairing = pair_volumes(images, masks)
    refuse(pairing.problems)
    return list(pairing.cases)


def read_headers(cases: Sequence[Case], spacing: SpacingUm | None = None) -> list[Header]:
    """Return the images' headers; DataError names every file that does not fit the others."""
    headers, problems = [], []
    for case in cases:
        try:
            header = read_header(case.image)
            headers.append(header)
            if case.mask is not None:
                problems += shape_problems(case, header, read_header(case.mask))
        except DataError as error:
            problems.append(str(error))
    refuse([*problems, *mixture_problems(cases, headers, spacing)])
    return headers


def shape_problems(case: Case, image: Header, mask: Header) -> list[str]:
    """Return what is wrong with the shape or the orientation of a mask."""
    if mask.shape[1:] == image.shape[1:] and mask.shape[0] == 1:
        if same_orientation(image, mask):
            return []
        return [
            f"'{case.mask}': its axes point elsewhere than those of '{case.image}' (NIfTI affine), so the same "
            "voxel is another place; save the mask with the affine of the image"
        ]
    if mask.shape[0] > 1:
        return [f"'{case.mask}': mask with {mask.shape[0]} channels; wanted one channel of labels 0, 1, ..., N"]
    return [
        f"'{case.mask}': mask of {_text(mask.shape)} voxels, its image '{case.image}' has {_text(image.shape)} "
        "(z x y x x); wanted the same; export the mask at the size of the image"
    ]


def same_orientation(first: Header, second: Header) -> bool:
    """Tell whether the axes of two files point the same way; files that do not tell agree with all."""
    if "affine" not in first.extra or "affine" not in second.extra:
        return True
    directions = [np.asarray(header.extra["affine"], float)[:3, :3] for header in (first, second)]
    a, b = (matrix / np.linalg.norm(matrix, axis=0) for matrix in directions)
    return bool(np.abs(a - b).max() < 0.05)  # about 3 degrees: files round


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


def read_case(case: Case, num_classes: int, instances: bool) -> LoadedCase:
    """Read one case with its mask; DataError names the file and what is wrong in it."""
    assert case.mask is not None, "training needs masks"
    volume = read_volume(case.image)
    try:
        refuse_not_finite(volume.array)
    except DataError as error:
        raise DataError(f"'{case.image}': {error}") from error
    labels, _, warning = read_classes(case.mask, num_classes, instances)
    return LoadedCase(volume.array, labels, volume.header, f"'{case.mask}': {warning}" if warning else None)


def read_classes(path: Path, num_classes: int, instances: bool = False) -> tuple[np.ndarray, Header, str | None]:
    """Read labels (z, y, x) as classes 0..num_classes, by the rules of training.

    Returns the labels, the header of the file, and what was changed without asking (a mask of 0 and 255), or
    None. Raises DataError for other values.
    """
    volume = read_labels(path)
    labels = volume.array[0]
    rule = find_rule(labels, num_classes, instances)
    try:
        return apply_rule(labels, rule, num_classes), volume.header, rule.warning
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error


def _odd_ones(cases: Sequence[Case], values: Sequence[object], text: str) -> list[str]:
    usual = max(set(values), key=values.count)
    return [
        f"'{case.image}' {text.format(value, usual)}"
        for case, value in zip(cases, values, strict=True)
        if value != usual
    ]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))
