"""The Docker SDK over our SSH connection: HTTP to `docker system dial-stdio` on a channel of it.

The SDK's own `ssh://` ignores jump hosts, ports and keys, and makes connections of its own.
"""

from typing import TYPE_CHECKING

from biom3d.engine import explain, translated
from biom3d.errors import ContainerError, LostConnection
from biom3d.remote import commands
from biom3d.remote.site import Site, shown

if TYPE_CHECKING:
    import docker

URL = "http+docker://ssh"  # the SDK takes sockets of this address for paramiko channels
VERSION = "1.24"  # until the engine says which it speaks


def connect_engine(site: Site, socket: str | None) -> "docker.DockerClient":
    """Return a client of the host's engine; ContainerError says why there is none."""
    try:
        import docker

        from biom3d.remote.dial_http import Adapter
    except ImportError as error:
        raise ContainerError(
            "running containers needs the Docker SDK; install it: in the checkout, pip install '.[remote]'"
        ) from error
    line = commands.dial_engine(socket)
    client = docker.DockerClient(base_url="tcp://engine.invalid:1", version=VERSION, timeout=None)
    client.api.mount(URL, Adapter(site.pool, line))
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
