"""Getting in: keys, the agent, a password; what the server asks for, in this order, at one station of the way."""

import getpass
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from biom3d.errors import HostError
from biom3d.remote.hostkeys import Person
from biom3d.remote.ssh_config import Station

if TYPE_CHECKING:
    import paramiko

PASSWORD = "BIOM3D_SSH_PASSWORD"  # noqa: S105 - the name of a variable
PASSPHRASE = "BIOM3D_SSH_PASSPHRASE"  # noqa: S105
KEYRING = "biom3d"  # the service under which a keyring keeps USER@HOST:PORT
QUESTIONS = 3
MANY_KEYS = 3  # refused before the server ended the attempt; OpenSSH allows six tries, some servers fewer


class Terminal:
    """The person who sits at this terminal."""

    def confirm(self, question: str) -> bool:
        """Ask until the answer is yes or no."""
        while True:
            print(f"{question} [yes/no] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline().strip().lower()
            if answer in ("yes", "no", ""):
                return answer == "yes"

    def secret(self, question: str) -> str:
        """Ask for a password; it is not shown."""
        return getpass.getpass(question)


def find_person() -> Person | None:
    """Return who can be asked, None where nobody sits at a terminal."""
    return Terminal() if sys.stdin and sys.stdin.isatty() and sys.stderr.isatty() else None


class Wallet:
    """The passwords of one chain of hosts, kept in memory only, so that a connection can be made again."""

    def __init__(self, route: tuple[Station, ...], person: Person | None) -> None:
        self._names = {
            station: PASSWORD if station == route[-1] else f"{PASSWORD}_{place}"
            for place, station in reversed(list(enumerate(route, start=1)))
        }
        self._person = person
        self._kept: dict[str, str] = {}

    def passwords(self, station: Station) -> Iterator[str]:
        """Yield the passwords worth a try; the last one that was taken is the one to `keep`."""
        account = _account(station)
        known = self._kept.get(account) or os.environ.get(self._names[station]) or _from_keyring(account)
        if known:
            yield known
        for _ in range(QUESTIONS if self._person else 0):
            yield self._ask(f"Password of {account}: ")

    def passphrase(self, path: Path) -> str:
        """Return the passphrase of a key file, empty if nobody knows it."""
        known = self._kept.get(str(path)) or os.environ.get(PASSPHRASE)
        if not known and self._person:
            known = self._ask(f"Passphrase of {path}: ")
        return known or ""

    def answer(self, question: str) -> str:
        """Return the person's answer to the server's own question, such as a one-time code."""
        return self._ask(question) if self._person else ""

    def keep(self, name: Station | Path, secret: str) -> None:
        """Keep what was right for the next connection."""
        self._kept[_account(name) if isinstance(name, Station) else str(name)] = secret

    def source(self, station: Station) -> str:
        """Return the variable that a password may come from."""
        return self._names[station]

    def _ask(self, question: str) -> str:
        assert self._person is not None
        return self._person.secret(question)


def authenticate(transport: "paramiko.Transport", station: Station, wallet: Wallet) -> None:
    """Log in at `station`; HostError says what was tried. It has a cause where it may have been a line that was cut."""
    import paramiko

    with suppress(paramiko.BadAuthenticationType):  # which is how a server says what it wants
        transport.auth_none(station.user)
        return
    tried: list[str] = []
    cut: Exception | None = None
    try:
        allowed = _auth_by_keys(transport, station, wallet, tried)
        if transport.is_authenticated():
            return
        if not {"password", "keyboard-interactive"}.isdisjoint(allowed):
            _auth_by_password(transport, station, wallet, allowed, tried)
    except (paramiko.SSHException, EOFError) as error:
        keys = sum(word.startswith("key ") for word in tried)
        many = (
            f"after {keys} keys, which may be too many for it (MaxAuthTries): name the right one with --key-file, in"
            " the profile as host-key-file, or set IdentitiesOnly in ~/.ssh/config"
        )
        tried.append(f"the server ended the attempt {many if keys >= MANY_KEYS else f'({error})'}")
        cut = error if len(tried) <= MANY_KEYS and "password" not in tried else None
    if not transport.is_authenticated():
        raise _refused(station, wallet, tried) from cut


def _auth_by_keys(transport: "paramiko.Transport", station: Station, wallet: Wallet, tried: list[str]) -> set[str]:
    """Try the keys; return what else the server allows."""
    import paramiko

    allowed = {"password", "keyboard-interactive"}
    seen = set()
    for name, key in _keys(station, wallet, tried):
        if key.asbytes() in seen:
            continue
        seen.add(key.asbytes())
        try:
            more = transport.auth_publickey(station.user, key)
            return set(more)  # empty: we are in; else the server wants a second proof
        except paramiko.BadAuthenticationType as error:
            return set(error.allowed_types)
        except paramiko.AuthenticationException:
            tried.append(name)
            if not transport.is_active():
                raise
    return allowed


def _keys(station: Station, wallet: Wallet, tried: list[str]) -> Iterator[tuple[str, "paramiko.PKey"]]:
    """Yield keys with their names: plain files, then the agent's, then files with a passphrase to ask for."""
    locked = []
    for path in station.key_files:
        key = _load_key(path, None, tried)
        if key is None:
            locked.append(path)
        elif key:
            yield f"key {path}", key
    with _agent_keys(station) as keys:
        for key in keys:
            yield f"key '{getattr(key, 'comment', '')}' of the agent", key
    for path in locked:
        phrase = wallet.passphrase(path)
        key = _load_key(path, phrase, tried) if phrase else None
        if key:
            wallet.keep(path, phrase)
            yield f"key {path}", key
        else:
            need = "that passphrase is wrong" if phrase else f"needs its passphrase: ssh-add {path}, or {PASSPHRASE}"
            tried.append(f"key {path} ({need})")


def _load_key(path: Path, phrase: str | None, tried: list[str]) -> "paramiko.PKey | Literal[False] | None":
    """Return the key; None if it has a passphrase and this is not it, False if it cannot be used."""
    import paramiko

    try:
        return paramiko.PKey.from_path(path, phrase.encode() if phrase else None)  # type: ignore[arg-type]
    except (TypeError, paramiko.PasswordRequiredException):  # what the library says without a passphrase
        return None
    except Exception as error:  # the libraries beneath raise many kinds for a file that is no key
        if phrase:
            return None
        tried.append(f"key {path} (cannot be read: {error})")
        return False


@contextmanager
def _agent_keys(station: Station) -> Iterator[tuple["paramiko.PKey", ...]]:
    from paramiko.agent import AgentSSH

    path = os.environ.get("SSH_AUTH_SOCK", "") if station.agent is None else station.agent
    if not path:
        yield ()
        return
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as link:
        agent = AgentSSH()
        try:
            link.settimeout(10)
            link.connect(path)
            agent._connect(link)  # type: ignore[attr-defined]  # the public class knows SSH_AUTH_SOCK only, not IdentityAgent
        except Exception:  # no agent there, or it does not speak as it should: go on without
            yield ()
            return
        link.settimeout(None)  # a key that asks its owner to touch it takes its time
        yield agent.get_keys()


def _auth_by_password(
    transport: "paramiko.Transport", station: Station, wallet: Wallet, allowed: set[str], tried: list[str]
) -> None:
    import paramiko

    for password in wallet.passwords(station):
        for method in ("password", "keyboard-interactive"):
            if method not in allowed:
                continue
            try:
                if method == "password":
                    transport.auth_password(station.user, password, fallback=False)
                else:
                    transport.auth_interactive(station.user, _answers(password, wallet))
            except paramiko.BadAuthenticationType as error:
                allowed = set(error.allowed_types)
                continue
            except paramiko.AuthenticationException:
                tried.append("password")
            if transport.is_authenticated():
                wallet.keep(station, password)
                return
            break  # this password is wrong: no second try by another method


def _answers(password: str, wallet: Wallet):  # type: ignore[no-untyped-def]  # paramiko's own signature
    """Return what answers a server's questions: the password to the first hidden one, the person to others."""
    unused = [password]

    def answer(title: str, instructions: str, fields: list[tuple[str, bool]]) -> list[str]:
        return [unused.pop() if unused and not shown else wallet.answer(text) for text, shown in fields]

    return answer


def _refused(station: Station, wallet: Wallet, tried: list[str]) -> HostError:
    what = ", ".join(dict.fromkeys(tried)) or "no key and no password was there to try"
    return HostError(
        f"{station.name}: the server did not let '{station.user}' in; tried: {what}. Put your public key there"
        f" (ssh-copy-id -p {station.port} {station.user}@{station.host}; for a server with a card, send it to the"
        " administrator), check the user name, or give a password on a terminal or in the variable"
        f" {wallet.source(station)}"
    )


def _account(station: Station) -> str:
    return f"{station.user}@{station.host}" + (f":{station.port}" if station.port != 22 else "")


def _from_keyring(account: str) -> str | None:
    try:
        import keyring
    except ImportError:
        return None
    with suppress(Exception):  # a keyring without a desktop raises what its backend likes
        return keyring.get_password(KEYRING, account)
    return None
