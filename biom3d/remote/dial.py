"""The Docker SDK over our SSH connection: HTTP to `docker system dial-stdio` on a channel of it.

The SDK's own `ssh://` ignores jump hosts, ports and keys, and makes connections of its own.
"""

import queue
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from biom3d.errors import ContainerError, LostConnection
from biom3d.remote import commands
from biom3d.remote.channel import PACKET, Pool, broken_pipes
from biom3d.remote.engine import explain, translated
from biom3d.remote.site import Site, shown

if TYPE_CHECKING:
    import docker

URL = "http+docker://ssh"  # the SDK takes sockets of this address for paramiko channels
IDLE = 8  # connections kept for the next request, as long as nobody needs their channels
VERSION = "1.24"  # until the engine says which it speaks


def connect_engine(site: Site, socket: str | None) -> "docker.DockerClient":
    """Return a client of the host's engine; ContainerError says why there is none."""
    try:
        import docker
    except ImportError as error:
        raise ContainerError(
            "running containers needs the Docker SDK; install it: pip install 'biom3d-workflow[remote]'"
        ) from error
    line = commands.dial_engine(socket)
    client = docker.DockerClient(base_url="tcp://engine.invalid:1", version=VERSION, timeout=None)
    client.api.mount(URL, _adapter(site.pool, line))
    client.api.base_url = URL
    client.api._check_is_tty = lambda container: False  # jobs have no terminal; the SDK asks before each look at a log
    try:
        with translated(site.name, socket or "its engine"):
            client.api._version = client.api._retrieve_server_version()
    except (ContainerError, LostConnection) as error:
        # The reason stands on the standard error of the command, which HTTP does not know.
        done = site.pool.execute(line, repeat=True)
        if done.code or done.err:
            raise ContainerError(explain(site.name, socket or "its engine", Exception(_plain(done.err)))) from error
        raise
    return client


def _plain(err: bytes) -> str:
    """Return what the command says, in words that `explain` knows."""
    text = shown(err)
    is_absent = any(words in text for words in ("no such file", "neither docker", "Is the docker daemon running"))
    return f"FileNotFoundError: {text}" if is_absent else text


def _adapter(pool: Pool, line: str) -> Any:
    import requests.exceptions
    import urllib3
    import urllib3.connection
    from docker.transport.basehttpadapter import BaseHTTPAdapter
    from paramiko.channel import ChannelFile

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
            with broken_pipes():
                for start in range(0, len(data), PACKET):
                    self._channel.sendall(data[start : start + PACKET])

        def makefile(self, mode: str, *_: Any) -> Any:
            return Answer(self._channel, mode)

        def close(self) -> None:
            with suppress(OSError), broken_pipes():
                self._channel.close()

    class Connection(urllib3.connection.HTTPConnection):
        """An HTTP connection that is a command on the host."""

        def connect(self) -> None:
            self.command = pool.start(line)
            self.sock = Socket(self.command.channel)
            self.sock.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)

    class Connections(urllib3.connectionpool.HTTPConnectionPool):
        """Open connections; those that the other side has ended are not used again."""

        scheme = "http"

        def _new_conn(self) -> Any:
            return Connection("localhost")

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

        def __init__(self) -> None:
            self._connections = Connections("localhost", maxsize=IDLE)
            pool.when_full = self._connections.drop_idle
            super().__init__()

        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            try:
                return super().send(request, *args, **options)
            except requests.exceptions.ConnectionError:
                # A connection kept from before a cut; what only asks may ask again, on a new one.
                if request.method not in ("GET", "HEAD"):
                    raise
                return super().send(request, *args, **options)

        def get_connection(self, url: str, proxies: Any = None) -> Any:
            return self._connections

        def close(self) -> None:
            self._connections.close()
            super().close()

    return Adapter()
