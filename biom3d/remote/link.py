"""One SSH connection to a host, through any number of jump hosts, and the channels it carries."""

import logging
import socket
import subprocess
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from biom3d.errors import HostError
from biom3d.remote.auth import Wallet, authenticate
from biom3d.remote.hostkeys import Person, check_key, preferred_kinds, read_known
from biom3d.remote.ssh_config import SSHSettings, Station
from biom3d.remote.ssh_errors import explain

if TYPE_CHECKING:
    import paramiko

SESSIONS = 8  # channels at once on one connection; sshd allows 10 (MaxSessions)
PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # before each try to open a channel where there is room for one
WINDOW = 4 * 2**20  # bytes under way to us; 2 MiB, the default, halves the rate at 30 ms
# Without OpenSSH's own order: encryption that the processor does, and that needs no second pass for integrity.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
SILENT_LOG = "biom3d.paramiko"  # paramiko prints tracebacks of lost connections; we say it in our words


class Link:
    """A connection to the last station of a route; thread-safe."""

    def __init__(
        self, route: tuple[Station, ...], transports: "list[paramiko.Transport]", settings: SSHSettings
    ) -> None:
        self.station = route[-1]
        self.heard = time.monotonic()  # when bytes last moved
        self._transports = transports
        self._settings = settings
        self._lock = threading.Lock()
        self._channels: list[weakref.ref[Any]] = []
        self._spare: paramiko.Channel | None = None  # open already: the next command starts a round trip earlier
        self._is_opening_spare = False
        self._opening = 0
        self._limit = SESSIONS
        self._has_opened = False
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name=f"watch {self.station.name}", daemon=True).start()

    @property
    def transport(self) -> "paramiko.Transport":
        """The connection to the last station."""
        return self._transports[-1]

    def is_alive(self) -> bool:
        """Say whether channels can be opened."""
        return bool(self.transport.is_active()) and not self._ended.is_set()

    def open_session(self, is_asked: bool = False) -> "paramiko.Channel | None":
        """Return a channel for a command; None if the link carries as many as the server allows.

        `is_asked`: one that the server has just agreed to, so that the link was alive a moment ago.

        Raises:
            EOFError, OSError, paramiko.SSHException: the link is lost.
        """
        spare = None if is_asked else self._take_spare()
        channel = spare or self._open_session()
        if channel is None and (spare := self._take_spare()):  # it took the last place
            spare.close()
            channel = self._open_session()
        if channel is not None:
            self._open_spare()
        return channel

    def _take_spare(self) -> "paramiko.Channel | None":
        with self._lock:
            spare, self._spare = self._spare, None
        return None if spare is None or spare.closed else spare

    def _open_spare(self) -> None:
        """Open the channel for the next command while this one is at work."""
        with self._lock:
            if self._is_opening_spare or self._spare is not None:
                return
            self._is_opening_spare = True

        def work() -> None:
            channel = None
            try:
                with suppress(Exception):  # whoever needs one tries again, and says why there is none
                    channel = self._open_session()
            finally:
                with self._lock:
                    self._spare, self._is_opening_spare = channel, False

        threading.Thread(target=work, name=f"open {self.station.name}", daemon=True).start()

    def _open_session(self) -> "paramiko.Channel | None":
        import paramiko

        with self._lock:
            if self._count_open() + self._opening >= self._limit:
                return None
            self._opening += 1
        channel = None
        try:
            for pause_s in (*PAUSES_S, None):
                try:
                    channel = self.transport.open_session(timeout=self._settings.silence_s)
                    break
                except paramiko.SSHException as error:
                    # Refused twice at the same moment, paramiko gives its reason to one of the two only.
                    if not self.transport.is_active() or "Timeout" in str(error):
                        raise
                    with self._lock:
                        others = self._count_open() + self._opening - 1
                        if others:
                            self._limit = max(1, self._count_open())  # it allows fewer than usual
                            break
                    if pause_s is None or not self._has_opened:
                        raise HostError(
                            f"{self.station.name}: the server allows no command ({error}); see its MaxSessions"
                        ) from error
                    time.sleep(pause_s)  # where it allows one, it may not know yet that the last one has ended
        finally:
            with self._lock:
                self._opening -= 1
                if channel is not None:
                    self._has_opened = True
                    self._channels.append(weakref.ref(channel))
        return channel

    def _count_open(self) -> int:
        """Return how many channels are open; hold the lock."""
        self._channels = [ref for ref in self._channels if (channel := ref()) is not None and not channel.closed]
        return len(self._channels)

    def close(self) -> None:
        """End the connection, and those that carry it."""
        self._ended.set()
        for transport in reversed(self._transports):
            with suppress(Exception):
                transport.close()

    def _watch(self) -> None:
        """Ask now and then whether the other end is there: TCP alone notices a pulled cable after many minutes."""
        while not self._ended.wait(self._settings.keepalive_s) and self.transport.is_active():
            asked = time.monotonic()
            timer = threading.Timer(self._settings.silence_s, self._give_up, (asked,))
            timer.daemon = True
            timer.start()
            with suppress(Exception):
                self.transport.global_request("keepalive@openssh.com", wait=True)
            timer.cancel()
        self.close()

    def _give_up(self, asked: float) -> None:
        if self.heard < asked:
            self.close()


