"""A key pair for one server: the private part stays here, the public part goes to the server's administrator."""

import getpass
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import ConfigError
from biom3d.files import output_error
from biom3d.remote.auth import PASSPHRASE
from biom3d.remote.hostkeys import Person
from biom3d.remote.profile import NAME

TRIES = 3
COMMENT = "biom3d"


@dataclass(frozen=True)
class KeyPair:
    """A key pair as its files hold it; the private part is encrypted if there is a passphrase."""

    private: bytes
    public: str


def key_path(name: str) -> Path:
    """Return where the private key for profile `name` lies."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for a profile; wanted letters, digits, '_', '.' and '-'")
    return Path("~/.ssh").expanduser() / f"id_ed25519_{name}"


def make_pair(passphrase: str, comment: str) -> KeyPair:
    """Return a new Ed25519 key pair in OpenSSH's own format."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise ConfigError(
            "making a key needs cryptography; install it: in the checkout, pip install '.[remote]'"
        ) from error
    key = Ed25519PrivateKey.generate()
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, lock)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private, f"{public.decode()} {comment}\n")


def ask_passphrase(person: Person | None, is_open: bool) -> str:
    """Return the new key's passphrase, asked for twice; `is_open`: the user wants none.

    Raises:
        ConfigError: nobody can be asked, or the two differ again and again.
    """
    if is_open:
        return ""
    known = os.environ.get(PASSPHRASE)
    if known:
        return known
    if person is None:
        raise ConfigError(
            f"nobody sits here to be asked for a passphrase; run it on a terminal, set {PASSPHRASE}, or --no-passphrase"
        )
    for _ in range(TRIES):
        first = person.secret("Passphrase of the new key (empty: none): ")
        if person.secret("The same again: ") == first:
            return first
    raise ConfigError("the two passphrases differed; no key was made, run it again")


def check_free(path: Path) -> Path:
    """Return where the public part goes; ConfigError if one of the two is there already."""
    public = path.with_name(f"{path.name}.pub")
    for there in (path, public):
        if os.path.lexists(there):
            raise ConfigError(f"'{there}' is there already, and a key is never overwritten; use it, or give --file")
    return public


def write_pair(pair: KeyPair, path: Path) -> Path:
    """Write both parts, the private one for its owner only; return the path of the public part.

    Raises:
        ConfigError: there is a file of that name; keys are never overwritten.
        OutputError: they cannot be written; none is left then.
    """
    public = check_free(path)
    made = []
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place, content, mode in ((path, pair.private, 0o600), (public, pair.public.encode(), 0o644)):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            made.append(place)
            with open(descriptor, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)  # whatever the umask
    except OSError as error:
        for place in made:
            with suppress(OSError):
                place.unlink()
        raise output_error(path, error) from error
    return public


def comment_of(name: str) -> str:
    """Return what the public part says of itself: no address of this machine, which would tell more than is needed."""
    return f"{COMMENT}-{getpass.getuser()}-{name}"


def advice(name: str, public: Path) -> str:
    """Return what to do with the public part."""
    user = "".join(sign for sign in getpass.getuser().lower() if sign.isalnum()) or "anna"
    return (
        f"Send the file '{public}' (or the line above) to the server's administrator, who runs:\n"
        f"  biom3d server authorize {public.name} --name {user}\n"
        f"The private key, '{public.with_suffix('')}', never leaves this computer: nobody will ever ask for it."
    )
