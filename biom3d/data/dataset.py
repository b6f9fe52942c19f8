"""The cases of a data set as training wants them: paired, checked, with labels 0..N, and planned for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biom3d.config import SpacingUm
from biom3d.data.labels import check_labels, count_labels, normalise_labels
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
    """Return what is wrong with the shape of a mask."""
    if mask.shape[1:] == image.shape[1:] and mask.shape[0] == 1:
        return []
    if mask.shape[0] > 1:
        return [f"'{case.mask}': mask with {mask.shape[0]} channels; wanted one channel of labels 0, 1, ..., N"]
    return [
        f"'{case.mask}': mask of {_text(mask.shape)} voxels, its image '{case.image}' has {_text(image.shape)} "
        "(z x y x x); wanted the same; export the mask at the size of the image"
    ]


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
    refuse_not_finite(case, volume.array)
    raw = read_labels(case.mask).array[0]
    rule = check_labels(count_labels(raw), num_classes, instances)
    if rule.problem:
        raise DataError(f"'{case.mask}': {rule.problem}")
    warning = f"'{case.mask}': {rule.warning}" if rule.warning else None
    return LoadedCase(volume.array, normalise_labels(raw, num_classes, instances), volume.header, warning)


def refuse_not_finite(case: Case, array: np.ndarray) -> None:
    """Raise DataError where an image (c, z, y, x) holds NaN or infinity."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    raise DataError(
        f"'{case.image}': {np.count_nonzero(~finite)} voxel(s) are NaN or infinite, the first at (c, z, y, x) = "
        f"{first}; wanted numbers; replace them, for example by 0"
    )


def _odd_ones(cases: Sequence[Case], values: Sequence[object], text: str) -> list[str]:
    usual = max(set(values), key=values.count)
    return [
        f"'{case.image}' {text.format(value, usual)}"
        for case, value in zip(cases, values, strict=True)
        if value != usual
    ]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))
