"""Where a volume lies and where its axes point, as its file says; formats that do not say give None."""

import numpy as np

from biom3d.io.units import UM_PER_UNIT
from biom3d.io.volume import Header, Spacing


def has_affine(header: Header) -> bool:
    """Tell whether the file says where its voxels lie in space; NIfTI with both codes 0 has an affine by default."""
    codes = [header.extra.get(f"{form}_code", 1) for form in ("sform", "qform")]
    return "affine" in header.extra and any(codes)


def direction_of(header: Header) -> np.ndarray | None:
    """Return the directions of the axes x, y, z as the columns of a matrix of unit vectors."""
    if not has_affine(header):
        return None
    matrix = np.asarray(header.extra["affine"], float)[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    return matrix / lengths if lengths.all() else None


def place_of(header: Header) -> Spacing | None:
    """Return the place (z, y, x) in µm of the centre of the first voxel."""
    if "affine" not in header.extra:
        return header.origin_um
    if not has_affine(header):
        return None
    x, y, z = (float(row[3]) * UM_PER_UNIT[header.unit] for row in header.extra["affine"][:3])
    return (z, y, x)


def are_comparable(first: Header, second: Header) -> bool:
    """Tell whether two places are in one system: that of scanners (formats with an affine), or that of microscopes."""
    return ("affine" in first.extra) == ("affine" in second.extra)
