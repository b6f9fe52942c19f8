"""Host keys: who a server is, after known_hosts; unknown ones are asked about once, changed ones refused."""

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from biom3d.errors import HostError
from biom3d.remote.ssh_config import Station


class Person(Protocol):
    """Somebody at a terminal."""

    def confirm(self, question: str) -> bool:
        """Ask a question that is answered by yes or no."""
        ...

    def secret(self, question: str) -> str:
        """Ask for a password."""
        ...


@dataclass(frozen=True)
class Known:
    """One line of known_hosts: what kind of key, the key, where it stands."""

    kind: str
    key: bytes
    where: str
    is_revoked: bool = False


def read_known(paths: Iterable[Path], name: str) -> tuple[Known, ...]:
    """Return the keys that known_hosts files keep for `name` (`host` or `[host]:port`), hashed entries as well."""
    found = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError:
            continue  # there is none, or it is not for us: then nothing in it is known
        for number, line in enumerate(lines, start=1):
            known = _read_line(line, name, f"{path}:{number}")
            if known:
                found.append(known)
    return tuple(found)


def check_key(station: Station, kind: str, key: bytes, person: Person | None) -> None:
    """Accept the server's key, or raise HostError; an unknown one that the person accepts is written down."""
    known = read_known(station.known_hosts, station.key_name)
    shown = f"{kind.removeprefix('ssh-').upper()} {fingerprint(key)}"
    same = [entry for entry in known if entry.key == key]
    if any(entry.is_revoked for entry in same):
        raise HostError(f"{station.name}: its host key ({shown}) is marked as revoked in {same[0].where}; refused")
    if same:
        return
    others = [entry for entry in known if not entry.is_revoked]
    if others:
        raise HostError(
            f"{station.name}: the host key has CHANGED. It is now {shown}, and {others[0].where} says"
            f" {fingerprint(others[0].key)}. Either the server was set up anew, or somebody stands between you and it."
            f" Nothing was sent. If its administrator confirms the new key, run: ssh-keygen -R '{station.key_name}'"
            f" -f '{station.known_hosts[0]}'   and try again"
        )
    if person is None:
        raise HostError(
            f"{station.name}: the host key of {station.key_name} is not known yet ({shown}), and nobody can be asked"
            f" here. Compare it with what its administrator says, then accept it once on a terminal:"
            f" ssh -p {station.port} {station.user}@{station.host}"
        )
    question = (
        f"The host '{station.key_name}' is not known yet. Its key is {shown}.\n"
        "Compare it with what its administrator says. Accept it from now on?"
    )
    if not person.confirm(question):
        raise HostError(f"{station.name}: its host key was not accepted; nothing was sent")
    remember(station, kind, key)


def remember(station: Station, kind: str, key: bytes) -> None:
    """Append a key to the first known_hosts file: one write, so that two programs do not mix their lines."""
    path = station.known_hosts[0]
    name = _hashed(station.key_name) if station.hash_known_hosts else station.key_name
    line = f"{name} {kind} {base64.b64encode(key).decode()}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            is_open = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (("\n" if is_open else "") + line).encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(
            f"{station.name}: cannot write its key to '{path}': {error.strerror}; make it writable"
        ) from error


def preferred_kinds(known: Sequence[Known], offered: Sequence[str]) -> tuple[str, ...]:
    """Put the kinds of key that we know before the others, so that the server shows one that we can compare."""
    kinds = {entry.kind for entry in known if not entry.is_revoked}
    if "ssh-rsa" in kinds:  # one kind of key, several ways to sign with it
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(offered, key=lambda kind: kind not in kinds))


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as ssh shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _read_line(line: str, name: str, where: str) -> Known | None:
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
        return None  # certificates of hosts are not read: their hosts count as unknown
    if not _names(fields[0], name):
        return None
    try:
        return Known(fields[1], base64.b64decode(fields[2], validate=True), where, marker == "@revoked")
    except (ValueError, binascii.Error):
        return None


def _names(patterns: str, name: str) -> bool:
    """Say whether the first field of a line means `name`: a hash, or patterns of which none with ! may match."""
    if patterns.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part) for part in patterns[3:].split("|"))
        except (ValueError, binascii.Error):
            return False
        return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)
    is_named = False
    for pattern in patterns.lower().split(","):
        escaped = pattern.lstrip("!").replace("[", "[[]")  # brackets are plain there
        if fnmatch.fnmatchcase(name.lower(), escaped):
            if pattern.startswith("!"):
                return False
            is_named = True
    return is_named


def _hashed(name: str) -> str:
    salt = secrets.token_bytes(20)
    parts = (salt, hmac.digest(salt, name.encode(), "sha1"))
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in parts)
