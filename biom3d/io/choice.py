"""Which array of a file is meant: what the path says, else what the names and types in the file say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from biom3d.errors import DataError
from biom3d.io.volume import Header, Remark

Role = Literal["image", "mask"]

# What stands after a suffix and a colon names an array, though only some formats hold several.
_WITH_KEY = re.compile(
    r"^(.+?\.(?:hdf5|h5|zarr|tiff|tif|nii\.gz|nii|npy|nrrd|mha|dcm)):(.*)$", re.IGNORECASE | re.DOTALL
)
_URL = re.compile(r"^(https?|s3):/{1,2}(?=[^/])", re.IGNORECASE)
_URL_IN_ZARR = re.compile(r"^(.+?\.zarr)(?:[:/](.*))?$", re.IGNORECASE | re.DOTALL)
_AFTER_COLON = re.compile(r"^(.+):([^:]*)$", re.DOTALL)
_IN_ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
# Words in the names of arrays: PlantSeg, ilastik, CREMI, Cellpose, napari, stardist and nnU-Net write such.
_WORDS: dict[Role, frozenset[str]] = {
    "mask": frozenset(
        {
            *("label", "labels", "lbl", "mask", "masks", "seg", "segmentation", "segmentations", "segmented", "gt"),
            *("groundtruth", "truth", "annotation", "annotations", "instance", "instances", "ids", "clefts"),
            *("prediction", "predictions"),
        }
    ),
    "image": frozenset(
        {
            *("raw", "image", "images", "img", "volume", "volumes", "data", "intensity", "intensities", "em", "signal"),
            *("grey", "gray"),
        }
    ),
}
_USUAL: dict[Role, tuple[str, ...]] = {"image": ("raw", "volume"), "mask": ("label",)}
_MUCH = 8  # an array that is this many times as large as any other is the volume, the others are previews or tables
_SHOWN = 6


@dataclass(frozen=True)
class Pick:
    """What is wanted of a file: the array called `key`, or else the one that can be the `role`.

    `like` is the image of a mask, whose grid counts where the file of the mask leaves empty slices out.
    """

    role: Role = "image"
    key: str | None = None
    like: Header | None = None


@dataclass(frozen=True)
class Candidate:
    """One array of a file: how it is called, what its name says, its shape without axes of length 1, its type."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    title: str = ""

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def text(self) -> str:
        """The array in a message."""
        title = f" '{self.title}'" if self.title else ""
        return f"'{self.key}'{title} ({' x '.join(map(str, self.shape))}, {self.dtype})"


def split_key(path: Path | str) -> tuple[Path, str | None]:
    """Split `file.h5:/volumes/raw` or `image.zarr/labels/nuclei` into the file and the key of an array in it.

    After the name of a folder the key is that of every file in it. A path without a key, or a file whose own name has
    the colon, gives None.
    """
    path = Path(path)
    if url_of(path) is not None:
        match = _URL_IN_ZARR.match(str(path))
        return (Path(match[1]), (match[2] or "").strip("/") or None) if match else (path, None)
    for parent in path.parents:
        if parent.name.lower().endswith(".zarr") and any((parent / name).exists() for name in _IN_ZARR):
            return parent, path.relative_to(parent).as_posix()
    if ":" not in str(path) or path.exists():
        return path, None
    match = _WITH_KEY.match(str(path)) or _AFTER_COLON.match(str(path))
    if match is None or (match.re is _AFTER_COLON and not Path(match[1]).is_dir()):
        return path, None
    return Path(match[1]), match[2].strip("/") or None


def url_of(path: Path | str) -> str | None:
    """Return the URL that a path was made of, which takes `//` for `/`; None where it was none."""
    match = _URL.match(str(path))
    return f"{match[1].lower()}://{str(path)[match.end() :]}" if match else None


def with_key(path: Path, key: str | None) -> Path:
    """Return the path of the array `key` in the file `path`."""
    return Path(f"{path}:{key.strip('/')}") if key else path


