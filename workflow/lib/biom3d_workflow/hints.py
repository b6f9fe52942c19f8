"""What may be meant by a path that leads to nothing that we read: a path of Windows, a format to convert."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

# Formats of microscopes that are widespread and that we do not read.
FOREIGN = (
    ".czi",
    ".nd2",
    ".lif",
    ".lsm",
    ".oib",
    ".oif",
    ".vsi",
    ".ims",
    ".dv",
    ".stk",
    ".mrc",
    ".nhdr",
    ".mhd",
)
CONVERT = (
    "convert it to OME-TIFF: in Fiji File > Import > Bio-Formats, then File > Save As > OME-TIFF; or "
    "`bfconvert IN OUT.ome.tiff` of the Bio-Formats command line tools for many files"
)


def windows_hint(path: str) -> str:
    """Return what a path of Windows is called here; empty where it is none."""
    drive = re.match(r"([A-Za-z]):[\\/]+(.*)", path)
    if drive:
        below = drive[2].replace("\\", "/")
        return f"a path of Windows; in WSL it is '/mnt/{drive[1].lower()}/{below}'"
    if path.startswith("\\\\"):
        return "a share of Windows; mount it, and give the path where it is mounted"
    return f"perhaps '{path.replace(chr(92), '/')}': folders are separated by / here" if "\\" in path else ""


def foreign_files(path: str) -> list[str]:
    """Return the files of a folder, or the file itself, in formats that we do not read; their names, sorted."""
    if path.lower().endswith(FOREIGN):
        return [path]
    return sorted(_foreign_names(path)) if Path(path).is_dir() else []


def _foreign_names(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if entry.name.lower().endswith(FOREIGN))


def foreign_hint(path: str) -> str:
    """Say how to convert what lies at a path and is not read; empty where nothing such is there."""
    names = foreign_files(path)
    if not names:
        return ""
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    kind = names[0][names[0].rindex(".") :].lower()
    return f"'{names[0]}'{more}: {kind} is not read; {CONVERT}"
