"""Data sets and models that lie only on the server: their paths there, and the files here that stand for them.

A path of theirs leads from the working folder of the server, and a job finds it under the same name. Here a small
file stands for it, PATH.server.json, which `biom3d.remote` keeps: what lies there, with hashes. The rules take it as
their input.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from biom3d_workflow import volumes

SUFFIX = ".server.json"  # the same as in biom3d.remote.manifest (a test compares)
HERE, SERVER = "local", "server"
# Jobs write below these, and what comes from the server is read-only.
OURS = ("results", "data/pred", "data/preprocessed", "logs/steps")
PROFILE = (
    "lies on the server; give a profile whose executor is `host` and whose address is that server: snakemake"
    " --profile NAME (made by: biom3d remote add NAME)"
)

IsWanted = Callable[[str], bool]


def stand_in(path: str) -> str:
    """Return the file here that stands for a path of the server."""
    return f"{path}{SUFFIX}"


def is_volume(name: str) -> bool:
    """Say whether a file is a volume of its folder, or a part of one; `name` is below the folder. See `volumes`."""
    top, *below = PurePosixPath(name).parts
    is_named = not top.startswith(".") and top.lower().endswith(volumes.SUFFIXES)
    return is_named and bool(below) == top.lower().endswith(".zarr")


def is_anything(name: str) -> bool:
    """Say the same of a model folder, or of what is one volume itself: everything belongs to it."""
    return True


def wanted_at(path: str) -> IsWanted:
    """Return which files count at a data set's path: the volumes of a folder, or all parts of a single volume."""
    return is_anything if path.lower().endswith(volumes.SUFFIXES) else is_volume


def path_problem(path: str) -> str:
    """Return what is wrong with a path of the server; empty if nothing is."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or len(parts) < 2 or re.match(r"[.~]", parts[0]):
        return f"'{path}' is no folder below the working folder there; wanted such as data/NAME/images"
    for folder in OURS:
        if PurePosixPath(path).is_relative_to(folder) or PurePosixPath(folder).is_relative_to(path):
            return f"'{path}': results are written to {folder}; give another folder, such as data/NAME/images"
    return ""
