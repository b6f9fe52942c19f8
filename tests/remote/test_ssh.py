"""Getting in, running commands, losing the connection: against a real OpenSSH server."""

import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from biom3d.errors import HostError, LostConnection
from biom3d.remote.ssh_config import Hop
from tests.remote.server import PASSWORD, Server, make_key, wait_for

pytestmark = pytest.mark.system  # a real sshd, accounts, name spaces: as root


class Person:
    """Somebody at a terminal with prepared answers."""

    def __init__(self, *secrets: str) -> None:
        self.secrets, self.questions = list(secrets), []

    def confirm(self, question):
        self.questions.append(question)
        return True

    def secret(self, question):
        self.questions.append(question)
        return self.secrets.pop(0)


@pytest.fixture(autouse=True)
def no_passwords(monkeypatch):
    for name in [name for name in os.environ if name.startswith("BIOM3D_SSH") or name == "SSH_AUTH_SOCK"]:
        monkeypatch.delenv(name)


def whoami(host) -> str:
    return host.run("id -un").out.decode().strip()


def test_a_key_lets_in(ssh_host, account):
    assert whoami(ssh_host) == account.name


def test_a_second_account_in_the_same_folder_gets_one_of_its_own(make_host, account):
    first = make_host()
    others = Path(first.root)
    os.chown(others, os.getuid() + 1, -1)  # as if another account had been there first
    second = make_host(workdir=first.settings.workdir)
    assert second.root == first.root.with_name(f".biom3d-{second.user()[0]}")
    assert second.root.parent == first.root.parent


def test_a_password_from_the_environment_lets_in(make_host, account, monkeypatch):
    monkeypatch.setenv("BIOM3D_SSH_PASSWORD", PASSWORD)
    assert whoami(make_host(key_file=None)) == account.name


def test_a_password_is_asked_for_until_it_is_right_and_then_kept(make_host, account):
    person = Person("wrong", PASSWORD)
    host = make_host(person, key_file=None)
    assert whoami(host) == account.name
    host._pool._slots[0].link.close()
    assert whoami(host) == account.name
    assert len(person.questions) == 2
    assert account.name in person.questions[0]


def test_an_agent_lets_in(make_host, client, account, tmp_path, monkeypatch):
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        subprocess.run(["ssh-add", "-q", str(client.folder / "key")], env={"SSH_AUTH_SOCK": str(socket)}, check=True)
        client.write_config(f"  IdentityAgent {socket}")
        assert whoami(make_host(key_file=None)) == account.name
    finally:
        agent.terminate()
        agent.wait()


def test_a_key_with_a_passphrase_is_opened_by_asking(make_host, account, tmp_path):
    account.trust(make_key(tmp_path / "locked", "the phrase"))
    assert whoami(make_host(Person("the phrase"), key_file=tmp_path / "locked")) == account.name


def test_a_wrong_passphrase_is_not_told_as_none(make_host, tmp_path):
    host = make_host(Person("wrong", *["no"] * 3), key_file=make_key(tmp_path / "locked", "the phrase"))
    with pytest.raises(HostError, match="that passphrase is wrong"):
        host.run("true")


def test_an_agent_with_too_many_keys_is_told_with_the_way_out(make_host, client, tmp_path):
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        for number in range(8):
            stranger = make_key(tmp_path / f"stranger-{number}")
            subprocess.run(["ssh-add", "-q", str(stranger)], env={"SSH_AUTH_SOCK": str(socket)}, check=True)
        client.write_config(f"  IdentityAgent {socket}")
        with pytest.raises(HostError, match=r"after \d keys, which may be too many for it .*--key-file"):
            make_host(key_file=None).run("true")
    finally:
        agent.terminate()
        agent.wait()


def test_who_is_not_let_in_is_told_what_was_tried_and_what_to_do(make_host, tmp_path):
    host = make_host(key_file=make_key(tmp_path / "stranger"))
    with pytest.raises(
        HostError, match=r"did not let '\w+' in; tried: key .*stranger.*ssh-copy-id.*BIOM3D_SSH_PASSWORD"
    ):
        host.run("true")


