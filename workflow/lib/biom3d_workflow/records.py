"""Snakemake's notes of how each output was made, in `.snakemake/`: read, written, taken along when files move.

They lie in files that are named after the output (`FilePersistence` of Snakemake; a test compares).
"""

import ast
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(".snakemake/metadata")
INCOMPLETE = Path(".snakemake/incomplete")
FORMAT = 6  # of the notes that these rules write and Snakemake 9.27 reads
MAX_NAME = 255  # of a file system; longer names become folders

Record = dict[str, Any]


def place(folder: Path, output: str) -> Path:
    """Return where the note of an output lies below `folder`."""
    name = urlsafe_b64encode(output.encode("utf-8", "surrogateescape")).decode()
    parts = [name[start : start + MAX_NAME - 1] for start in range(0, len(name), MAX_NAME - 1)]
    return folder.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def names() -> Iterator[str]:
    """Yield the outputs that have a note."""
    for path in sorted(FOLDER.rglob("*")) if FOLDER.is_dir() else ():
        if path.is_file():
            parts = [part.removeprefix("@") for part in path.relative_to(FOLDER).parts]
            with suppress(ValueError):
                yield urlsafe_b64decode("".join(parts)).decode("utf-8", "surrogateescape")


def read(output: str) -> Record | None:
    """Return the note of an output; None where there is none, or it cannot be read."""
    try:
        found = json.loads(place(FOLDER, output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(output: str, record: Record) -> None:
    """Write the note of an output, whole or not at all."""
    path = place(FOLDER, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name[:200]}.{os.getpid()}.new")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.chmod(0o660)
    temporary.replace(path)


def forget(output: str) -> None:
    """Remove the note of an output."""
    place(FOLDER, output).unlink(missing_ok=True)


def is_incomplete(output: str) -> bool:
    """Say whether a job began to make it, and nobody saw it end."""
    return place(INCOMPLETE, output).exists()


def mark_complete(output: str) -> None:
    """Remove the mark of a job that began and was not seen to end."""
    place(INCOMPLETE, output).unlink(missing_ok=True)


def identity(record: Record | None) -> str | None:
    """Return what an output was made of, see `identity`; None if the note does not say it."""
    params = (record or {}).get("params")
    try:
        return str(ast.literal_eval(params[0])) if isinstance(params, list) and len(params) == 1 else None
    except (ValueError, SyntaxError):
        return None
