"""`containers/images.yaml` as dataclasses, checked against its schema and for names that lead nowhere."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d.config import from_mapping, read_yaml
from biom3d.errors import ConfigError

FOLDER = "containers"
TABLE = f"{FOLDER}/images.yaml"
SCHEMA = f"{FOLDER}/images.schema.yaml"
CHECKOUT = Path(__file__).parents[2]  # where this package runs from a checkout


@dataclass(frozen=True)
class Bootstrap:
    """A Debian base made on this machine by `mmdebstrap`."""

    suite: str
    packages: tuple[str, ...]
    mirror: str | None = None
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Base:
    """What an image starts from: either a `reference` with its digest, or a `mmdebstrap` made here."""

    python: str
    reference: str | None = None
    mmdebstrap: Bootstrap | None = None


@dataclass(frozen=True)
class Variant:
    """One row: an image to build, or (`reference`) one that others built. Keys: see the schema."""

    summary: str
    reference: str | None = None
    digest: str | None = None
    base: str = ""
    torch: str = ""
    cuda: str = ""
    driver: str = ""
    requires: tuple[str, ...] = ()
    sdists: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    distribution: str = ""
    version: str = ""
    command: str = ""


@dataclass(frozen=True)
class Package:
    """A folder of the checkout that becomes a wheel."""

    path: str
    files: tuple[str, ...]
    without: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """All of `images.yaml`, and the checkout (`root`) it stands in."""

    root: Path
    name: str
    source: str
    epoch: int
    pip: str
    bases: Mapping[str, Base]
    images: Mapping[str, Variant]
    packages: Mapping[str, Package]

    def variant(self, name: str) -> Variant:
        """Return the row `name`; ConfigError tells which there are."""
        if name not in self.images:
            raise ConfigError(f"unknown image variant '{name}'; {_suggest(name, self.images)} (see {TABLE})")
        return self.images[name]

    def base_of(self, name: str) -> Base:
        """Return the base of the row `name`."""
        return self.bases[self.variant(name).base]

    def version_of(self, name: str) -> str:
        """Return the version of what the image runs: of the row, else of pyproject.toml."""
        row = self.variant(name)
        return row.version or str(_pyproject(self.root)["project"]["version"])

    def lock_of(self, name: str) -> Path:
        """Return the file with the hashes of the row's wheels."""
        return self.root / FOLDER / "locks" / f"{name}.txt"


def load_table(root: Path = CHECKOUT) -> Table:
    """Read the table of the checkout `root`; ConfigError names the place, what is there and what is wanted."""
    if not (root / TABLE).is_file():
        raise ConfigError(f"'{root}' holds no {TABLE}: images are built in a checkout (git clone, make setup)")
    raw = read_yaml(root / TABLE)
    _check_schema(raw, read_yaml(root / SCHEMA))
    rows: dict[str, dict[str, Any]] = {
        group: {name: from_mapping(kind, row, f"{TABLE}: {name}") for name, row in raw[group].items()}
        for group, kind in (("bases", Base), ("images", Variant), ("packages", Package))
    }
    table = Table(root, raw["name"], raw["source"], raw["epoch"], raw["pip"], **rows)
    for name, row in table.images.items():
        if not row.reference:
            _check_known(name, "base", [row.base], table.bases)
        _check_known(name, "packages", row.packages, table.packages)
    return table


def _check_schema(raw: Any, schema: Mapping[str, Any]) -> None:
    try:
        import jsonschema
    except ImportError as error:
        raise ConfigError(f"reading {TABLE} needs jsonschema; in the checkout, run: pip install '.[images]'") from error
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(raw), key=lambda e: list(map(str, e.path)))
    if errors:
        place = ": ".join(map(str, errors[0].absolute_path)) or "top level"
        raise ConfigError(f"{TABLE}: {place}: {errors[0].message}; see {SCHEMA}")


def _check_known(row: str, key: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{TABLE}: {row}: {key}: unknown name '{name}'; {_suggest(name, known)}")


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def _pyproject(root: Path) -> dict[str, Any]:
    with open(root / "pyproject.toml", "rb") as file:
        return tomllib.load(file)
