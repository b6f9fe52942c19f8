import shutil
import uuid
from pathlib import Path

import pytest

from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
from tests.leftovers import make_folder
from tests.remote.proxy import FaultProxy
from tests.remote.server import Account, Server, make_key


class Client:
    """What a user has: a key, ~/.ssh/config, known_hosts; makes hosts with a fresh folder on the server each."""

    def __init__(self, folder: Path, server: Server, account: Account) -> None:
        self.folder = folder
        self.server = server
        self.account = account
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"server {server.public_key()}\n")
        self.config = folder / "config"
        self.write_config()

    def write_config(self, more: str = "", user: str = "") -> None:
        self.config.write_text(
            f"Host server\n  HostName {self.server.address}\n  Port {self.server.port}\n"
            f"  User {user or self.account.name}\n  HostKeyAlias server\n{more}\n"
            f"Host *\n  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile none\n  IdentityAgent none\n"
            f"  IdentityFile {self.folder / 'no-such-key'}\n"
        )

    def settings(self, **values) -> SSHSettings:
        workdir = f"work-{uuid.uuid4().hex[:8]}"
        given = {"key_file": self.folder / "key", "config": self.config, "workdir": workdir, "keepalive_s": 1.0}
        return SSHSettings("server", **given | values)


@pytest.fixture(scope="session")
def account():
    account = Account()
    yield account
    account.remove()


@pytest.fixture(scope="session")
def server():
    folder = make_folder("sshd")
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def key(account, tmp_path_factory):
    key = make_key(tmp_path_factory.mktemp("key") / "key")
    account.trust(key)
    return key


@pytest.fixture
def client(tmp_path, server, account, key):
    folder = tmp_path / "client"
    folder.mkdir()
    shutil.copy(key, folder / "key")
    return Client(folder, server, account)


@pytest.fixture
def make_host(client, tmp_path):
    """Makes SSH hosts; a lost connection is given up soon."""
    made = []

    def make(person=None, **values) -> SSHHost:
        given = {"silence_s": 5.0, "reconnect_s": 10.0, "connect_timeout_s": 5.0} | values
        made.append(SSHHost(client.settings(**given), person, cache=tmp_path / "hashes.sqlite"))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def proxy(server):
    with FaultProxy(server.address, server.port) as proxy:
        yield proxy


@pytest.fixture
def said():
    """Lines for the person who waits."""
    return []


@pytest.fixture
def ssh_host(make_host):
    return make_host()
