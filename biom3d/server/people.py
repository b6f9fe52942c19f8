"""Who may log in: lines of ~/.ssh/authorized_keys that are ours, each with a person's name and limits.

The file belongs to the account, not to us: lines of others stay byte for byte, and it is replaced as a whole.
"""

import fcntl
import ipaddress
import os
import pwd
import re
import shlex
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from biom3d.errors import ConfigError
from biom3d.files import output_error
from biom3d.server.keys import PublicKey, parse_public_key

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
SOURCE = re.compile(r"!?[A-Za-z0-9.*?-]+")  # a host name, perhaps with patterns, as sshd reads it
OURS = re.compile(rb"restrict(,|\s).*\sbiom3d:([a-z0-9][a-z0-9_.-]{0,31})")
OPTION = re.compile(r'([a-z-]+)="((?:[^"\\]|\\.)*)"')
SHELL = "no gate"  # what `people` says of a key without a forced command


@dataclass(frozen=True)
class Grant:
    """One key of one person: until the end of the day `expires`, from `sources` only, for `command` only."""

    name: str
    key: PublicKey
    expires: date | None = None
    sources: tuple[str, ...] = ()
    command: str = ""

    def line(self) -> str:
        """Return the line of authorized_keys."""
        # `restrict`: no terminal, no forwarding of ports, agent or X11, no ~/.ssh/rc, and what OpenSSH will add.
        options = ["restrict"]
        if self.command:
            options.append(f'command="{self.command}"')
        if self.expires:
            options.append(f'expiry-time="{self.expires:%Y%m%d}2359"')  # without the hour: the beginning of the day
        if self.sources:
            options.append(f'from="{",".join(self.sources)}"')
        return f"{','.join(options)} {self.key} biom3d:{self.name}"


def check_name(name: str) -> str:
    """Return a person's name, or raise ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' is no name for a person; wanted up to 32 of a-z, 0-9, '_', '.' and '-', as in anna"
        )
    return name


def check_expiry(day: date, today: date) -> date:
    """Return the last day of a key, or raise ConfigError."""
    if day < today:
        raise ConfigError(f"--expires {day} is over; give a day to come, as in {today.year + 1}-06-30")
    return day


def read_sources(text: str) -> tuple[str, ...]:
    """Read addresses, networks and host names with commas between; ConfigError for what sshd would stumble over."""
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        try:
            ipaddress.ip_network(part.removeprefix("!"))
        except ValueError as error:
            # A network with bits of a host in it (10.0.0.1/8) makes sshd refuse the key without a word.
            if "/" in part or ":" in part or not SOURCE.fullmatch(part):
                raise ConfigError(
                    f"--from '{part}': {error}; wanted such as 10.0.0.0/8, 192.0.2.7 or *.lab.org"
                ) from error
    if all(part.startswith("!") for part in parts):
        raise ConfigError(f"--from '{text}' only excludes, so that nobody gets in; name somebody, as in *,{text}")
    return parts


def forced_command(gate: Sequence[str], name: str, workdir: Path, config: Path | None) -> str:
    """Return the command that a key runs whatever its owner asks for, as it stands between quotes in the file."""
    words = [*gate, "--name", name, "--workdir", str(workdir), *(("--config", str(config)) if config else ())]
    line = shlex.join(words)
    if any(sign in '"\\' or not sign.isprintable() for sign in line):
        raise ConfigError(f"quotes, backslashes or line breaks cannot stand in authorized_keys: {line!r}; rename it")
    return line


def authorize(text: bytes, grant: Grant) -> bytes:
    """Return the content of authorized_keys with a grant; a line of the same person and key is replaced.

    Raises:
        ConfigError: the key is somebody else's, or has rights already that we did not give, or its folder lies in
            another person's, or that in it.
    """
    _refuse_nested(grant, read_grants(text))
    lines = _lines(text)
    for number, line in enumerate(lines):
        if bytes(f" {grant.key}", "ascii") not in b" " + line or line.lstrip().startswith(b"#"):
            continue
        owner = _owner(line)
        if owner is None:
            raise ConfigError(
                f"this key stands in line {number + 1} already, put there by somebody else with rights of its own; sshd"
                " takes the first line of a key, so remove that one first"
            )
        if owner != grant.name:
            raise ConfigError(f"this key is {owner}'s already; one key is one person's, so have a new one made")
        return b"\n".join([*lines[:number], grant.line().encode(), *lines[number + 1 :], b""])
    return b"\n".join([*lines, grant.line().encode(), b""])


def workdir_of(grant: Grant) -> Path | None:
    """Return the folder that a key opens; None where it opens more."""
    words = shlex.split(grant.command)
    return Path(words[words.index("--workdir") + 1]) if "--workdir" in words[:-1] else None


def _refuse_nested(grant: Grant, others: Iterable[Grant]) -> None:
    mine = workdir_of(grant)
    for other in others:
        theirs = workdir_of(other)
        if mine is None or theirs is None or mine == theirs or other.name == grant.name:
            continue
        if mine.is_relative_to(theirs) or theirs.is_relative_to(mine):
            inner, outer = sorted((mine, theirs), key=lambda folder: len(folder.parts), reverse=True)
            raise ConfigError(
                f"the folders of {grant.name} ('{mine}') and {other.name} ('{theirs}') lie in each other, so who works"
                f" in '{outer}' reads and changes what is in '{inner}'; give a folder beside it, such as"
                f" '{outer}-{grant.name}'"
            )


def revoke(text: bytes, name: str) -> bytes:
    """Return the content of authorized_keys without a person's keys; ConfigError if there are none."""
    lines = _lines(text)
    kept = [line for line in lines if _owner(line) != name]
    if len(kept) == len(lines):
        known = ", ".join(sorted({grant.name for grant in read_grants(text)})) or "nobody"
        raise ConfigError(f"'{name}' has no key here; known: {known}")
    return b"\n".join(kept) + (b"\n" if kept and text.endswith(b"\n") else b"")