def test_a_wrong_password_never_shows_in_the_message(make_host, monkeypatch):
    monkeypatch.setenv("BIOM3D_SSH_PASSWORD", "wrong-but-secret")
    with pytest.raises(HostError) as caught:
        make_host(key_file=None).run("true")
    assert "wrong-but-secret" not in str(caught.value)


def test_an_unknown_host_is_asked_about_once_for_all_connections(make_host, client):
    client.known_hosts.write_text("")
    person = Person()
    host = make_host(person)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda lane: host._pool.start("true", lane).finish(), range(4)))
    assert len(person.questions) == 1
    assert "SHA256:" in person.questions[0]


def test_a_changed_host_key_is_refused_before_anything_is_sent(make_host, client, server, tmp_path, monkeypatch):
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    client.known_hosts.write_text(f"server {other[0]} {other[1]}\n")
    before = server.log.read_text().count("Accepted")
    with pytest.raises(HostError, match="CHANGED"):
        make_host().run("true")
    assert server.log.read_text().count("Accepted") == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 1}, "nothing listens at 127.0.0.1:1"),
        ({"jump": (Hop("no.such.host.invalid"),)}, "the name no.such.host.invalid is not known"),
    ],
)
def test_a_host_that_is_not_reached_says_why_at_once(make_host, values, message):
    start = time.monotonic()
    with pytest.raises(HostError, match=message):
        make_host(**values).run("true")
    assert time.monotonic() - start < 15


def test_a_port_where_something_else_answers_is_told(make_host, proxy):
    proxy.is_refusing = True
    with pytest.raises(HostError, match=r"no SSH server|cut"):
        make_host(port=proxy.port).run("true")


def test_input_output_error_and_exit_code_arrive_whole(ssh_host):
    data = os.urandom(3_000_000)
    done = ssh_host.run("cat; echo wrong >&2; exit 7", stdin=data)
    assert (done.code, done.out, done.err) == (7, data, b"wrong\n")


def test_much_on_both_outputs_does_not_block(ssh_host):
    done = ssh_host.run("head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero")
    assert (done.code, len(done.out)) == (0, 5_000_000)


def test_bytes_that_are_no_text_pass_both_ways(ssh_host):
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert ssh_host.run(f"printf %s '{name}'").out == b"\xff\xfe"


def test_a_command_that_takes_too_long_is_given_up(ssh_host):
    with pytest.raises(HostError, match=r"within 0.3 s"):
        ssh_host.run("sleep 20", timeout_s=0.3)
    assert ssh_host.run("echo on").out == b"on\n"


def test_a_command_killed_by_a_signal_is_not_taken_for_a_lost_line(ssh_host):
    assert ssh_host.run("kill -9 $$").code != 0


def test_thirty_commands_at_once_share_few_connections(ssh_host):
    with ThreadPoolExecutor(30) as threads:
        outs = list(threads.map(lambda n: ssh_host.run(f"sleep 0.2; echo {n}").out, range(30)))
    assert outs == [b"%d\n" % number for number in range(30)]
    assert sum(slot.link is not None for slot in ssh_host._pool._slots) <= 4