def connect(route: tuple[Station, ...], wallet: Wallet, person: Person | None, settings: SSHSettings) -> Link:
    """Connect from station to station, and log in at each; HostError says where it ends and why."""
    import paramiko

    transports: list[paramiko.Transport] = []
    for station in route:
        try:
            sock = _through(transports[-1], station, settings) if transports else _dial(station, settings)
            transport = _start(sock, station, settings)
            transports.append(transport)
            key = transport.get_remote_server_key()
            check_key(station, key.get_name(), key.asbytes(), person)
            authenticate(transport, station, wallet)
        except (paramiko.SSHException, OSError, EOFError) as error:
            _close(transports)
            raise explain(station, error) from error
        except BaseException:
            _close(transports)
            raise
    return Link(route, transports, settings)


def _dial(station: Station, settings: SSHSettings) -> socket.socket:
    if station.proxy_command:
        ours, theirs = socket.socketpair()
        with theirs:  # the command ends when our side is closed
            subprocess.Popen(
                ["sh", "-c", f"exec {station.proxy_command}"], stdin=theirs.fileno(), stdout=theirs.fileno()
            )
        return ours
    sock = socket.create_connection((station.host, station.port), timeout=settings.connect_timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a command takes 6 instead of 55 ms
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _through(before: "paramiko.Transport", station: Station, settings: SSHSettings) -> "paramiko.Channel":
    target = (station.host, station.port)
    return before.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=settings.connect_timeout_s)


def _start(sock: Any, station: Station, settings: SSHSettings) -> "paramiko.Transport":
    import paramiko

    logging.getLogger(SILENT_LOG).setLevel(logging.CRITICAL + 1)
    transport = paramiko.Transport(sock, default_window_size=WINDOW)
    transport.daemon = True
    transport.set_log_channel(SILENT_LOG)
    transport.banner_timeout = transport.auth_timeout = settings.connect_timeout_s * 2
    options = transport.get_security_options()
    options.ciphers = (*CIPHERS, *(name for name in options.ciphers if name not in CIPHERS and "cbc" not in name))
    options.key_types = preferred_kinds(read_known(station.known_hosts, station.key_name), options.key_types)
    try:
        transport.start_client(timeout=settings.connect_timeout_s * 2)
        if not transport.initial_kex_done:  # paramiko ends its wait without a word
            raise TimeoutError
    except BaseException:
        transport.close()
        raise
    return transport


def _close(transports: "list[paramiko.Transport]") -> None:
    for transport in reversed(transports):
        transport.close()
