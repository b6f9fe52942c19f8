"""The card of a server: all that a user's computer needs to know of it, as text, as a file, as a QR code."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d.config import dump, from_mapping, read_yaml
from biom3d.errors import ConfigError
from biom3d.files import write_text
from biom3d.server.keys import is_fingerprint

VERSION = 1
MAX_BYTES = 20_000  # of a card's file; a usual one has 500
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.%a-z0-9]*")  # a name, or an IPv6 address
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # nothing that ssh would take for an option
ENGINES = ("", "docker", "podman")
# Order and words of the text for people.
WORDS = {
    "name": "name",
    "address": "address",
    "port": "port",
    "user": "user",
    "jump": "through",
    "workdir": "working folder",
    "engine": "containers by",
    "engine_socket": "socket of those",
    "images": "images",
    "environment": "environment",
    "gpus": "GPUs",
    "host_keys": "host key",
}


@dataclass(frozen=True)
class Card:
    """What a server is: `host_keys` are `KIND SHA256:...`; `images` and `environment` say where steps run.

    `jump` is the way there, as in ssh's ProxyJump. It holds nothing secret, but who changes it can lead a user to
    another server: it is worth as much as the way by which it came.
    """

    name: str
    address: str
    user: str
    workdir: str
    host_keys: tuple[str, ...]
    port: int = 22
    jump: str = ""
    engine: str = ""
    engine_socket: str = ""
    images: tuple[str, ...] = ()
    environment: str = ""
    gpus: tuple[str, ...] = ()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of the host keys."""
        return tuple(key.split(" ")[1] for key in self.host_keys)


def check_card(card: Card, where: str) -> Card:
    """Return a card of which every value fits its place; ConfigError says which does not. It may come by mail."""
    _want(bool(NAME.fullmatch(card.name)), where, "name", card.name, "letters, digits, '_', '.' and '-'")
    _want(bool(ADDRESS.fullmatch(card.address)), where, "address", card.address, "the name or address of a host")
    _want(bool(USER.fullmatch(card.user)), where, "user", card.user, "the name of an account")
    _want(0 < card.port < 65536, where, "port", card.port, "1 to 65535")
    for key in ("workdir", "environment", "engine_socket"):
        path = getattr(card, key)
        is_needed = key == "workdir"
        fits = path.startswith("/") and path.isprintable() and ".." not in path.split("/")
        _want(fits or not (path or is_needed), where, key, path, "an absolute path without '..'")
    _want(card.engine in ENGINES, where, "engine", card.engine, "docker, podman, or nothing")
    _want(not card.jump or not re.search(r"[\s'\"]|(^|[,@])-", card.jump), where, "jump", card.jump, "user@host:port")
    keys = [key.split(" ") for key in card.host_keys]
    are_keys = all(len(key) == 2 and re.fullmatch(r"[a-z0-9@.-]+", key[0]) and is_fingerprint(key[1]) for key in keys)
    _want(bool(keys) and are_keys, where, "host_keys", list(card.host_keys), "['ssh-ed25519 SHA256:...']")
    shown = (*card.images, *card.gpus)
    _want(all(text.isprintable() for text in shown), where, "images, gpus", shown, "printable text")
    return card


def _want(fits: bool, where: str, key: str, value: object, wanted: str) -> None:
    if not fits:
        raise ConfigError(f"{where}: {key} is {value!r}; wanted {wanted}")


def card_mapping(card: Card) -> dict[str, Any]:
    """Return a card as what is written into its file: what is empty is left out."""
    values = {key: value for key, value in dataclasses.asdict(card).items() if value not in ("", ())}
    return {
        "card": VERSION,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()},
    }


def write_card(card: Card, path: Path) -> None:
    """Write a card, as JSON where the name ends so, else as YAML; the same one again changes nothing."""
    values = card_mapping(check_card(card, "card"))
    head = "# The card of a server for biom3d. On your computer: biom3d remote add NAME --card FILE\n"
    text = json.dumps(values, indent=2) + "\n" if path.suffix == ".json" else head + dump(values)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)


def read_card(path: Path) -> Card:
    """Read a card; ConfigError names what is wrong in it."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"'{path}' is too large for a card; give the file that 'biom3d server init' wrote")
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}; give the card's file") from error
    return parse_card(read_yaml(path), str(path))


def parse_card(values: Mapping[str, Any], where: str) -> Card:
    """Return the card that a mapping stands for."""
    content = dict(values)
    version = content.pop("card", None)
    if version != VERSION or isinstance(version, bool):
        raise ConfigError(f"{where}: card is {version!r}; wanted {VERSION}: is this the card of a server?")
    try:
        return check_card(from_mapping(Card, content, where), where)
    except ConfigError as error:
        raise ConfigError(str(error).replace("; is this a plan file?", "; is this the card of a server?")) from error


def card_text(card: Card, file: str = "card.yaml") -> str:
    """Return a card for people, and what they do with it."""
    width = max(map(len, WORDS.values()))
    lines = [f"The card of server '{card.name}'", ""]
    for field, word in WORDS.items():
        value = getattr(card, field)
        for text in value if isinstance(value, tuple) else [value] if value != "" else []:
            lines.append(f"  {word:<{width}}  {text}")
            word = ""
    return "\n".join(
        [
            *lines,
            "",
            "On your computer, with this card as a file:",
            f"  biom3d remote keygen {card.name}            makes your key; send its public part to the administrator",
            f"  biom3d remote add {card.name} --card {file}",
            f"  biom3d remote doctor {card.name}",
            f"  snakemake --profile {card.name}",
        ]
    )


def qr_payload(card: Card) -> str:
    """Return the text of the QR code: the card's file without what is only told, which `remote add --card` reads."""
    short = dataclasses.replace(check_card(card, "card"), images=(), gpus=(), host_keys=card.host_keys[:1])
    return json.dumps(card_mapping(short), separators=(",", ":"), ensure_ascii=False)


def qr_text(card: Card) -> str:
    """Return the card as a QR code for a terminal, two modules a character in height; needs `segno`."""
    try:
        import segno
    except ImportError as error:
        raise ConfigError(
            "QR codes need the package 'segno'; install it: in the checkout, pip install '.[server]', or leave out --qr"
        ) from error
    import io

    text = io.StringIO()
    segno.make_qr(qr_payload(card), error="l").terminal(text, compact=True)
    return text.getvalue()
