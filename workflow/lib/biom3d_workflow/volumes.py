"""The files of a data set as Snakemake should see them, so that a change of any reruns what depends on it."""

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from biom3d_workflow.dicom import is_series, is_volume_file, kind_of, stamps_of

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
    ".dcm",
)
# Snakemake takes {x} for a wildcard and <x> for a path variable, in names of real files too; it warns of outer blanks.
_UNSAFE = re.compile(r"[{}<>\r\n\ud800-\udfff]|//|^\s|\s$")


@functools.cache
def list_volumes(path: str) -> tuple[str, ...]:
    """Return the volumes of a folder, sorted; of a single volume, that one. Like `biom3d.io.list_volumes`."""
    if not Path(path).is_dir() or path.lower().endswith(".zarr"):
        return (path,) if _is_volume_file(path) else ()
    with os.scandir(path) as entries:
        found = tuple(sorted(entry.path for entry in entries if _is_volume(entry)))
    return found or ((path,) if is_series(Path(path)) else ())


def _is_volume(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        return entry.name.lower().endswith(".zarr") or is_series(Path(entry.path))
    return not entry.name.lower().endswith(".zarr") and _is_volume_file(entry.path)


def _is_volume_file(path: str) -> bool:
    """Tell a volume by its name; of DICOM, whose names mean nothing, by its first bytes."""
    if path.lower().endswith(".dcm") or not Path(path).suffix:
        return is_volume_file(Path(path))
    return path.lower().endswith(SUFFIXES)


def is_slice(path: str) -> bool:
    """Tell a single file of a DICOM series, which is no volume by itself."""
    return Path(path).is_file() and not is_volume_file(Path(path)) and kind_of(Path(path)) is not None


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
            return not Path(volume).is_dir() or bool(_folder_times(volume))
    except OSError:
        pass
    return False


@functools.cache
def _hidden_volumes(path: str) -> tuple[str, ...]:
    readable = (volume for volume in list_volumes(path) if volume not in _unreadable(path))
    return tuple(volume for volume in readable if Path(volume).is_dir() or _UNSAFE.search(volume))


def _hidden_facts(volume: str) -> Iterator[str]:
    if Path(volume).is_dir():
        yield from _folder_times(volume)
    elif _UNSAFE.search(volume):
        facts = Path(volume).stat()
        yield f"{volume} {facts.st_size} {facts.st_mtime_ns}"


@functools.cache
def _folder_times(volume: str) -> tuple[str, ...]:
    """Return the folders of a .zarr with their times, or the files of a series; OSError where one cannot be read."""
    if not volume.lower().endswith(".zarr"):
        return tuple(stamps_of(Path(volume)))
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
