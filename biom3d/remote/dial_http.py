"""HTTP on channels of our SSH connection, as the Docker SDK wants it.

Loads requests, urllib3 and paramiko, so `dial` imports it only when an engine is asked.
"""

import queue
from contextlib import suppress
from typing import Any

import requests.exceptions
import urllib3
import urllib3.connection
from docker.transport.basehttpadapter import BaseHTTPAdapter
from paramiko.channel import ChannelFile

from biom3d.remote.channel import PACKET, Pool, broken_pipes

IDLE = 8  # connections kept for the next request, as long as nobody needs their channels


class Answer(ChannelFile):
    """What is read from a channel; a broken connection is an error of the system's, which HTTP understands."""

    def _read(self, size: int) -> bytes:
        with broken_pipes():
            return bytes(super()._read(size))  # type: ignore[misc]  # not in its stubs


class Socket:
    """A channel as HTTP wants it."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def sendall(self, data: bytes) -> None:
        """Send all of it, in packets as large as the connection takes."""
        with broken_pipes():
            for start in range(0, len(data), PACKET):
                self._channel.sendall(data[start : start + PACKET])

    def makefile(self, mode: str, *_: Any) -> Any:
        """Return it as a file."""
        return Answer(self._channel, mode)

    def close(self) -> None:
        """End the command."""
        with suppress(OSError), broken_pipes():
            self._channel.close()


class Connection(urllib3.connection.HTTPConnection):
    """An HTTP connection that is a command on the host."""

    def __init__(self, pool: Pool, line: str) -> None:
        self._pool, self._line = pool, line
        super().__init__("localhost")

    def connect(self) -> None:
        """Start the command."""
        self.command = self._pool.start(self._line)
        self.sock = Socket(self.command.channel)
        self.sock.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)


class Connections(urllib3.connectionpool.HTTPConnectionPool):
    """Open connections; those that the other side has ended are not used again."""

    scheme = "http"

    def __init__(self, pool: Pool, line: str) -> None:
        self._ssh, self._line = pool, line
        super().__init__("localhost", maxsize=IDLE)

    def _new_conn(self) -> Any:
        return Connection(self._ssh, self._line)

    def _get_conn(self, timeout: float | None = None) -> Any:
        # Not the original: it asks for a file descriptor, of which paramiko makes two for every channel.
        while True:
            try:
                connection = self.pool.get(block=False)  # type: ignore[union-attr]
            except queue.Empty:
                return self._new_conn()
            if connection is None:
                return self._new_conn()
            if connection.sock is not None and not connection.sock.closed and not connection.sock.eof_received:
                return connection
            connection.close()

    def drop_idle(self) -> None:
        """Close the connections that wait for a request: their channels are needed."""
        places = 0
        with suppress(queue.Empty):
            while True:
                connection = self.pool.get(block=False)  # type: ignore[union-attr]
                places += 1
                if connection is not None:
                    connection.close()
        with suppress(queue.Full):
            for _ in range(places):
                self.pool.put(None, block=False)  # type: ignore[union-attr]


class Adapter(BaseHTTPAdapter):
    """Gives requests to our connections."""

    def __init__(self, pool: Pool, line: str) -> None:
        self._connections = Connections(pool, line)
        pool.when_full = self._connections.drop_idle
        super().__init__()

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        """Send a request, once more where a kept connection was lost."""
        try:
            return super().send(request, *args, **options)
        except requests.exceptions.ConnectionError:
            # A connection kept from before a cut; what only asks may ask again, on a new one.
            if request.method not in ("GET", "HEAD"):
                raise
            return super().send(request, *args, **options)

    def get_connection(self, url: str, proxies: Any = None) -> Any:
        """Return where requests go, whatever the address."""
        return self._connections

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()
        super().close()
