"""Where an SSH host is and how to get in: what the user says, completed by ~/.ssh/config."""

import getpass
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from biom3d.errors import ConfigError

PORT = 22
MAX_HOPS = 8  # a chain longer than this is a configuration that points at itself
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
SSH_TIMEOUT_S = 10.0  # for `ssh -G`, which reads files only


@dataclass(frozen=True)
class Hop:
    """A jump host as the user names it; what is None comes from ~/.ssh/config.

    Its password comes from the variable BIOM3D_SSH_PASSWORD_<number of the hop, from 1>, a keyring, or a question.
    """

    host: str
    port: int | None = None
    user: str | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class SSHSettings:
    """A host to be reached by SSH, as the user names it; what is None comes from ~/.ssh/config.

    `jump`: the hosts on the way, from here to there; () means directly, whatever ~/.ssh/config says. `workdir`: a
    folder on the host, absolute or below the home folder. `bandwidth_mb_s`: limit in MB/s, each way. `parallel`:
    connections that carry big transfers. `engine_socket`: of the container engine on the host. `check_store`: hash
    again on the host what it has already, before it is used. `config`: read instead of ~/.ssh/config.
    """

    host: str
    port: int | None = None
    user: str | None = None
    key_file: Path | None = None
    jump: tuple[Hop, ...] | None = None
    workdir: str = "biom3d"
    bandwidth_mb_s: float | None = None
    parallel: int = 4
    engine_socket: str | None = None
    check_store: bool = False
    config: Path | None = None
    connect_timeout_s: float = 15.0
    reconnect_s: float = 120.0
    keepalive_s: float = 15.0
    silence_s: float = 45.0  # a link without any answer for this long is given up


@dataclass(frozen=True)
class Station:
    """One host on the way, or the last one, with all that is needed to get in."""

    name: str  # as the user wrote it, for messages
    host: str
    port: int
    user: str
    key_files: tuple[Path, ...]
    known_hosts: tuple[Path, ...]  # the first is written to
    key_name: str  # under which known_hosts keeps the host key
    agent: str | None  # socket of the agent; "" for none, None for SSH_AUTH_SOCK
    hash_known_hosts: bool = False
    proxy_command: str | None = None


def parse_hop(text: str) -> Hop:
    """Read `[ssh://][user@]host[:port]`, where host may be [an IPv6 address]."""
    rest = text.strip().removeprefix("ssh://").rstrip("/")
    user, at, address = rest.rpartition("@")
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]\s]+)(?::(\d+))?", address)
    if not found or (at and not user) or address.startswith("-"):
        raise ConfigError(f"jump host '{text}' is not understood; wanted user@host:port, user and port if needed")
    port = int(found[2]) if found[2] else None
    return Hop(found[1].strip("[]"), port, user or None)


def parse_jump(text: str) -> tuple[Hop, ...]:
    """Read hops separated by commas, from here to there; `none` means directly."""
    return () if text.strip().lower() in ("", "none") else tuple(parse_hop(part) for part in text.split(","))


def plan_route(settings: SSHSettings) -> tuple[Station, ...]:
    """Return the stations from here to the host, the host last.

    Raises:
        ConfigError: a name, port or configuration file cannot be used.
    """
    last = Hop(settings.host, settings.port, settings.user, settings.key_file)
    options = _options(last, settings.config)
    jump = settings.jump
    if jump is None:
        jump = parse_jump(_first(options, "proxyjump", "none"))
    hops = _complete_chain(jump, settings.config)
    # The proxy command of the host itself would lead past the jump hosts.
    route = (*(_station(hop, _options(hop, settings.config)) for hop in hops), _station(last, options))
    return tuple(replace(station, proxy_command=None) if place else station for place, station in enumerate(route))


def _complete_chain(jump: Sequence[Hop], config: Path | None) -> tuple[Hop, ...]:
    """Put before the first hop what ~/.ssh/config says is on the way to it, as ssh does."""
    chain = tuple(jump)
    while chain:
        before = parse_jump(_first(_options(chain[0], config), "proxyjump", "none"))
        if not before:
            break
        chain = (*before, *chain)
        if len(chain) > MAX_HOPS:
            names = ", ".join(hop.host for hop in chain)
            raise ConfigError(f"more than {MAX_HOPS} jump hosts ({names}); does ProxyJump of ~/.ssh/config loop?")
    return chain


