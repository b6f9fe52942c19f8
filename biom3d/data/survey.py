"""What a data set holds, found by reading every voxel once, and what is wrong or odd about it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from biom3d.data import sanity
from biom3d.data.dataset import is_one_array, mixture_problems, place_warnings, shape_problems
from biom3d.data.identity import Identity
from biom3d.data.labels import PLAIN, Coding, LabelRule, check_labels, count_labels, describe_values, map_counts
from biom3d.data.pairing import Case
from biom3d.data.remarks import group_remarks
from biom3d.errors import DataError
from biom3d.io import Header, Spacing, channels_advice, open_volume, require_one_channel

_VOXELS_AT_ONCE = 1 << 24
_TINY = 8  # voxels on an axis; a network cannot pool less than that three times
_THICK = 3.0  # from here on z counts as thicker than x and y, and planning treats it so
_FAR = 10.0  # spacings that differ by more than this are more likely a wrong unit than another microscope
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Finding:
    """One thing found: an error stops the work, a warning may matter, a note is only said."""

    kind: Literal["error", "warning", "note"]
    message: str


@dataclass(frozen=True)
class ImageFacts:
    """What the voxels of an image say; `low` and `high` are those of the finite voxels."""

    header: Header
    low: float
    high: float
    not_finite: int
    first_not_finite: tuple[int, ...] | None
    digest: str


@dataclass(frozen=True)
class MaskFacts:
    """What the voxels of a mask say; `not_whole` voxels are no whole numbers and not counted in `values`."""

    header: Header
    values: dict[int, int]
    not_whole: int = 0
    first_not_whole: str | None = None
    digest: str = ""


@dataclass(frozen=True)
class CaseFacts:
    """One case; image or mask are None where they could not be read, rule where there is no mask to judge."""

    case: Case
    image: ImageFacts | None
    mask: MaskFacts | None
    rule: LabelRule | None = None


@dataclass(frozen=True)
class Question:
    """What a data set is asked: how many classes, what labels stand for, which spacing overrides the files."""

    num_classes: int | None = None
    coding: Coding = PLAIN
    spacing_um: Spacing | None = None


def survey_case(case: Case, question: Question) -> tuple[CaseFacts, list[Finding]]:
    """Read one case, slab by slab, and say what is wrong with it."""
    findings: list[Finding] = []
    image = mask = rule = None
    try:
        image = measure_image(case.image)
    except DataError as error:
        findings.append(Finding("error", str(error)))
    try:
        mask = measure_mask(case.mask, like=image.header if image else None) if case.mask else None
    except DataError as error:
        findings.append(Finding("error", str(error)))
    if mask is not None and question.num_classes is not None:
        rule = check_labels(mask.values, question.num_classes, question.coding)
    facts = CaseFacts(case, image, mask, rule)
    return facts, findings + _image_findings(facts) + _mask_findings(facts) + _pair_findings(facts)


def survey_set(facts: Sequence[CaseFacts], question: Question) -> list[Finding]:
    """Say what is wrong or odd about the cases taken together."""
    headers = {one.case.name: one.image.header for one in facts if one.image}
    cases = [one.case for one in facts if one.image]
    mixed = mixture_problems(cases, list(headers.values()), question.spacing_um)
    return [
        *(Finding("error", problem) for problem in mixed),
        *_remark_findings(facts),
        *_spacing_findings(headers, question),
        *_type_findings(headers),
        *_class_findings(facts, question),
        *_duplicates(facts),
        *_too_few(facts),
    ]


def measure_image(path: Path, voxels_at_once: int = _VOXELS_AT_ONCE) -> ImageFacts:
    """Return range, non-finite voxels and a digest of the voxels of an image, slab by slab.

    Raises:
        DataError: the image cannot be read.
    """
    low, high, bad, first = np.inf, -np.inf, 0, None
    with open_volume(path) as lazy:
        identity = Identity(lazy.header.shape)
        for z0, z1 in _slabs(lazy.header, voxels_at_once):
            block = lazy.read(z0, z1)
            identity.update(block)
            if block.dtype.kind == "f" and not np.isfinite(block).all():
                wrong = ~np.isfinite(block)
                bad += int(wrong.sum())
                first = first or _place(wrong, z0)
                block = block[~wrong]
            if block.size:
                low, high = min(low, float(block.min())), max(high, float(block.max()))
        return ImageFacts(lazy.header, low, high, bad, first, identity.text())


def measure_mask(path: Path, voxels_at_once: int = _VOXELS_AT_ONCE, like: Header | None = None) -> MaskFacts:
    """Return the label values of a mask and how often each occurs, slab by slab; `like` is its image, where known.

    Raises:
        DataError: the mask cannot be read, or has several channels.
    """
    values: Counter[int] = Counter()
    odd, first = 0, None
    with open_volume(path, "mask", like) as lazy:
        require_one_channel(path, lazy.header)
        identity = Identity(lazy.header.shape)
        for z0, z1 in _slabs(lazy.header, voxels_at_once):
            block = lazy.read(z0, z1)
            identity.update(block)
            if block.dtype.kind == "f":
                whole = np.isfinite(block) & (block == np.rint(block))
                if not whole.all():
                    place = _place(~whole, 0)
                    first = first or f"{block[place]} at {_words(_shifted(place, z0)[1:])}"
                    odd += int((~whole).sum())
                block = block[whole].astype(np.int64)
            values.update(count_labels(block))
        return MaskFacts(lazy.header, dict(sorted(values.items())), odd, first, identity.text())


def spacing_of(facts: CaseFacts, question: Question) -> Spacing | None:
    """Return the voxel size of a case: as asked for, else as the image says."""
    return question.spacing_um or (facts.image.header.spacing_um if facts.image else None)


def class_voxels(facts: CaseFacts) -> dict[int, int] | None:
    """Return class -> voxels of a case, after the rule was applied; None without a readable mask."""
    return map_counts(facts.mask.values, facts.rule or LabelRule()) if facts.mask else None


# One case


def _slabs(header: Header, voxels_at_once: int) -> Iterator[tuple[int, int]]:
    channels, depth, height, width = header.shape
    step = max(1, voxels_at_once // (channels * height * width))
    for z0 in range(0, depth, step):
        yield z0, min(z0 + step, depth)


def _place(wrong: np.ndarray, z0: int) -> tuple[int, ...]:
    """Return the index (c, z, y, x) of the first True of a slab that begins at plane `z0`."""
    return _shifted(tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape)), z0)


def _shifted(place: tuple[int, ...], z0: int) -> tuple[int, ...]:
    return (place[0], place[1] + z0, *place[2:])


def _words(place: tuple[int, ...]) -> str:
    return ", ".join(f"{letter}={i}" for letter, i in zip("czyx"[-len(place) :], place, strict=True))


def _image_findings(facts: CaseFacts) -> list[Finding]:
    image, path = facts.image, facts.case.image
    if image is None:
        return []
    if image.not_finite:
        assert image.first_not_finite is not None
        return [
            Finding(
                "error",
                f"'{path}': {image.not_finite} voxels are NaN or infinite, the first at "
                f"{_words(image.first_not_finite)}; wanted finite numbers; replace them, for example by 0",
            )
        ]
    findings = []
    if image.low == image.high:
        findings.append(Finding("warning", f"'{path}': every voxel is {image.low:g}: is this an image?"))
    advice = channels_advice(image.header)
    if advice:
        text = f"'{path}': {image.header.shape[0]} channels in a 2D image{advice}"
        findings.append(Finding("warning", text))
    sizes = image.header.shape[2 if image.header.is_2d else 1 :]
    if min(sizes) < _TINY:
        size = _size(image.header)
        findings.append(Finding("note", f"'{path}': only {size} voxels; an axis below {_TINY} is hardly used"))
    return findings


def _mask_findings(facts: CaseFacts) -> list[Finding]:
    mask, path, image = facts.mask, facts.case.mask, facts.image
    if mask is None or path is None:
        return []
    if image is not None and is_one_array(facts.case.image, image.header, path, mask.header):
        return []  # said of the pair; what is wrong with it as a mask only leads away
    findings = []
    if mask.not_whole:
        findings.append(
            Finding(
                "error",
                f"'{path}': {mask.not_whole} voxels are no whole numbers, the first is {mask.first_not_whole}; "
                "wanted labels 0, 1, 2, ...; save the mask without interpolation, as integers",
            )
        )
    if facts.rule and facts.rule.problem:
        findings.append(Finding("error", f"'{path}': {facts.rule.problem}"))
    if facts.rule and facts.rule.warning:
        findings.append(Finding("warning", f"'{path}': {facts.rule.warning}"))
    ignored = facts.rule.ignore if facts.rule else None
    if set(mask.values) == {ignored}:
        findings.append(Finding("warning", f"'{path}': every voxel is {ignored}, to be ignored: nothing is annotated"))
    elif not any(value for value in mask.values if value != ignored) and not mask.not_whole:
        findings.append(Finding("warning", f"'{path}': no object in it, all background"))
    return findings


def _pair_findings(facts: CaseFacts) -> list[Finding]:
    if facts.image is None or facts.mask is None:
        return []
    image, mask, case = facts.image.header, facts.mask.header, facts.case
    if facts.image.digest == facts.mask.digest and any(facts.mask.values):
        message = f"'{case.mask}': the mask is its image, voxel by voxel; wanted labels 0, 1, 2, ...; give the masks"
        return [Finding("error", message)]
    wrong = shape_problems(case, image, mask)
    if wrong:
        return [Finding("error", problem) for problem in wrong]
    assert case.mask is not None
    moved = [Finding("warning", line) for line in place_warnings(case.mask, mask, case.image, image)]
    if image.spacing_um and mask.spacing_um and not np.allclose(image.spacing_um, mask.spacing_um, rtol=0.01):
        message = (
            f"'{case.mask}': voxel size {_um(mask.spacing_um)}, but its image says {_um(image.spacing_um)}; "
            "that of the image is used"
        )
        return [Finding("warning", message), *moved]
    return moved


# All cases


def _remark_findings(facts: Sequence[CaseFacts]) -> list[Finding]:
    """Say what was left out or assumed in reading, once for all files that it concerns."""
    images = [(one.case.image, one.image.header) for one in facts if one.image]
    masks = [(one.case.mask, one.mask.header) for one in facts if one.mask and one.case.mask]
    return [Finding(remark.kind, remark.text) for remark in group_remarks([*images, *masks])]


def _spacing_findings(headers: Mapping[str, Header], question: Question) -> list[Finding]:
    """Say what is odd about the voxel sizes; that some files lack it is an error found elsewhere."""
    known = {name: header.spacing_um for name, header in headers.items() if header.spacing_um}
    if question.spacing_um:
        return [*_contradictions(known, question.spacing_um), *_anisotropy([question.spacing_um])]
    if headers and not known:
        message = "no image says its voxel size; cubic voxels are assumed; if that is wrong give --spacing Z Y X"
        return [Finding("note", message)]
    if len(known) < len(headers) or not headers:
        return []
    volumes = {name: float(np.prod(size)) for name, size in known.items()}
    small, large = min(volumes, key=volumes.__getitem__), max(volumes, key=volumes.__getitem__)
    sizes = np.array(list(known.values()))
    if (sizes.max(axis=0) / sizes.min(axis=0)).max() <= _FAR:
        return _anisotropy(list(known.values()))
    message = (
        f"voxel sizes differ more than {_FAR:g}-fold: {_um(known[small])} in '{small}', "
        f"{_um(known[large])} in '{large}'; is a unit wrong?"
    )
    return [Finding("warning", message)]


def _contradictions(known: Mapping[str, Spacing], given: Spacing) -> list[Finding]:
    """Say where the voxel size that was asked for is not that of the files, for the first of them."""
    for name, stored in known.items():
        if problem := sanity.unit_problem(name, given, stored):
            return [Finding("error", problem)]
    far = [name for name, stored in known.items() if sanity.differs(given, stored)]
    if not far:
        return []
    message = f"--spacing {sanity.text_of(given)} is used, not the voxel size of the files, {_um(known[far[0]])} in"
    return [Finding("warning", f"{message} {_names(far)}")]


def _anisotropy(spacings: Sequence[Spacing]) -> list[Finding]:
    z, y, x = np.median(np.array(spacings), axis=0)
    ratio = z / min(y, x)
    message = f"anisotropic: a voxel is {ratio:.1f} times as thick as wide"
    return [Finding("note", message)] if ratio >= _THICK else []


def _type_findings(headers: Mapping[str, Header]) -> list[Finding]:
    groups = _group({name: header.dtype.name for name, header in headers.items()})
    if len(groups) < 2:
        return []
    found = "; ".join(f"{value}: {_names(names)}" for value, names in groups.items())
    return [Finding("note", f"the images have different types: {found}")]


def _class_findings(facts: Sequence[CaseFacts], question: Question) -> list[Finding]:
    """Say which classes never occur; no object in any mask is an error."""
    counts = [class_voxels(one) for one in facts if one.mask and not (one.rule and one.rule.problem)]
    if not counts or len(counts) < sum(one.case.mask is not None for one in facts):
        return []
    if any(one.mask and one.mask.not_whole for one in facts):  # what their values were meant to be nobody knows
        return []
    present = {label for count in counts if count for label, voxels in count.items() if voxels}
    if not any(present):
        return [Finding("error", "no mask has an object in it, all are background (0); wanted labels 1, 2, ...")]
    if sanity.is_full(counts):
        return [Finding("error", sanity.full_problem(next(one.case.mask for one in facts if one.case.mask)))]
    absent = [label for label in range(1, (question.num_classes or 0) + 1) if label not in present]
    if absent:
        message = f"class {describe_values(absent)} occurs in no mask; is --num_classes {question.num_classes} right?"
        return [Finding("warning", message)]
    return []


def _duplicates(facts: Sequence[CaseFacts]) -> list[Finding]:
    groups = _group({one.case.name: one.image.digest for one in facts if one.image})
    return [
        Finding("warning", f"the same voxels under several names: {_names(names)}; validation will flatter")
        for names in groups.values()
        if len(names) > 1
    ]


def _too_few(facts: Sequence[CaseFacts]) -> list[Finding]:
    if len(facts) == 1 and facts[0].case.mask:
        message = "one volume only: it is cut into blocks for training and validation, and its Dice will flatter"
        return [Finding("note", message)]
    return []


def _group(kinds: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        groups[kind].append(name)
    return groups


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _size(header: Header) -> str:
    return " x ".join(map(str, header.shape[1:]))


def _um(spacing: Spacing) -> str:
    return " x ".join(f"{size:g}" for size in spacing) + " µm"
