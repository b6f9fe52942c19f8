"""OME-Zarr 0.5 with an image, its resolution pyramid, and labels beside it that viewers lay over it.

<name>.ome.zarr/0, 1, ...                  the image, each level half as wide and high as the one before
<name>.ome.zarr/labels/<label name>/0, ... the labels, on the same grids
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from biom3d import __version__
from biom3d.errors import DataError
from biom3d.files import atomic_path
from biom3d.io import Header, LazyVolume, open_volume, volume_name
from biom3d.io.axes import from_czyx
from biom3d.io.labels import describe_for_zarr
from biom3d.io.ome_zarr import create_image

VERSION = "0.5"
MARK = "exported_by_biom3d"  # attribute of what we may replace
MAX_SIDE = 256  # a viewer shows this at once; larger sides get a coarser level
SLAB = 32  # planes in memory; one chunk of io.ome_zarr

Shrink = Callable[[np.ndarray], np.ndarray]


def write_with_labels(
    out: Path,
    image: Path,
    labels: Path,
    label_name: str,
    spacing_um: tuple[float, float, float] | None = None,
    names: Mapping[int, str] | None = None,
) -> None:
    """Write the image and its labels to the folder `out`, atomically and a few planes at a time.

    `spacing_um` (z, y, x) replaces what the image file says; `names` are those of the classes, by value. An older
    export under this name is replaced; a folder that is none is left alone. Raises DataError for that, and where the
    two shapes differ.
    """
    if out.exists() and not _is_ours(out):
        raise DataError(f"'{out}' is there and was not made by export; move it away or choose another --out_dir")
    with open_volume(image) as picture, open_volume(labels, "mask") as mask, atomic_path(out) as temporary:
        header = picture.header
        if mask.header.shape != (1, *header.shape[1:]):
            raise DataError(
                f"labels '{labels}' have shape {mask.header.shape} (c, z, y, x), the image '{image}' "
                f"{header.shape}; wanted one channel on the same grid"
            )
        if spacing_um:
            header = replace(header, spacing_um=spacing_um, unit="µm")
        header = replace(header, extra={**header.extra, "layer_name": volume_name(image)})
        write_pyramid(temporary, picture, header, _mean_of_four)
        _set_contrast(zarr.open_group(temporary, mode="a", zarr_format=3))
        target = temporary / "labels" / label_name
        write_pyramid(target, mask, _label_header(header, mask.header, label_name), _first_of_four)
        zarr.open_group(temporary / "labels", mode="a", zarr_format=3).attrs.update(
            {"ome": {"version": VERSION, "labels": [label_name]}}
        )
        _describe_labels(target, names)
        zarr.open_group(temporary, mode="a", zarr_format=3).attrs[MARK] = __version__


def _is_ours(folder: Path) -> bool:
    try:
        return MARK in json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _label_header(image: Header, labels: Header, name: str) -> Header:
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels are of type {labels.dtype}, wanted integers; predict again or convert them")
    axes = image.axes.replace("C", "")
    return replace(
        image,
        shape=labels.shape,
        dtype=labels.dtype,
        axes=axes,
        channel_names=(),
        extra={**image.extra, "layer_name": name},
    )


def write_pyramid(path: Path, volume: LazyVolume, header: Header, shrink: Shrink) -> None:
    """Write a volume as an OME-Zarr image with levels, until no side in the plane is above `MAX_SIDE`."""
    level, axes = create_image(path, header, VERSION)
    group = zarr.open_group(path, mode="a", zarr_format=3)
    for z0 in range(0, header.shape[1], SLAB):
        block = volume.read(z0, min(z0 + SLAB, header.shape[1]))
        level[_planes(axes, z0)] = from_czyx(block, axes)
    count = 1
    while max(level.shape[-2:]) > MAX_SIDE:
        level = _add_level(group, str(count), level, axes, shrink)
        count += 1
    _describe_levels(group, axes, count)


def _planes(axes: str, z0: int) -> tuple[slice, ...]:
    return tuple(slice(z0, z0 + SLAB) if letter == "Z" else slice(None) for letter in axes)


def _add_level(group: zarr.Group, name: str, finer: Any, axes: str, shrink: Shrink) -> Any:
    shape = (*finer.shape[:-2], *(-(-side // 2) for side in finer.shape[-2:]))
    level = group.create_array(
        name=name,
        shape=shape,
        chunks=tuple(min(chunk, side) for chunk, side in zip(finer.chunks, shape, strict=True)),
        dtype=finer.dtype,
        dimension_names=list(axes.lower()),
    )
    depth = finer.shape[axes.index("Z")] if "Z" in axes else 1
    for z0 in range(0, depth, SLAB):
        level[_planes(axes, z0)] = shrink(np.asarray(finer[_planes(axes, z0)]))
    return level


def _mean_of_four(block: np.ndarray) -> np.ndarray:
    """Return an image (..., y, x) at half the size: the mean of 2 x 2 pixels, in the same type."""
    odd = [side % 2 for side in block.shape[-2:]]
    block = np.pad(block, [(0, 0)] * (block.ndim - 2) + [(0, odd[0]), (0, odd[1])], mode="edge")
    parts = [block[..., y::2, x::2].astype(np.float64) for y in (0, 1) for x in (0, 1)]
    mean = sum(parts[1:], parts[0]) / 4
    return (np.rint(mean) if block.dtype.kind in "iu" else mean).astype(block.dtype)


def _first_of_four(block: np.ndarray) -> np.ndarray:
    """Return labels (..., y, x) at half the size: every second one, since a mean of labels means nothing."""
    return block[..., ::2, ::2]


def _describe_levels(group: zarr.Group, axes: str, count: int) -> None:
    """Complete the metadata of level 0, which is there, by the scale and the shift of each coarser level.

    The centre of a pixel that stands for n x n lies (n - 1) / 2 fine pixels further; Zarr's scale alone would
    shift the picture.
    """
    ome: Any = group.attrs["ome"]
    datasets = ome["multiscales"][0]["datasets"]
    first = datasets[0]["coordinateTransformations"]
    scale = first[0]["scale"]
    shift = first[1]["translation"] if len(first) > 1 else [0.0] * len(axes)
    for number in range(1, count):
        factors = [2**number if letter in "YX" else 1 for letter in axes]
        moved = [s * (f - 1) / 2 + t for s, f, t in zip(scale, factors, shift, strict=True)]
        datasets.append({
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [s * f for s, f in zip(scale, factors, strict=True)]},
                {"type": "translation", "translation": moved},
            ],
        })  # fmt: skip
    group.attrs["ome"] = ome


def _set_contrast(group: zarr.Group) -> None:
    """Let viewers show each named channel from its darkest to its brightest, as the coarsest level has it.

    Otherwise they would show the whole range of the type: a 12-bit picture in 16 bits looks black.
    """
    ome: Any = group.attrs["ome"]
    level: Any = group[ome["multiscales"][0]["datasets"][-1]["path"]]
    for number, channel in enumerate(ome.get("omero", {}).get("channels", ())):
        values = np.asarray(level[number] if level.metadata.dimension_names[0] == "c" else level[...])
        finite = values[np.isfinite(values)]
        if finite.size and finite.min() < finite.max():
            channel["window"] |= {"start": float(finite.min()), "end": float(finite.max())}
    group.attrs["ome"] = ome


def _describe_labels(path: Path, names: Mapping[int, str] | None) -> None:
    """Tell viewers that this is a label image, of which image, and how to colour it."""
    group = zarr.open_group(path, mode="a", zarr_format=3)
    level: Any = group["0"]
    found = set()
    for z0 in range(0, level.shape[0], SLAB):
        found |= set(np.unique(level[z0 : z0 + SLAB]).tolist())
    content = {**describe_for_zarr(sorted(found - {0}), VERSION, names), "source": {"image": "../../"}}
    ome: Any = group.attrs["ome"]
    group.attrs["ome"] = {**ome, "image-label": content}
