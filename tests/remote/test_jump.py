"""Hosts behind hosts: network name spaces in which the target can be reached through two jump hosts only."""

import contextlib
import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from biom3d.errors import HostError
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import Hop, SSHSettings
from tests.leftovers import make_folder
from tests.remote.server import PASSWORD, Account, Server, make_key, run

pytestmark = pytest.mark.system  # a real sshd, accounts, name spaces: as root

# client (this machine) - door - inner - target, each pair on a network of its own
NETS = ("10.199.1", "10.199.2", "10.199.3")


@pytest.fixture(scope="module")
def chain(account, key):
    """Three hosts in a row; yields their servers."""
    names = [f"b3d{os.getpid()}{part}" for part in ("a", "b", "c")]
    folder = make_folder("jump")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
            run("ip", "link", "set", "lo", "up", netns=name)
        for number, name in enumerate(names):
            _wire(names[number - 1] if number else "", name, NETS[number], f"v{os.getpid() % 100000}{number}")
        servers = [Server(folder / name, f"{net}.2", 22, name) for name, net in zip(names, NETS, strict=True)]
        for server in servers:
            stack.callback(server.stop)
        yield servers


def _wire(before: str, name: str, net: str, device: str) -> None:
    """Connect a name space with the one before it, or with this machine."""
    run("ip", "link", "add", f"{device}x", "type", "veth", "peer", "name", f"{device}y")
    if before:
        run("ip", "link", "set", f"{device}x", "netns", before)
    run("ip", "link", "set", f"{device}y", "netns", name)
    for space, end, address in ((before, "x", 1), (name, "y", 2)):
        run("ip", "addr", "add", f"{net}.{address}/24", "dev", f"{device}{end}", netns=space)
        run("ip", "link", "set", f"{device}{end}", "up", netns=space)


@pytest.fixture
def settings(chain, account, key, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"{server.address} {server.public_key()}\n" for server in chain))
    config = tmp_path / "config"
    config.write_text(
        f"Host target\n HostName {NETS[2]}.2\n ProxyJump door,inner\nHost door\n HostName {NETS[0]}.2\n"
        f"Host inner\n HostName {NETS[1]}.2\n"
        f"Host *\n User {account.name}\n UserKnownHostsFile {known}\n GlobalKnownHostsFile none\n IdentityFile {key}\n"
        " IdentityAgent none\n"
    )
    return SSHSettings("target", config=config, connect_timeout_s=5, workdir="jump", reconnect_s=5)


@pytest.fixture
def connect(tmp_path):
    made = []

    def make(settings):
        made.append(SSHHost(settings, cache=tmp_path / "cache"))
        return made[-1]

    yield make
    for host in made:
        host.close()


def test_the_target_cannot_be_reached_directly(settings, connect):
    with pytest.raises(HostError, match=r"^target: "):
        connect(replace(settings, jump=(), connect_timeout_s=1)).run("true")


def test_two_jump_hosts_of_the_configuration_lead_there(settings, connect):
    done = connect(settings).run("echo $SSH_CONNECTION")
    assert done.out.split()[2].decode() == f"{NETS[2]}.2"


def test_files_pass_the_chain_both_ways(settings, connect, tmp_path):
    host = connect(settings)
    (tmp_path / "a").write_bytes(os.urandom(3_000_000))
    folder = host.root / "jobs" / "j"
    host.stage(folder, host.identify([("a", tmp_path / "a")]), print)
    assert host.collect(folder, [("a", tmp_path / "back")], print) == ()
    assert (tmp_path / "back").read_bytes() == (tmp_path / "a").read_bytes()


def test_each_hop_has_its_own_user_and_password(settings, connect, chain, monkeypatch):
    guest = Account()
    try:
        jump = (Hop(f"{NETS[0]}.2", user=guest.name), Hop("inner"))
        monkeypatch.setenv("BIOM3D_SSH_PASSWORD_1", PASSWORD)
        assert connect(replace(settings, jump=jump)).run("true").code == 0
        assert f"Accepted password for {guest.name}" in chain[0].log.read_text()
    finally:
        guest.remove()


def test_who_refuses_on_the_way_is_named_with_the_variable_of_that_hop(settings, connect, tmp_path):
    jump = (Hop("door"), Hop("inner", key_file=make_key(tmp_path / "stranger")))
    with pytest.raises(HostError, match=r"inner: the server did not let .*BIOM3D_SSH_PASSWORD_2"):
        connect(replace(settings, jump=jump)).run("true")


def test_a_jump_host_that_cannot_reach_the_next_says_so(settings, connect):
    jump = (Hop("door"), Hop("inner", port=9))
    with pytest.raises(HostError, match=r"inner: the jump host before it cannot or may not reach 10.199.2.2:9"):
        connect(replace(settings, jump=jump)).run("true")


def test_the_key_of_each_hop_is_checked(settings, connect, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("".join(line for line in known.read_text().splitlines(True) if not line.startswith(NETS[1])))
    with pytest.raises(HostError, match=r"inner: the host key .* is not known yet"):
        connect(settings).run("true")
