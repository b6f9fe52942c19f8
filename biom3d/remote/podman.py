"""Podman in Docker's place: where its socket is on a host, and what to do when there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from biom3d.errors import ContainerError
from biom3d.remote.host import Host
from biom3d.remote.local import LocalHost
from biom3d.remote.ssh import SSHHost
from biom3d.remote.template import made

if TYPE_CHECKING:
    import docker

NO_SOCKET, NO_PODMAN = 69, 127
START_IT = "start it there: systemctl --user enable --now podman.socket && loginctl enable-linger"
START_IT_AS_ROOT = "start it there: systemctl enable --now podman.socket"


class LocalPodman(LocalHost):
    """This machine, with Podman as its engine."""

    def engine(self) -> "docker.DockerClient":
        """Return a client of Podman; ContainerError says how to start it."""
        with _explained(self.name):
            if self._engine.socket is None:
                self._engine.socket = find_socket(self)
            return super().engine()


class SSHPodman(SSHHost):
    """A machine reached by SSH, with Podman as its engine."""

    def engine(self) -> "docker.DockerClient":
        """Return a client of Podman there; ContainerError says how to start it."""
        with _explained(self.name):
            if self.settings.engine_socket is None:
                self.settings = replace(self.settings, engine_socket=find_socket(self))
            return super().engine()


def find_socket(host: Host) -> str:
    """Return the path of the account's own socket, else that of root's Podman if the account may use it.

    Raises:
        ContainerError: no Podman, or its socket is not active.
    """
    done = host.run(find_socket_line())
    words = done.out.decode(errors="replace").strip()
    if done.code == NO_PODMAN:
        raise ContainerError(f"{host.name}: podman is not there; install it: apt-get install podman")
    if done.code:
        remedy = START_IT_AS_ROOT if words == "0" else START_IT
        raise ContainerError(f"{host.name}: Podman's socket is not active; {remedy}")
    return words


def find_socket_line() -> str:
    """Print the socket's path; exit code 69 (and the uid) if there is none, 127 if there is no Podman."""
    return _FIND_SOCKET.line()


_FIND_SOCKET = made(
    "find_socket",
    f"""
own=/run/user/$(id -u)
for folder in "${{XDG_RUNTIME_DIR:-$own}}" "$own" /run; do
  socket=$folder/podman/podman.sock
  [ -S "$socket" ] && [ -w "$socket" ] && {{ echo "$socket"; exit 0; }}
done
command -v podman >/dev/null 2>&1 || exit {NO_PODMAN}
id -u; exit {NO_SOCKET}
""",
)
TEMPLATES = (_FIND_SOCKET,)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say how Podman is started, where the words are about Docker."""
    try:
        yield
    except ContainerError as error:
        if "no container engine answers" not in str(error):
            raise
        raise ContainerError(f"{name}: nobody listens at Podman's socket; {START_IT}") from error
