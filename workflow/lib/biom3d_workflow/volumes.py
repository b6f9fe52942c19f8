"""The files of a data set as Snakemake should see them, so that a change of any reruns what depends on it."""

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

# The same as in biom3d.io (a test compares): a README or a thumbnail in the folder must not rerun a training.
SUFFIXES = (
    ".ome.tiff",
    ".ome.tif",
    ".tiff",
    ".tif",
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".mha",
    ".npy",
    ".hdf5",
    ".h5",
    ".ome.zarr",
    ".zarr",
)
# Snakemake takes {x} for a wildcard and <x> for a path variable, in names of real files too; it warns of outer blanks.
_UNSAFE = re.compile(r"[{}<>\r\n\ud800-\udfff]|//|^\s|\s$")


@functools.cache
def list_volumes(path: str) -> tuple[str, ...]:
    """Return the volumes of a folder, sorted; of a single volume, that one. Like `biom3d.io.list_volumes`."""
    if not Path(path).is_dir() or path.lower().endswith(".zarr"):
        return (path,) if path.lower().endswith(SUFFIXES) else ()
    with os.scandir(path) as entries:
        return tuple(sorted(entry.path for entry in entries if _is_volume(entry)))


def _is_volume(entry: os.DirEntry[str]) -> bool:
    name = entry.name.lower()
    if name.startswith(".") or not name.endswith(SUFFIXES):
        return False
    return entry.is_dir() == name.endswith(".zarr")


def inputs(path: str) -> list[str]:
    """Return what Snakemake should watch: the volumes, or their folder for names that it cannot hold."""
    watched = {inputs_of(volume, path) for volume in list_volumes(path)}
    return sorted(watched - _unreadable(path))


def list_teaching(images: str, masks: str) -> tuple[str, ...]:
    """Return the images that have a mask, as `biom3d.data.pairing` pairs them; one image and one mask are a pair."""
    names = {_name(mask) for mask in list_volumes(masks)}
    found = list_volumes(images)
    if found == (images,) and list_volumes(masks) == (masks,):
        return found
    return tuple(image for image in found if _name(image) in names)


def _name(volume: str) -> str:
    """Return the name without folder and suffix; as `biom3d.io.volume_name`."""
    name = unicodedata.normalize("NFC", Path(volume).name)
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def teaching_inputs(images: str, masks: str) -> list[str]:
    """Return what Snakemake should watch of the images that have a mask: another one without changes no training."""
    return sorted({inputs_of(volume, images) for volume in list_teaching(images, masks)} - _unreadable(images))


def inputs_of(volume: str, path: str) -> str:
    """Return what Snakemake should watch of one volume of `path`."""
    return path if _UNSAFE.search(volume) else volume


def stamp(*paths: str, only: Iterable[str] | None = None) -> str:
    """Return a short text that changes with what Snakemake does not see itself.

    That is the inside of .zarr folders (it looks at the time of the folder only), and files whose names
    it cannot hold. Empty in the usual case. It goes into `params:`, a change of which is a reason to rerun.
    `only` says which volumes count.
    """
    hidden = [volume for path in paths for volume in _hidden_volumes(path)]
    if only is not None:
        hidden = [volume for volume in hidden if volume in set(only)]
    facts = sorted(fact for volume in hidden for fact in _hidden_facts(volume))
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16] if facts else ""


def find_unreadable(path: str) -> list[str]:
    """Return the volumes of a path that this account cannot read; of a .zarr only its folders are tried.

    Snakemake hashes small inputs itself, and ends the whole run where it cannot.
    """
    return sorted(_unreadable(path))


@functools.cache
def _unreadable(path: str) -> frozenset[str]:
    return frozenset(volume for volume in list_volumes(path) if not _can_be_read(volume))


def _can_be_read(volume: str) -> bool:
    try:
        if os.access(volume, os.R_OK):
            return not volume.lower().endswith(".zarr") or bool(_folder_times(volume))
    except OSError:
        pass
    return False


@functools.cache
def _hidden_volumes(path: str) -> tuple[str, ...]:
    readable = (volume for volume in list_volumes(path) if volume not in _unreadable(path))
    return tuple(volume for volume in readable if volume.lower().endswith(".zarr") or _UNSAFE.search(volume))


def _hidden_facts(volume: str) -> Iterator[str]:
    if Path(volume).is_dir():
        yield from _folder_times(volume)
    elif _UNSAFE.search(volume):
        facts = Path(volume).stat()
        yield f"{volume} {facts.st_size} {facts.st_mtime_ns}"


@functools.cache
def _folder_times(volume: str) -> tuple[str, ...]:
    """Return the folders of a .zarr with their times; OSError where one cannot be read."""
    # Writers of Zarr replace a chunk by renaming, which dates its folder: no need to look at every chunk.
    return tuple(f"{folder} {Path(folder).stat().st_mtime_ns}" for folder in (volume, *_folders_below(volume)))


def _folders_below(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path
                yield from _folders_below(entry.path)


def forget() -> None:
    """Look again at what was looked at before: each folder is read once in a run, so that all rules see the same."""
    for cached in (list_volumes, _unreadable, _hidden_volumes, _folder_times):
        cached.cache_clear()
