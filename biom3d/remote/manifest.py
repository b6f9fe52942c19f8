"""A manifest: a small file here that stands for a file or folder that lies only on a host.

It is called like what it stands for, with `.server.json` behind. It holds what the host said when it was last asked
(names, sizes, SHA-256) and is written only when that differs: so its time of change is that of the data, as far as
anybody here knows, and whatever goes by times (Snakemake) can watch it in place of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import DataError
from biom3d.files import write_json

SUFFIX = ".server.json"
ASK = "ask the server again: remove this file, and run the same command"


@dataclass(frozen=True, order=True)
class Item:
    """One file; `name` is below what the manifest stands for, empty for that itself. `key` is SHA-256."""

    name: str
    size: int
    key: str


@dataclass(frozen=True)
class Manifest:
    """What lies at `path`, relative to the working folder of the host, and of the workflow; sorted by name."""

    path: str
    files: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(item.size for item in self.files)


def stand_in(path: str) -> str:
    """Return the manifest's own name."""
    return f"{path}{SUFFIX}"


def is_manifest(path: Path | str) -> bool:
    """Say whether a file stands for others, by its name."""
    return str(path).endswith(SUFFIX)


def read_manifest(file: Path) -> Manifest:
    """Read a manifest.

    Raises:
        DataError: it is not there, or was not written by `write_manifest`.
    """
    try:
        content = json.loads(file.read_bytes())
        files = tuple(sorted(Item(str(row["name"]), int(row["size"]), str(row["sha256"])) for row in content["files"]))
        return Manifest(str(content["path"]), files)
    except OSError as error:
        raise DataError(f"'{file}': {error.strerror}; it says what lies on the server, {ASK}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{file}' does not say what lies on the server ({error}); {ASK}") from error


def write_manifest(manifest: Manifest, folder: Path) -> bool:
    """Write a manifest to its place below `folder` if it says something new; return whether it does."""
    file = folder / stand_in(manifest.path)
    try:
        if read_manifest(file) == manifest:
            return False
    except DataError:
        pass  # there is none yet, or it is of no use
    rows = [{"name": item.name, "size": item.size, "sha256": item.key} for item in manifest.files]
    write_json(file, {"path": manifest.path, "files": rows})
    return True