def _station(hop: Hop, options: Mapping[str, Sequence[str]]) -> Station:
    port = hop.port or int(_first(options, "port", str(PORT)))
    if not 0 < port < 65536:
        raise ConfigError(f"host '{hop.host}': port is {port}; wanted 1 to 65535")
    host = _first(options, "hostname", hop.host)
    alias = _first(options, "hostkeyalias", "")
    agent = _first(options, "identityagent", "SSH_AUTH_SOCK")
    known = [name for line in options.get("userknownhostsfile", ()) for name in _words(line)]
    known += [name for line in options.get("globalknownhostsfile", ()) for name in _words(line)]
    proxy = _first(options, "proxycommand", "none")
    user = hop.user or _first(options, "user", "") or getpass.getuser()
    return Station(
        name=hop.host,
        host=host,
        port=port,
        user=user,
        key_files=_key_files(hop, options),
        known_hosts=tuple(Path(name).expanduser() for name in known if name != "none")
        or (Path("~/.ssh/known_hosts").expanduser(),),
        key_name=alias or (host if port == PORT else f"[{host}]:{port}"),
        agent=None if agent == "SSH_AUTH_SOCK" else "" if agent == "none" else str(Path(agent).expanduser()),
        hash_known_hosts=_first(options, "hashknownhosts", "no") == "yes",
        proxy_command=None if proxy == "none" else _expand(proxy, host, port, user),
    )


def _key_files(hop: Hop, options: Mapping[str, Sequence[str]]) -> tuple[Path, ...]:
    """Return the private keys to try: the one asked for, else those of the configuration that exist."""
    if hop.key_file:
        path = hop.key_file.expanduser()
        if not path.is_file():
            raise ConfigError(f"host '{hop.host}': no key file '{path}'; give the private key's path")
        return (path,)
    named = [Path(text.strip('"')).expanduser() for text in options.get("identityfile", ())]
    named = named or [Path("~/.ssh").expanduser() / name for name in DEFAULT_KEYS]
    return tuple(path for path in named if path.is_file())


def _options(hop: Hop, config: Path | None) -> dict[str, list[str]]:
    """Return what ~/.ssh/config says of a host, in ssh's own reading: with Include, Match and its defaults."""
    if hop.host.startswith("-") or not hop.host.strip():
        raise ConfigError(f"'{hop.host}' is no name of a host; give a name, an address or an alias of ~/.ssh/config")
    line = ["ssh", "-G", *(("-F", str(config)) if config else ())]
    line += [*(("-l", hop.user) if hop.user else ()), *(("-p", str(hop.port)) if hop.port else ()), "--", hop.host]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=SSH_TIMEOUT_S, errors="surrogateescape")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return _options_without_ssh(hop, config)
    if done.returncode:
        raise ConfigError(f"host '{hop.host}': ssh cannot read its configuration: {done.stderr.strip()}")
    options: dict[str, list[str]] = {}
    for key, _, value in (text.partition(" ") for text in done.stdout.splitlines()):
        options.setdefault(key.lower(), []).append(value)
    return options


def _options_without_ssh(hop: Hop, config: Path | None) -> dict[str, list[str]]:
    """The same where no OpenSSH client is installed; paramiko knows neither Include nor all of Match."""
    import paramiko

    path = config or Path("~/.ssh/config").expanduser()
    try:
        found = paramiko.SSHConfig.from_path(str(path)).lookup(hop.host) if path.is_file() else {}
    except paramiko.ConfigParseError as error:
        raise ConfigError(f"'{path}' cannot be read: {error}") from error
    return {key: value if isinstance(value, list) else [str(value)] for key, value in found.items()}


def _first(options: Mapping[str, Sequence[str]], key: str, default: str) -> str:
    values = options.get(key)
    return values[0] if values else default


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _expand(command: str, host: str, port: int, user: str) -> str:
    """Fill in the tokens of a ProxyCommand."""
    values = {"%h": host, "%p": str(port), "%r": user, "%n": host, "%%": "%"}
    return re.sub("%[hprn%]", lambda found: values[found[0]], command)
