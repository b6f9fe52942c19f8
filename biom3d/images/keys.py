"""Names that change exactly when an image's content does: hashes of all that goes into it, without Docker.

What goes in: the template and its scripts, the base's digest, the lock of the wheels, the sources of our packages.
What does not: the clock, the commit, and labels, which only tell of the above.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d.errors import ConfigError
from biom3d.images.lock import base_digest
from biom3d.images.table import CHECKOUT, FOLDER, TABLE, Package, Table, load_table

TEMPLATE = "template.dockerfile"
PART_TWO = "# ---- part two"
SKIPPED = ("__pycache__", ".pyc")


@dataclass(frozen=True)
class Image:
    """What to run: the name to give to a container engine, and a digest that changes with the content."""

    variant: str
    reference: str
    digest: str


def lookup(variant: str, root: Path = CHECKOUT) -> Image:
    """Return what to run for a row of the table of the checkout `root`; needs no Docker and takes milliseconds.

    Raises:
        ConfigError: no such row; its wheels were never resolved; no base digest is known; no digest was entered.
    """
    return image_of(load_table(root), variant)


def image_of(table: Table, variant: str) -> Image:
    """Return the name and digest of the row `variant`; see `lookup`."""
    row = table.variant(variant)
    if row.reference:
        if not row.digest:
            raise ConfigError(
                f"image '{variant}' ({row.reference}) has no digest; enter it in {TABLE}, the comment there says how"
            )
        return Image(variant, f"{row.reference}@{row.digest}", row.digest)
    key = image_key(table, variant, base_digest(table, row.base))
    return Image(variant, f"{table.name}/{variant}:{table.version_of(variant)}-{key[:12]}", f"sha256:{key}")


def dependencies_key(table: Table, variant: str, base: str) -> str:
    """Return the hash of all that makes the layer of dependencies, on the base with the digest `base`."""
    return _digest(
        {
            "template": template_parts(table.root)[0],
            "install": _read(table.root / FOLDER / "install.sh"),
            "epoch": table.epoch,
            "pip": table.pip,
            "base": base,
            "wheels": lock_hash(table, variant),
        }
    )


def image_key(table: Table, variant: str, base: str) -> str:
    """Return the hash of all that makes the image."""
    row = table.variant(variant)
    return _digest(
        {
            "dependencies": dependencies_key(table, variant, base),
            "template": template_parts(table.root)[1],
            "entrypoint": _read(table.root / FOLDER / "entrypoint.sh"),
            "command": row.command,
            "packages": [package_key(table, name) for name in row.packages],
        }
    )


def lock_hash(table: Table, variant: str) -> str:
    """Return the SHA-256 of the row's lock of wheels."""
    path = table.lock_of(variant)
    if not path.is_file():
        raise ConfigError(f"'{path}' is missing; write it with: biom3d images resolve {variant}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package_key(table: Table, name: str) -> str:
    """Return the hash of what of a package's folder goes into its wheel."""
    package = table.packages[name]
    folder = table.root / package.path
    return _digest(
        {
            str(path): "" if str(path) in package.blank else _content_hash(folder / path)
            for path in package_files(table.root, package)
        }
    )


def _content_hash(path: Path) -> str:
    """Return the SHA-256 of a file; of a pyproject.toml only what makes the wheel, not the settings of linters."""
    content = path.read_bytes()
    if path.name != "pyproject.toml":
        return hashlib.sha256(content).hexdigest()
    facts = tomllib.loads(content.decode())
    return _digest([facts.get("build-system"), facts.get("project"), facts.get("tool", {}).get("hatch")])


def package_files(root: Path, package: Package) -> list[Path]:
    """List the files of a package, relative to its folder, in one order on every machine."""
    folder = root / package.path
    left_out = [folder / name for name in package.without]
    found = {path for name in package.files for path in _walk(folder / name)}
    kept = (path for path in found if not any(path.is_relative_to(out) for out in left_out))
    return sorted(path.relative_to(folder) for path in kept)


def template_parts(root: Path) -> tuple[str, str]:
    """Return the two goes of the template, each a whole Dockerfile: the dependencies, and what comes on top."""
    text = _read(root / FOLDER / TEMPLATE)
    start, cut = text.index("FROM "), text.index(PART_TWO)
    return text[:cut], text[:start] + text[cut:]


def _walk(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file() and not _is_skipped(file))
    elif path.is_file():
        yield path
    else:
        raise ConfigError(f"'{path}' is missing; {TABLE} names it")


def _is_skipped(path: Path) -> bool:
    return path.suffix in SKIPPED or any(part in SKIPPED for part in path.parts)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}; it belongs to the checkout") from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
