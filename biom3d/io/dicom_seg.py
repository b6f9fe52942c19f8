"""DICOM-SEG: label volumes as DICOM has them, one number a segment, on the slices of the series that was segmented."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biom3d.errors import DataError
from biom3d.io.attached import LPS
from biom3d.io.dicom import Grid, Slice, read_frame, slices_of, sort_slices
from biom3d.io.volume import Header, LazyVolume, Remark

_NEAR = 0.1  # of a voxel: so far may a slice lie from that of the image
_Frames = dict[int, list[tuple[int | None, Slice]]]  # z -> (segment, frame); None: the pixels are the numbers


def open_segmentation(members: Sequence[tuple[Path, Any]], like: Header | None) -> LazyVolume:
    """Open the labels of a DICOM-SEG file: number of the segment, 0 where there is none.

    Slices without a segment are often left out of the file. On the grid of the image, `like`, they come back;
    without it only those between others.

    Raises:
        DataError: at once, for what is no labels; while reading, where two segments have the same voxel.
    """
    if len(members) > 1:
        files = ", ".join(f"'{file.name}'" for file, _ in members[:5])
        raise DataError(f"holds {len(members)} segmentations of one series: {files}; name one of the files")
    ((file, head),) = members
    if head.get("SegmentationType") == "FRACTIONAL":
        raise DataError("holds probabilities (fractional segmentation); wanted a binary one or a label map")
    frames = slices_of(file, head)
    if any(one.place is None for one in frames):
        raise DataError("does not say where its slices lie; save the labels as NIfTI")
    header, placed = _on_image(frames, like) or _on_own_grid(frames)
    numbers = [int(one.SegmentNumber) for one in head.get("SegmentSequence") or []]
    dtype = np.min_scalar_type(max(numbers, default=1))

    def read(z0: int, z1: int) -> np.ndarray:
        return np.stack([_labels(placed.get(z, ()), z, header.shape, dtype) for z in range(z0, z1)])[np.newaxis]

    return LazyVolume(_with_type(header, dtype), read)


def _with_type(header: Header, dtype: np.dtype) -> Header:
    return Header(
        header.shape,
        dtype,
        "ZYX",
        header.spacing_um,
        unit="mm",
        extra=header.extra,
        origin_um=header.origin_um,
        remarks=header.remarks,
    )


def _labels(frames: Sequence[tuple[int | None, Slice]], z: int, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    labels = np.zeros(shape[2:], dtype)
    for segment, one in frames:
        pixels = read_frame(one)
        if pixels.shape != labels.shape:
            raise DataError(f"'{one.file}': a slice of {pixels.shape} pixels (y, x), its header says {labels.shape}")
        inside = pixels > 0
        if (labels[inside] > 0).any():
            raise DataError(
                f"'{one.file}': segment {segment} shares voxels of slice {z} with another; a voxel has one label here"
            )
        labels[inside] = pixels[inside] if segment is None else segment
    return labels


def _segment(one: Slice) -> int | None:
    number = one.find("SegmentIdentificationSequence", "ReferencedSegmentNumber")
    return None if number is None else int(number)


def _on_image(frames: Sequence[Slice], like: Header | None) -> tuple[Header, _Frames] | None:
    """Put the frames on the grid of the image; None where they do not lie on it."""
    if like is None or "affine" not in like.extra or like.unit != "mm":
        return None
    if any((int(one.head.Rows), int(one.head.Columns)) != like.shape[2:] for one in frames):
        return None
    inverse = np.linalg.inv(np.asarray(like.extra["affine"], float))
    placed: _Frames = defaultdict(list)
    for one in frames:
        corners = _corners(one)
        if corners is None:
            return None
        found = (inverse[:3, :3] @ LPS @ corners).T + inverse[:3, 3]
        z = round(float(found[0, 2]))
        wanted = np.array([[0, 0, z], [like.shape[3] - 1, 0, z], [0, like.shape[2] - 1, z]])
        if np.abs(found - wanted).max() > _NEAR or not 0 <= z < like.shape[1]:
            return None
        placed[z].append((_segment(one), one))
    return like, placed


def _corners(one: Slice) -> np.ndarray | None:
    """Return three corners of a slice as columns (x, y, z; mm): the first pixel, the end of its row and column."""
    if one.place is None or one.directions is None or one.pixel_mm is None:
        return None
    row = one.directions[0] * one.pixel_mm[1] * (int(one.head.Columns) - 1)
    column = one.directions[1] * one.pixel_mm[0] * (int(one.head.Rows) - 1)
    return np.stack([one.place, one.place + row, one.place + column], axis=1)


def _on_own_grid(frames: Sequence[Slice]) -> tuple[Header, _Frames]:
    """Put the frames in the order of their places; where some between them are left out, empty slices stand."""
    first = frames[0]
    if first.directions is None:
        raise DataError("does not say where its slices point; save the labels as NIfTI")
    normal = np.cross(*first.directions)
    along = [float(one.place @ normal) for one in frames]
    levels = sorted({round(value, 4): number for number, value in reversed(list(enumerate(along)))}.items())
    grid = sort_slices([frames[number] for _, number in levels])
    gaps = np.diff([level for level, _ in levels])
    step = float(gaps.min()) if gaps.size else first.thickness_mm or 1.0
    grid = _with_step(grid, step, normal)
    placed: _Frames = defaultdict(list)
    for one, value in zip(frames, along, strict=True):
        placed[round((value - levels[0][0]) / step)].append((_segment(one), one))
    depth = max(placed) + 1
    remarks = grid.remarks
    if depth > len(levels):
        text = f"{depth - len(levels)} slices without a segment are not in the file and count as 0"
        remarks = (Remark("note", text),)
    shape = (1, depth, int(first.head.Rows), int(first.head.Columns))
    return Header(shape, np.dtype(np.uint8), "ZYX", grid.spacing_um, extra=grid.extra, remarks=remarks), placed


def _with_step(grid: Grid, step: float, normal: np.ndarray) -> Grid:
    """Return the grid with the distance of neighbours, which missing slices in between made larger."""
    if grid.directions is None or len(grid.slices) < 2 or grid.spacing_um is None:
        return grid
    directions = np.column_stack([grid.directions[:, :2], normal * step])
    return Grid(grid.slices, (step * 1000.0, *grid.spacing_um[1:]), directions)
