"""Units of length that image files use, and voxel sizes in µm."""

import math

from biom3d.io.volume import Spacing

UM_PER_UNIT = {"µm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0, "Å": 1e-4}
_SPELLINGS = {
    "µm": ("um", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "\\u00b5m"),
    "nm": ("nanometer", "nanometers", "nanometre"),
    "mm": ("millimeter", "millimeters", "millimetre"),
    "cm": ("centimeter", "centimeters", "centimetre"),
    "m": ("meter", "meters", "metre"),
    "inch": ("in", "inches"),
    "Å": ("angstrom", "ångström"),
}
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