def read_grants(text: bytes) -> Iterator[Grant]:
    """Yield what our lines say; lines of others are passed over."""
    for line in _lines(text):
        owner = _owner(line)
        if owner is not None:
            head, _, rest = line.decode(errors="replace").rpartition(f" biom3d:{owner}")[0].rpartition(" ")
            options, _, kind = head.rpartition(" ")
            given = dict(OPTION.findall(options))
            expiry, sources = given.get("expiry-time", ""), given.get("from", "")
            yield Grant(
                owner,
                parse_public_key(f"{kind} {rest}".encode(), "authorized_keys"),
                date.fromisoformat(expiry[:8]) if expiry else None,
                tuple(sources.split(",")) if sources else (),
                given.get("command", ""),
            )


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _owner(line: bytes) -> str | None:
    """Return the person of a line of ours."""
    found = OURS.fullmatch(line)
    return found[2].decode() if found else None


def account_home() -> Path:
    """Return the account's home folder as sshd knows it, whatever HOME says."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def authorized_keys() -> Path:
    """Return the file that sshd reads for this account, unless its configuration says otherwise."""
    return account_home() / ".ssh" / "authorized_keys"


def edit(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Change a file of keys, as a whole and one at a time, mode 600; return whether it was changed.

    Raises:
        OutputError: it cannot be written; what was there is untouched.
    """
    path = path.resolve()  # a link stays one
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            before = path.read_bytes() if path.exists() else b""
            after = change(before)
            if after == before and path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o600:
                return False
            _replace(path, after)
    except OSError as error:
        raise output_error(path, error) from error
    return after != before


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)  # a folder can be locked itself, and nothing is left behind
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # who was let in must not be forgotten by a power cut, nor an empty file be left
            if os.getuid() == 0 and path.exists():  # root edits the file of another account
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def find_loose_modes(path: Path) -> list[Path]:
    """Return the folders above a file of keys, up to the home folder, for which sshd (StrictModes) would ignore it."""
    home = account_home()
    above = [folder for folder in path.resolve().parents if folder == home or folder.is_relative_to(home)]
    return [folder for folder in above if folder.exists() and folder.stat().st_mode & 0o022]
