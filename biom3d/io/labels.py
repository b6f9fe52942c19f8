"""How viewers should show label volumes: which values there are, their colours and names."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAX_NAMED = 64  # values that get a colour and a name of their own; instances are more, and viewers choose


def values_of(labels: np.ndarray) -> tuple[int, ...]:
    """Return the values other than 0 of labels (z, y, x), maybe a memory map, in order; few planes are in memory."""
    if labels.dtype.kind == "b" or (labels.dtype.kind == "u" and labels.dtype.itemsize <= 2):
        seen = np.zeros(1 << 8 * labels.dtype.itemsize, bool)
        for plane in labels:
            seen[plane.astype(np.uint8) if plane.dtype.kind == "b" else plane] = True
        return tuple(int(value) for value in np.flatnonzero(seen) if value)
    found: set[int] = set()
    for plane in labels:
        found |= set(np.unique(plane).tolist())
    return tuple(int(value) for value in sorted(found - {0}))


def colour_of(number: int) -> list[int]:
    """Return an RGB colour far from those of the numbers before: hues a golden ratio apart."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + number * 0.618034) % 1, 0.9, 0.95)
    return [round(255 * part) for part in (red, green, blue)]


def lookup_table() -> np.ndarray:
    """Return colours for 256 steps (3, 256) uint8, as ImageJ wants them: 0 is black, neighbours are far apart."""
    return np.array([[0, 0, 0], *(colour_of(number) for number in range(255))], np.uint8).T


def describe_for_zarr(values: Sequence[int], version: str, names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Return the `image-label` of OME-Zarr for labels of these values; the specification allows no empty lists.

    `names` are those of the classes, by value.
    """
    content: dict[str, Any] = {"version": version}
    if 0 < len(values) <= MAX_NAMED:
        content["colors"] = [{"label-value": v, "rgba": [*colour_of(i), 255]} for i, v in enumerate(values)]
        content["properties"] = [{"label-value": v, "name": (names or {}).get(v, f"class {v}")} for v in values]
    return content
