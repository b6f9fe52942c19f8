"""Atomic writes: a result is whole under its name, or not there at all.

What is not finished lies in a hidden folder `.tmp-<8 digits>` beside its place. Whoever works there holds a lock on
`.tmp-<8 digits>.lock`; so who gets that lock knows that the owner was killed, and removes both.
"""

import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from biom3d.errors import DataError, OutputError

SCRATCH = ".tmp-"
LOCK = ".lock"
_FULL = "the disk is full; free some space and run the same command again"
_NO_PERMISSION = "no permission to write there; choose another folder or ask for write access"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of this path is a file, not a folder; choose another folder",
    errno.EISDIR: "a folder has this name, and is left alone; choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "it is larger than this file system or your limit (ulimit -f) allows; write elsewhere or raise it",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """Translate an `OSError` of writing `path` into what happened and what to do."""
    return OutputError(f"cannot write '{_final(path)}': {error.strerror or error}; {_remedy(error)}")


def system_error(error: OSError) -> OutputError:
    """Translate an `OSError` of which only the system knows where it comes from."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    where = f"'{name}': " if name else ""
    return OutputError(f"{where}{error.strerror or error}; {_remedy(error)}")


def _final(path: Path) -> str:
    """Return the place that a path in a scratch folder stands for."""
    return re.sub(rf"{re.escape(SCRATCH)}[0-9a-f]{{8}}/", "", str(path))


def _remedy(error: OSError) -> str:
    # NumPy writes arrays by itself and tells a short write without the reason
    full = error.errno is None and re.search(r"\d+ requested and \d+ written", str(error))
    return _FULL if full else _REMEDIES.get(error.errno or 0, "see the reason given by the system")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path of the same name that becomes `path` when the block ends well.

    A file replaces a file; a folder replaces a folder; a folder is never replaced by a file. On an exception the
    temporary is removed, and what was there before is untouched.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(path)
    if target.name in ("", ".."):
        target = target.resolve()
    try:
        with scratch_folder(target.parent) as scratch:
            temporary = scratch / target.name
            yield temporary
            replace(temporary, target)
    except OSError as error:
        raise output_error(Path(path), error) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new hidden folder in `parent`, and remove it at the end; those of killed programs are removed first.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    folder = parent / f"{SCRATCH}{uuid.uuid4().hex[:8]}"
    with _locked(parent / f"{folder.name}{LOCK}"):
        try:
            folder.mkdir()
            yield folder
        except BaseException:
            _remove_surely(folder)
            raise
        remove(folder)


@contextmanager
def work_folder(beside: Path | str | None) -> Iterator[Path]:
    """Yield a folder for large arrays, next to the file that will be written; without one, where the system has it.

    Raises:
        OutputError: it cannot be made, so neither can the file.
    """
    with ExitStack() as stack:
        if beside is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="biom3d-")))
        else:
            try:
                folder = stack.enter_context(scratch_folder(Path(beside).parent))
            except OSError as error:
                raise output_error(Path(beside), error) from error
        yield folder


def _remove_surely(folder: Path) -> None:
    """Remove a folder into which threads of a library may still write for a moment (zarr's do, after a full disk)."""
    for _ in range(20):
        remove(folder)
        time.sleep(0.02)
        if not folder.exists():
            return


def replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`, also where both are folders; the old content is removed.

    Raises:
        OSError: `target` is as before.
    """
    if not target.is_dir() or target.is_symlink():
        source.replace(target)
        return
    if not source.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with scratch_folder(target.parent) as scratch:
        old = scratch / "old"
        try:
            target.rename(old)
            source.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


def is_taken(path: Path) -> bool:
    """Say whether something is there, an empty folder aside."""
    is_folder = path.is_dir() and not path.is_symlink()
    return any(path.iterdir()) if is_folder else os.path.lexists(path)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(NotADirectoryError):  # its parent is a file, so nothing is there
            path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 under `path`, atomically."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:  # Python's way to show the bytes of a file name that is no text
        name = text[max(0, error.start - 20) : error.end + 20]
        where = f"cannot write '{_final(Path(path))}'"
        raise DataError(f"{where}: a name in it is no UTF-8 text, near {name!r}; rename that file") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as readable JSON under `path`, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(
    path: Path | str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], digits: int | None = None
) -> None:
    """Write `rows` as CSV under `path`, atomically; None is an empty cell, fractions have `digits` decimals."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        short = {key: round(v, digits) if digits is not None and isinstance(v, float) else v for key, v in row.items()}
        table.writerow(short)
    write_text(path, text.getvalue())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on the new file `path`, and remove it at the end."""
    with open(path, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a file system without locks: without the file nobody takes us for dead
            path.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{SCRATCH}{'[0-9a-f]' * 8}{LOCK}"):
        # an OSError: somebody works there, or it is gone, or of another user
        with suppress(OSError), open(path, "r+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path.with_suffix(""))
            path.unlink()