def test_connections_for_commands_that_are_about_to_come_are_made_ahead(ssh_host):
    ssh_host.run("true")
    ssh_host._pool.open_ahead(3)
    wait_for(lambda: sum(slot.link is not None for slot in ssh_host._pool._slots) == 3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_server_that_allows_fewer_commands_gets_more_connections(make_host, tmp_path, count):
    strict = Server(tmp_path / "strict", options=f"MaxSessions {count}")
    try:
        (tmp_path / "client" / "known_hosts").write_text(f"server {strict.public_key()}\n")
        host = make_host(port=strict.port)
        assert [host.run(f"echo {n}").out for n in range(20)] == [f"{n}\n".encode() for n in range(20)]
        with ThreadPoolExecutor(10) as threads:
            codes = set(threads.map(lambda n: host.run("sleep 0.3").code, range(10)))
        assert codes == {0}
    finally:
        strict.stop()


def test_a_warm_command_takes_milliseconds(ssh_host):
    ssh_host.run("true")
    times = []
    for _ in range(10):
        start = time.monotonic()
        ssh_host.run("true")
        times.append(time.monotonic() - start)
    assert sorted(times)[5] < 0.05


def test_after_a_cut_the_next_command_runs_on_a_new_connection(make_host, proxy):
    host = make_host(port=proxy.port)
    host.run("true")
    proxy.cut()
    assert host.run("echo on").out == b"on\n"


def test_a_command_is_not_run_twice_when_its_line_is_cut(make_host, proxy, account):
    host, counter = make_host(port=proxy.port), account.home / "counter"
    thread = threading.Thread(target=lambda: (wait_for(counter.exists), proxy.cut()))
    thread.start()
    with pytest.raises(HostError, match="connection was lost"):
        host.run(f"echo once >>{counter}; sleep 20")
    thread.join()
    assert counter.read_text() == "once\n"


def test_a_silent_line_is_given_up_and_made_again(make_host, proxy):
    host = make_host(port=proxy.port, silence_s=1.0, keepalive_s=0.2)
    host.run("true")
    with host._pool.start("echo begun; sleep 20") as command:
        assert command.read() == b"begun\n"
        proxy.stall()
        with pytest.raises(LostConnection):
            command.read()
    proxy.flow()
    assert host.run("echo on").out == b"on\n"


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_line_cut_at_any_moment_of_the_login_is_made_again(make_host, proxy, account, way):
    for count in range(10, 4000, 400 if way == "up" else 250):
        proxy.up = proxy.down = proxy.cuts = 0
        setattr(proxy, f"cut_{way}_at", count)
        host = make_host(port=proxy.port)
        assert host.run("id -un", repeat=True).out.decode().strip() == account.name, count
        host.close()
        setattr(proxy, f"cut_{way}_at", None)


def test_a_host_that_is_away_for_a_while_is_waited_for(make_host, proxy):
    host = make_host(port=proxy.port)
    host.run("true")
    proxy.is_refusing = True
    proxy.cut()
    timer = threading.Timer(1.0, lambda: setattr(proxy, "is_refusing", False))
    timer.start()
    assert host.run("echo back").out == b"back\n"


def test_a_login_script_that_prints_is_found_and_explained(make_host, account):
    rc = account.home / ".ssh" / "rc"
    rc.write_text("echo Welcome to the GPU server\n")
    try:
        with pytest.raises(HostError, match=r"login scripts print 'Welcome to the GPU server'.*\.bashrc"):
            make_host().user()
    finally:
        rc.unlink()


def test_a_workdir_that_cannot_be_made_is_told(make_host):
    with pytest.raises(HostError, match=r"cannot make the folder '/proc/no'.*check workdir"):
        make_host(workdir="/proc/no").user()


@pytest.fixture
def without_inodes(account, tmp_path):
    """A disk with room for bytes and not for files."""
    folder = account.home / "few"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m,nr_inodes=40,mode=777", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


def test_a_disk_without_free_inodes_is_told_as_such(make_host, without_inodes):
    with pytest.raises(HostError, match=r"no space for the folder '.*few'.*inodes.*'df -i'"):
        make_host(workdir=str(without_inodes)).user()


def test_paramiko_prints_nothing_of_its_own(make_host, proxy, capfd):
    host = make_host(port=proxy.port)
    host.run("true")
    proxy.cut()
    host.run("true")
    host.close()
    assert capfd.readouterr().err == ""


def test_a_proxy_command_is_a_way_in(make_host, client, account):
    port = client.server.port
    client.write_config(f"  ProxyCommand python3 -c '{RELAY}' 127.0.0.1 {port}")
    assert whoami(make_host(port=1)) == account.name


RELAY = (
    "import socket,sys,threading,os;s=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
    'threading.Thread(target=lambda:[os.write(1,d) for d in iter(lambda:s.recv(65536),b"")],daemon=True).start();'
    '[s.sendall(d) for d in iter(lambda:os.read(0,65536),b"")]'
)
