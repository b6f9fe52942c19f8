"""What every format is turned into: an array (c, z, y, x) and a header that survives the whole pipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Remark:
    """What a reader left out or assumed, without the name of the file: a note is only said, a warning may matter."""

    kind: Literal["warning", "note"]
    text: str


@dataclass(frozen=True)
class Header:
    """What is known of a volume without reading its voxels.

    Attributes:
        shape: (c, z, y, x) after the axes were brought in order; 2D images have z = 1.
        dtype: the type of the stored voxels.
        axes: the axes as stored, e.g. "ZYX", "CZYX", "ZCYX", "YX", "ZYXC": letters of C, Z, Y, X.
        spacing_um: voxel size (z, y, x) in µm, or None where the file does not say.
        channel_names: one name a channel, or empty.
        unit: unit in which the file stores its spacing ("µm", "mm", ...); written back the same way.
        extra: what one format needs to write a file like this one (the affine of NIfTI, ...).
        origin_um: where the centre of the first voxel lies (z, y, x) in µm, or None where the file does not say.
        array: which array of the file this is, where one file may hold several.
        remarks: what was left out or assumed when the file was read.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    axes: str
    spacing_um: Spacing | None = None
    channel_names: tuple[str, ...] = ()
    unit: str = "µm"
    extra: dict[str, Any] = field(default_factory=dict)
    origin_um: Spacing | None = None
    array: str = ""
    remarks: tuple[Remark, ...] = ()

    @property
    def is_2d(self) -> bool:
        """True for an image without a z axis."""
        return "Z" not in self.axes


@dataclass(frozen=True)
class Volume:
    """Voxels in memory: `array` is (c, z, y, x), described by `header`."""

    array: np.ndarray
    header: Header


@dataclass(frozen=True)
class LazyVolume:
    """A volume on disk: `read(z0, z1)` returns the planes z0 <= z < z1 as an array (c, z1 - z0, y, x).

    Use as a context manager; memory is that of the planes asked for wherever the format allows it.
    """

    header: Header
    read: Callable[[int, int], np.ndarray]
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> "LazyVolume":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
