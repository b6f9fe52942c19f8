"""sshd in a container of its own, without root: its configuration, host keys and people, then sshd itself.

/work     the working folder, mounted
/state    a volume: host keys and authorized_keys, so that a new container is the same server
/keys     mounted read-only: public keys of people, one file each, taken over at every start
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import ConfigError, DataError, HostError
from biom3d.events import Reporter
from biom3d.files import write_text
from biom3d.server.gatekeeper import gate_words
from biom3d.server.keys import PublicKey, read_public_key
from biom3d.server.people import Grant, authorize, check_name, edit, forced_command, read_grants
from biom3d.server.survey import GATE_FILE, SERVER_FILE

PORT = 2222  # ports below 1024 are root's
ACCOUNT = "biom3d"
SSHD = "/usr/sbin/sshd"
# Where the image's /var/lib/extrausers leads, read by the name service; nobody else is in the container yet.
ACCOUNTS = Path("/tmp/.extrausers")  # noqa: S108
WORKDIR, STATE, KEYS = Path("/work"), Path("/state"), Path("/keys")
HOST_KEYS = (("ed25519", ()), ("rsa", ("-b", "4096")))
MODULI, MODULUS_BITS = Path("/etc/ssh/moduli"), 3071
# What ssh-audit's policy 'Hardened Debian 12 (version 3)' asks for, and no more.
ALGORITHMS = {
    "KexAlgorithms": "sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,"
    "curve25519-sha256@libssh.org,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,"
    "diffie-hellman-group-exchange-sha256",
    "Ciphers": "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-gcm@openssh.com,"
    "aes128-ctr",
    "MACs": "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,umac-128-etm@openssh.com",
    "HostKeyAlgorithms": "ssh-ed25519,rsa-sha2-512,rsa-sha2-256",
    "PubkeyAcceptedAlgorithms": "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
    "ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256",
    "RequiredRSASize": "3072",
}
# For a host's own sshd as well: docs/server.md.
LIMITS = {
    "AuthenticationMethods": "publickey",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "DisableForwarding": "yes",  # ports, agent, X11, sockets: the client needs none of them
    "PermitTTY": "no",
    "ExposeAuthInfo": "yes",  # so that the gate's log can say which key it was
    "PermitUserRC": "no",
    "PermitUserEnvironment": "no",
    "MaxAuthTries": "6",
    "LoginGraceTime": "30",
    "ClientAliveInterval": "30",  # a laptop that was closed gives back what it held
    "ClientAliveCountMax": "4",
    "MaxStartups": "30:50:100",  # the client makes up to eight connections at once
    "LogLevel": "VERBOSE",  # names the key of each login
    "PrintMotd": "no",
    "UseDNS": "no",
    "Compression": "no",
    "VersionAddendum": "none",
}


@dataclass(frozen=True)
class Places:
    """Where the container's folders are; other ones in tests."""

    workdir: Path = WORKDIR
    state: Path = STATE
    keys: Path = KEYS
    accounts: Path = ACCOUNTS

    @property
    def authorized(self) -> Path:
        """Who may log in; where sshd looks for it by itself, as /state is the account's home."""
        return self.state / ".ssh" / "authorized_keys"

    @property
    def config(self) -> Path:
        """The configuration of sshd, written anew at every start."""
        return self.state / "sshd_config"

    def host_key(self, kind: str) -> Path:
        """The private part of a host key."""
        return self.state / "hostkeys" / f"ssh_host_{kind}_key"


def render_config(places: Places, port: int, environment: Mapping[str, str]) -> str:
    """Return the configuration of sshd: keys only, no forwarding, no terminal, today's algorithms."""
    variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
    lines = [
        "# Written by 'biom3d server run' at every start.",
        f"Port {port}",
        *(f"HostKey {places.host_key(kind)}" for kind, _ in HOST_KEYS),
        f"AuthorizedKeysFile {places.authorized}",
        f"ModuliFile {places.state / 'moduli'}",
        "PidFile none",
        "UsePAM no",  # it needs root
        f"AllowUsers {ACCOUNT}",
        *(f"{key} {value}" for key, value in {**LIMITS, **ALGORITHMS}.items()),
        f"SetEnv {variables}",
        "Subsystem sftp internal-sftp",
    ]
    return "\n".join(lines) + "\n"


