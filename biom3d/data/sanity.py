"""Slips that no reader of files notices: images given as their own masks, masks without background, nm taken for µm."""

import math
from collections.abc import Mapping, Sequence

from biom3d.io import Spacing

FULL = 0.99  # share of objects in every mask from which on it cannot be a mask
UNITS = (1e2, 1e3, 1e6)  # how far units are apart: cm and m, nm and µm, µm and m
SAME = 0.1  # relative difference that rounding explains
FAR = 1.5  # a spacing that differs by more is worth a word


def is_full(classes: Sequence[Mapping[int, int] | None]) -> bool:
    """Say whether objects fill every mask; `classes` are class -> voxels of each."""
    shares = [1 - one.get(0, 0) / sum(one.values()) for one in classes if one and sum(one.values())]
    return bool(shares) and min(shares) > FULL


def full_problem(mask: object) -> str:
    """Say it."""
    return (
        f"objects fill more than {FULL:.0%} of every mask, such as '{mask}'; wanted 0 for the background; are these "
        "the images, or is background another value?"
    )


def wrong_unit(given: Spacing, stored: Spacing) -> float | None:
    """Return how many times a given voxel size is that of the file, where that is a mistaken unit on all axes."""
    ratios = [one / other for one, other in zip(given, stored, strict=True)]
    for unit in UNITS:
        for factor in (unit, 1 / unit):
            if all(abs(ratio / factor - 1) < SAME for ratio in ratios):
                return factor
    return None


def differs(given: Spacing, stored: Spacing) -> bool:
    """Say whether a given voxel size is far from that of the file on some axis."""
    return any(abs(math.log(one / other)) > math.log(FAR) for one, other in zip(given, stored, strict=True))


def unit_problem(name: str, given: Spacing, stored: Spacing) -> str | None:
    """Return what is wrong with a given voxel size (z, y, x) in µm beside that of the image `name`; None if nothing."""
    factor = wrong_unit(given, stored)
    if factor is None:
        return None
    times = f"{factor:g} times" if factor > 1 else f"1/{1 / factor:g} of"
    return (
        f"--spacing {text_of(given)} is {times} the voxel size in '{name}', {text_of(stored)} µm; is it in another "
        "unit? give it in µm, or leave it out to take that of the files"
    )


def text_of(spacing: Spacing) -> str:
    """Write a voxel size as it is given to an option."""
    return " ".join(f"{size:g}" for size in spacing)