def choose(found: Sequence[Candidate], pick: Pick, what: str = "arrays") -> tuple[Candidate, tuple[Remark, ...]]:
    """Return the array that was meant, and a remark where there was a choice.

    A name that says image or mask decides, then a type that only one of them has; among equals the usual name, or
    one that is far larger than the others.

    Raises:
        DataError: the key names none of them, or nothing tells them apart.
    """
    if pick.key is not None:
        return _named(found, pick.key), ()
    if len(found) == 1:
        return found[0], ()
    volumes = [one for one in found if len(one.shape) > 2] or list(found)
    if len(volumes) == 1:
        return volumes[0], ()
    ranks = [_rank(one, pick.role) for one in volumes]
    best = [one for one, rank in zip(volumes, ranks, strict=True) if rank == min(ranks)]
    chosen = _first_of_equals(best, pick.role) if min(ranks) < _CONTRARY else None
    if chosen is None:
        raise DataError(
            f"holds {len(volumes)} {what} and does not say which one is the {pick.role}: {_list(volumes)}; {_how(pick)}"
        )
    others = ", ".join(f"'{one.key}'" for one in volumes if one is not chosen)
    return chosen, (Remark("note", f"'{chosen.key}' is taken as the {pick.role}; also in the file: {others}"),)


def _named(found: Sequence[Candidate], key: str) -> Candidate:
    wanted = key.strip("/")
    for matches in (
        [one for one in found if one.key == wanted],
        [one for one in found if one.key.rpartition("/")[2] == wanted],
    ):
        if len(matches) == 1:
            return matches[0]
    raise DataError(f"no array '{wanted}' in it; it holds {_list(found) or 'none'}")


_CONTRARY = 3  # rank of an array whose name or type says that it is something else


def _rank(one: Candidate, role: Role) -> int:
    """Return how little an array looks like `role`: 0 named so, 1 of a type that says so, 2 unknown, 3 contrary."""
    is_float = one.dtype.kind == "f"
    named = _role_of_name(f"{one.key}/{one.title}")
    if named is not None:
        return 0 if named == role and not (is_float and role == "mask") else _CONTRARY
    is_wide = one.dtype.kind == "b" or (one.dtype.kind in "iu" and one.dtype.itemsize > 2)
    if role == "mask":
        return 1 if is_wide else _CONTRARY if is_float else 2
    return 1 if is_float else 2 if is_wide else 1


def _role_of_name(name: str) -> Role | None:
    """Return what the last telling part of a name says: `volumes/labels/neuron_ids` is a mask."""
    for part in reversed(name.split("/")):
        words = set(re.findall(r"[a-z]+", part.lower()))
        for role in ("mask", "image"):
            if words & _WORDS[role]:
                return role
    return None


def _first_of_equals(best: list[Candidate], role: Role) -> Candidate | None:
    if len(best) == 1:
        return best[0]
    for name in _USUAL[role]:
        usual = [one for one in best if one.key == name]
        if usual:
            return usual[0]
    order = sorted(best, key=lambda one: one.size, reverse=True)
    is_far_larger = order[0].size >= _MUCH * order[1].size
    return order[0] if is_far_larger or _are_levels(order) else None


def _are_levels(order: Sequence[Candidate]) -> bool:
    """Tell the resolutions of one picture, each half as fine or less: `raw/s0`, `raw/s1`; images of a TIFF are none."""
    names = {_without_level(one.key) for one in order}
    halves = all(fine.size >= 2 * coarse.size for fine, coarse in pairwise(order))
    return len(names) == 1 and halves and not order[0].key.isdigit()


def _without_level(key: str) -> str:
    """Return a name without the number of a resolution level: `raw/s0` and `raw/s1` are one picture."""
    return re.sub(r"(^|/)(s|level|scale)?_?\d+(?=/|$)", r"\1#", key.lower())


def _how(pick: Pick) -> str:
    option = "img_key" if pick.role == "image" else "msk_key"
    return (
        f"name one of them after the file and a colon (FILE:ARRAY), or for all files by --{option} ARRAY "
        f"(in the table: column {pick.role}_key)"
    )


def _list(found: Sequence[Candidate]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(one.text for one in found[:_SHOWN]) + more
