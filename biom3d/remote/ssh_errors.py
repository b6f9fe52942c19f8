"""What paramiko's and the network's errors mean, in one table."""

import errno
import socket

from biom3d.errors import HostError
from biom3d.remote.ssh_config import Station

_SILENT = "no answer from {host}:{port}; is the host on, the VPN up, the firewall open for this port?"
_UNREACHABLE = "the network says that {host} cannot be reached; check the network, the VPN, or a jump host (ProxyJump)"
_CUT = "the connection to {host}:{port} was cut; the same command goes on where it stopped"
CUT_IN_LOGIN = ("transport shut down", "No existing session")  # in paramiko's words
# errno -> what happened and what to do
NETWORK = {
    errno.ECONNREFUSED: "nothing listens at {host}:{port}; is sshd running there, and is the port right?",
    errno.ETIMEDOUT: _SILENT,
    errno.EHOSTUNREACH: _UNREACHABLE,
    errno.ENETUNREACH: _UNREACHABLE,
    errno.ENETDOWN: _UNREACHABLE,
    errno.EADDRNOTAVAIL: _UNREACHABLE,
    errno.ECONNRESET: _CUT,
    errno.EPIPE: _CUT,
}
# words in a message of paramiko's -> the same
PROTOCOL = (
    ("protocol banner", "what answers at {host}:{port} is no SSH server, or too busy; is the port right?"),
    ("Incompatible", "it offers no method that we know ({text}); its OpenSSH is too old, ask for an update"),
    ("no acceptable", "it offers no method that we know ({text}); its OpenSSH is too old, ask for an update"),
    ("Signature verification", "its host key does not sign as it should; refused"),
    ("session not active", _CUT),
    *((words, _CUT) for words in CUT_IN_LOGIN),
    ("Unable to open channel", _CUT),
    ("Timeout opening channel", _SILENT),
)


def explain(station: Station, error: BaseException) -> HostError:
    """Translate an error of reaching `station` into what happened and what to do."""
    text = str(error) or type(error).__name__
    values = {"host": station.host, "port": station.port, "text": text}
    return HostError(f"{station.name}: " + _find(error, text).format(**values))


def _find(error: BaseException, text: str) -> str:
    import paramiko

    if isinstance(error, socket.gaierror):
        return "the name {host} is not known; check the spelling, or HostName in ~/.ssh/config"
    if isinstance(error, paramiko.ChannelException):
        return (
            "the jump host before it cannot or may not reach {host}:{port} ({text}); check name and port, and"
            " AllowTcpForwarding there"
        )
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, OSError) and error.errno in NETWORK:
        return NETWORK[error.errno]
    for words, meaning in PROTOCOL:
        if words.lower() in text.lower():
            return meaning
    return _CUT if isinstance(error, EOFError) else "the connection failed: {text}"
