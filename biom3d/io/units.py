"""Units of length that image files use, and voxel sizes in µm."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from biom3d.io.volume import Remark, Spacing

UM_PER_UNIT = {"µm": 1.0, "nm": 1e-3, "pm": 1e-6, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0, "Å": 1e-4}
_SPELLINGS = {
    # The last two are UTF-8 that was read as Latin-1, with either of the two letters that look like a mu.
    "µm": ("um", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "\\u00b5m", "âµm", "î¼m"),
    "nm": ("nanometer", "nanometers", "nanometre"),
    "pm": ("picometer", "picometers", "picometre"),
    "mm": ("millimeter", "millimeters", "millimetre"),
    "cm": ("centimeter", "centimeters", "centimetre"),
    "m": ("meter", "meters", "metre"),
    "inch": ("in", "inches"),
    "Å": ("angstrom", "ångström"),
}
_NO_LENGTH = ("", "pixel", "pixels", "voxel", "voxels", "px", "null", "none", "unknown", "reference frame")
_CANONICAL = {word: unit for unit, words in _SPELLINGS.items() for word in words}


def canonical_unit(text: str | None) -> str | None:
    """Return our name of a unit of length, or None for pixels, no unit, or one that we do not know."""
    word = (text or "").strip()
    if word in UM_PER_UNIT:
        return word
    return _CANONICAL.get(word.lower())


def spacing_in_um(z: float | None, y: float | None, x: float | None, unit: str | None) -> Spacing | None:
    """Return the voxel size (z, y, x) in µm, or None unless all three and the unit are known and sensible."""
    canonical = canonical_unit(unit)
    if canonical is None or z is None or y is None or x is None:
        return None
    sizes = (float(z), float(y), float(x))
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        return None
    factor = UM_PER_UNIT[canonical]
    return (sizes[0] * factor, sizes[1] * factor, sizes[2] * factor)


def spacing_in_unit(spacing_um: Spacing, unit: str) -> Spacing:
    """Return the voxel size (z, y, x) in `unit`, one of `UM_PER_UNIT`."""
    z, y, x = (size / UM_PER_UNIT[unit] for size in spacing_um)
    return (z, y, x)


def length_in_um(size: Any, unit: str | None) -> float | None:
    """Return a length in µm, or None where it is none or the unit is not known."""
    canonical = canonical_unit(unit)
    try:
        return float(size) * UM_PER_UNIT[canonical] if canonical and size is not None else None
    except (TypeError, ValueError):
        return None


def place_in_um(place: Sequence[Any]) -> Spacing | None:
    """Return a place (z, y, x) in µm; axes that are not said lie at 0, and None where none is or one is no number."""
    try:
        z, y, x = (0.0 if one is None else float(one) for one in place)
    except (TypeError, ValueError):
        return None
    is_said = any(one is not None for one in place) and all(map(math.isfinite, (z, y, x)))
    return (z, y, x) if is_said else None


def unknown_units(words: Iterable[str | None]) -> tuple[Remark, ...]:
    """Return a remark for the words that stand where a unit of length should, and are none that we know."""
    said = {word.strip() for word in words if word}
    odd = sorted(word for word in said if canonical_unit(word) is None and word.lower() not in _NO_LENGTH)
    if not odd:
        return ()
    named = ", ".join(f"'{word}'" for word in odd)
    return (
        Remark("warning", f"unit {named} is not known, so the voxel size is not; give it by --spacing Z Y X in µm"),
    )


def told_unit(files: Iterable[tuple[str, Spacing | None]]) -> str:
    """Return the unit in which people are told lengths of these files (unit, voxel size): mm where all are in mm.

    Voxels below 10 µm are told in µm all the same, since two digits of mm would be 0.00.
    """
    known = [(unit, spacing) for unit, spacing in files if spacing]
    is_mm = bool(known) and all(unit in ("mm", "cm", "m") and min(spacing) >= 10 for unit, spacing in known)
    return "mm" if is_mm else "µm"
