"""Public keys of people: read from a file; private, weak and broken ones are refused."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import DataError

MAX_BYTES = 20_000  # of a file with one public key; an RSA key of 16384 bits has 3000
RSA_BITS = 3072  # NIST SP 800-57: 128 bits of security; what ssh-keygen makes by default since 2018
KINDS = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
ADVICE = "make one with: biom3d remote keygen NAME, or ssh-keygen -t ed25519"


@dataclass(frozen=True)
class PublicKey:
    """A public key: its kind, and the bytes that say all of it."""

    kind: str
    blob: bytes

    def __str__(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ssh shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def read_public_key(path: Path) -> PublicKey:
    """Return the one key of a file; DataError for anything else."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; give a file that ends in .pub") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"'{path}' is too large for a public key; give a file that ends in .pub")
    return parse_public_key(content, str(path))


def parse_public_key(content: bytes, where: str) -> PublicKey:
    """Return the one key of a file's content; `where` opens each message."""
    if b"PRIVATE KEY" in content or content.startswith(b"PuTTY-User-Key-File"):
        raise DataError(
            f"'{where}' is a PRIVATE key, which nobody but its owner may have; it counts as lost now: make a new one,"
            " and send only the file that ends in .pub"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"'{where}' is no public key but binary data; {ADVICE}") from error
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    if len(lines) != 1:
        raise DataError(f"'{where}' has {len(lines)} lines with content; wanted one public key (ssh-ed25519 AAAA...)")
    return _parse_line(lines[0], where)


def _parse_line(line: str, where: str) -> PublicKey:
    kind, _, rest = line.partition(" ")
    if kind == "ssh-dss":
        raise DataError(f"'{where}' is a DSA key, which OpenSSH takes no more; {ADVICE}")
    if kind not in KINDS:
        raise DataError(f"'{where}' begins with '{kind[:40]}', which is no kind of key taken here; {ADVICE}")
    try:
        blob = base64.b64decode(rest.split()[0], validate=True)
        fields = list(_fields(blob))
    except (IndexError, ValueError, binascii.Error) as error:
        raise DataError(f"'{where}' is damaged: it is no whole {kind} key; have it sent again, as a file") from error
    if not fields or fields[0] != kind.encode():
        raise DataError(f"'{where}' says '{kind}' and holds another kind of key; have it sent again, as a file")
    _check_strength(kind, fields, where)
    return PublicKey(kind, blob)


def _fields(blob: bytes) -> Iterator[bytes]:
    """Yield the fields of a key, each after its length; ValueError if they do not fill it exactly."""
    place = 0
    while place < len(blob):
        size = int.from_bytes(blob[place : place + 4], "big")
        field = blob[place + 4 : place + 4 + size]
        if len(field) != size or place + 4 > len(blob):
            raise ValueError("cut off")
        yield field
        place += 4 + size


def _check_strength(kind: str, fields: list[bytes], where: str) -> None:
    sizes = {"ssh-ed25519": 32, "sk-ssh-ed25519@openssh.com": 32}
    wanted = 3 if kind == "ssh-rsa" or "ecdsa" in kind else 2
    if len(fields) != wanted + kind.startswith("sk-") or (kind in sizes and len(fields[1]) != sizes[kind]):
        raise DataError(f"'{where}' is damaged: it is no whole {kind} key; have it sent again, as a file")
    bits = int.from_bytes(fields[2], "big").bit_length() if kind == "ssh-rsa" else RSA_BITS
    if bits < RSA_BITS:
        raise DataError(f"'{where}' is an RSA key of {bits} bits; wanted {RSA_BITS} or more: {ADVICE}")


def is_fingerprint(text: str) -> bool:
    """Say whether `text` looks like `SHA256:...`."""
    return bool(re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", text))
