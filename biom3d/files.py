"""Atomic writes: a result is whole under its name, or not there at all."""

import errno
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from biom3d.errors import OutputError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EACCES: "no permission to write there; choose another folder or ask for write access",
    errno.EPERM: "no permission to write there; choose another folder or ask for write access",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
    errno.EFBIG: "the file is larger than this file system or the process limit allows",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """Translate an `OSError` of writing `path` into what happened and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "see the reason given by the system")
    return OutputError(f"cannot write '{path}': {error.strerror or error}; {remedy}")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that becomes `path` when the block ends well.

    The temporary name keeps the suffixes of `path`, so that writers that choose a format by name work.
    A file replaces a file; a folder replaces a folder. On an exception the temporary is removed.
    """
    path = Path(path)
    temporary = path.parent / f".tmp-{uuid.uuid4().hex[:8]}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        replace(temporary, path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        remove(temporary)


def replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`, also where `target` is a folder with content."""
    if target.is_dir() and not target.is_symlink():
        old = target.parent / f".tmp-{uuid.uuid4().hex[:8]}-old-{target.name}"
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old)
    else:
        source.replace(target)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(NotADirectoryError):  # its parent is a file, so nothing is there
            path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 under `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as readable JSON under `path`, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