def run(places: Places, port: int, is_gated: bool, report: Reporter) -> None:
    """Prepare all, then become sshd; HostError or ConfigError if that cannot be."""
    if os.getuid() == 0:
        raise ConfigError(
            "this container runs as root, which it needs not and must not; leave out --user 0 (Podman without root:"
            " --userns=keep-id:uid=10001,gid=10001)"
        )
    if not Path(SSHD).is_file():
        raise HostError("there is no sshd here; 'server run' belongs to the image 'server' (see docs/server.md)")
    _check_writable(places)
    _name_account(places)
    _make_host_keys(places)
    note(places.state / SERVER_FILE, {"workdir": str(places.workdir), "environment": sys.prefix})
    # Without `read_only` the gate would refuse the environment: it lies outside of the working folder.
    note(places.state / GATE_FILE, {"venv": True, "gpus": True, "read_only": [sys.prefix]})
    take_keys(places, _gate_command(places) if is_gated else None, report)
    for folder in ("data", "logs"):
        (places.workdir / folder).mkdir(exist_ok=True)
    write_text(places.config, render_config(places, port, session_environment(os.environ)))
    write_text(places.state / "moduli", strong_moduli(MODULI))
    done = subprocess.run([SSHD, "-t", "-f", str(places.config)], capture_output=True, text=True)
    if done.returncode:
        raise HostError(f"sshd refuses its configuration: {' '.join(done.stderr.split())[:500]}")
    report.info(f"host key {host_key(places).fingerprint}; sshd listens at port {port}")
    os.execv(SSHD, [SSHD, "-D", "-e", "-f", str(places.config)])  # noqa: S606 - so signals reach sshd itself


def note(path: Path, content: Mapping[str, object]) -> None:
    """Write what `server authorize` needs to know, unless it is there."""
    if not path.exists():
        write_text(path, json.dumps(content, indent=1))


def _check_writable(places: Places) -> None:
    for folder, what in ((places.workdir, "the working folder"), (places.state, "host keys and people")):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise HostError(
                f"'{folder}' ({what}) cannot be written by uid {os.getuid()}; mount a folder that belongs to it"
                f" (sudo chown {os.getuid()}:{os.getgid()} FOLDER), or run the container as the folder's owner:"
                " --user UID:GID"
            )


def _name_account(places: Places) -> None:
    """Give the uid that we run as a name, a home and a shell: sshd lets in nobody without."""
    places.accounts.mkdir(mode=0o700, parents=True, exist_ok=True)
    uid, gid = os.getuid(), os.getgid()
    write_text(places.accounts / "passwd", f"{ACCOUNT}:x:{uid}:{gid}::{places.state}:/bin/sh\n")
    write_text(places.accounts / "group", f"{ACCOUNT}:x:{gid}:\n")


def _make_host_keys(places: Places) -> None:
    places.host_key("x").parent.mkdir(mode=0o700, exist_ok=True)
    for kind, more in HOST_KEYS:
        path = places.host_key(kind)
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", kind, *more, "-N", "", "-C", "biom3d-server", "-f", str(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise HostError(f"cannot make host key '{path}': {' '.join(done.stderr.split())}")


def host_key(places: Places) -> PublicKey:
    """Return the public part of the host key that clients prefer."""
    return read_public_key(places.host_key("ed25519").with_suffix(".pub"))


def _gate_command(places: Places) -> Callable[[str], str]:
    """Return what makes the forced command of a person."""
    gate, config = gate_words(None, places.state, places.workdir), places.state / GATE_FILE
    return lambda name: forced_command(gate, name, places.workdir, config)


def take_keys(places: Places, command: Callable[[str], str] | None, report: Reporter) -> None:
    """Let in who has a file in /keys, under the file's name; one that cannot be used is told and passed over.

    `command`: what makes a person's forced command, None for none.
    """
    for path in sorted(places.keys.glob("*.pub")):
        try:
            name = check_name(path.stem.lower())
            grant = Grant(name, read_public_key(path), command=command(name) if command else "")
            known = [known for known in _known(places) if known.key == grant.key and known.name == name]
            if known and (known[0].expires or known[0].sources or known[0].command == grant.command):
                continue  # as it was, or with limits that 'server authorize' gave it
            edit(places.authorized, lambda text, grant=grant: authorize(text, grant))  # type: ignore[misc]
            report.info(f"{grant.name} may log in, with {grant.key.fingerprint}")
        except (ConfigError, DataError) as error:
            report.warn(f"{path.name} is passed over: {error}")
    if not _known(places):
        report.warn("nobody may log in yet; put public keys into /keys, or: docker exec ... biom3d server authorize")


def _known(places: Places) -> Sequence[Grant]:
    return list(read_grants(places.authorized.read_bytes())) if places.authorized.exists() else []


def session_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of the image's environment people's commands get; sshd would give them next to nothing."""
    wanted = ("PATH", "LANG", "MPLCONFIGDIR", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    devices = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
    return {name: environment[name] for name in (*wanted, *devices) if environment.get(name)}


def strong_moduli(path: Path) -> str:
    """Return the moduli of sshd that have 3072 bits or more."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")] if path.is_file() else []
    return "".join(f"{line}\n" for line in lines if int(line.split()[4]) >= MODULUS_BITS)
