"""What is known of images: `containers/images.lock.yaml` in git, and the bases that this machine has, in `.cache/`.

The lock holds what stays true when our own code changes: the base's digest, the hash of the wheels' lock, what the
image said of itself, the size. The name of an image follows from these and the sources, see `keys.lookup`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biom3d.config import dump, from_mapping, read_yaml
from biom3d.errors import ConfigError
from biom3d.files import write_text
from biom3d.images.table import FOLDER, Table

LOCK = f"{FOLDER}/images.lock.yaml"
MACHINE = ".cache/images/bases.yaml"
HEADER = "# Written by `biom3d images lock`; what each line means: README.md. Do not edit.\n"


@dataclass(frozen=True)
class Row:
    """What is known of one image without our own packages, so that it stays true from commit to commit.

    `digest`: of its content (base, wheels, how they are installed); `layers`: SHA-256 of each layer as Docker has it.
    """

    digest: str
    base: str
    wheels: str
    torch: str
    cuda: str
    python: str
    size_mb: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """The digests of bases, by `base_id`, and the rows of images."""

    bases: Mapping[str, str]
    images: Mapping[str, Row]


def read_lock(root: Path) -> Lock:
    """Read the lock of a checkout; an empty one where there is none yet."""
    path = root / LOCK
    if not path.is_file():
        return Lock({}, {})
    raw = read_yaml(path)
    rows = {name: from_mapping(Row, row, f"{LOCK}: {name}") for name, row in (raw.get("images") or {}).items()}
    return Lock(dict(raw.get("bases") or {}), rows)


def write_lock(root: Path, lock: Lock) -> None:
    """Write the lock, atomically and in the order of names."""
    images = {name: asdict(lock.images[name]) for name in sorted(lock.images)}
    write_text(root / LOCK, HEADER + dump({"bases": dict(sorted(lock.bases.items())), "images": images}))


def base_id(table: Table, base: str) -> str:
    """Return a name that changes with how the base is made."""
    row = asdict(table.bases[base])
    if row["mmdebstrap"] and not row["mmdebstrap"]["hooks"]:
        del row["mmdebstrap"]["hooks"]  # a base without keeps the name that it had before there were any
    recipe = json.dumps([row, table.epoch], sort_keys=True)
    return f"{base}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def base_digest(table: Table, base: str) -> str:
    """Return the digest of a base: of its reference, of the one on this machine, else the locked one."""
    reference = table.bases[base].reference
    if reference:
        return reference.split("@")[1]
    known = {**read_lock(table.root).bases, **_machine(table.root)}
    if base_id(table, base) not in known:
        raise ConfigError(f"nothing is known of the base '{base}'; make it with: biom3d images base {base}")
    return str(known[base_id(table, base)])


def note_base(table: Table, base: str, digest: str) -> None:
    """Remember which base this machine has: Debian's packages move on, so it may differ from the locked one."""
    known = _machine(table.root)
    if known.get(base_id(table, base)) != digest:
        write_text(table.root / MACHINE, dump({**known, base_id(table, base): digest}))


def _machine(root: Path) -> dict[str, Any]:
    path = root / MACHINE
    return read_yaml(path) if path.is_file() else {}
