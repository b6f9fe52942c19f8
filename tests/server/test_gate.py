"""The gate as a person meets it: OpenSSH's own client, a key with the gate as forced command, and bad intentions."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from biom3d.remote import tarstream
from tests.remote.conftest import account, server
from tests.remote.server import Server, free_port, names_in, run
from tests.server.gated import BY_NAME, Door, opened, unchecked, was_refused

__all__ = ["account", "server"]
pytestmark = pytest.mark.system
JOB = "0" * 24
KEY = "ab" * 32


@pytest.fixture
def door(server, account):
    with opened(server, account) as door:
        yield door


def test_our_own_commands_run(door):
    path = door.root / "jobs" / JOB / "a b"
    assert door.run("write_file", path, "tmp-" + "0" * 12, 2, stdin=b"hi").returncode == 0
    assert door.run("read_file", path).stdout == b"hi"


def test_a_shell_is_refused(door):
    assert was_refused(door.ssh())


def test_a_terminal_is_refused(door):
    done = door.ssh("-tt")
    assert (done.stdout, done.stderr.strip()) == (b"", b"PTY allocation request failed on channel 0")


@pytest.mark.parametrize(
    "line", ["id", "sh", "bash -c id", "sh -c id", "exec sh -c id sh x", "/bin/sh -i", ";", "$(id)", "a'"]
)
def test_other_commands_are_refused(door, line):
    assert was_refused(door.ssh(line))


def test_more_after_one_of_our_commands_is_refused(door):
    good = unchecked(BY_NAME["free_bytes"], door.root)
    for more in ("; id", " && id", "\nid", " | sh", " `id`", " >x", " &"):
        assert was_refused(door.ssh(good + more)), more


def test_a_changed_script_is_refused(door):
    good = unchecked(BY_NAME["free_bytes"], door.root)
    assert was_refused(door.ssh(good.replace("stat -f", "id; stat -f")))


@pytest.mark.parametrize("program", ["sftp", "scp", "rsync"])
def test_other_ways_of_copying_files_are_refused(door, program, tmp_path):
    door.make_file("data/a")
    source, target = f"{door.target}:{door.workdir}/data/a", str(tmp_path / "a")
    if program == "rsync":
        done = door.ssh(f"rsync --server --sender -e.LsfxCIvu . {door.workdir}/data/a")
        assert was_refused(done)
    else:
        done = subprocess.run([*door.client(program), source, target], capture_output=True)
        assert done.returncode
    assert not Path(target).exists()


@pytest.mark.parametrize("option", ["-L", "-R", "-D"])
def test_ports_are_not_forwarded(door, option):
    port = free_port()
    way = {"-L": f"-L{port}:127.0.0.1:{door.server.port}", "-R": f"-R{port}:127.0.0.1:1", "-D": f"-D{port}"}[option]
    line = unchecked(BY_NAME["free_bytes"], door.root)
    done = door.ssh("-oExitOnForwardFailure=yes", way, line)
    if option == "-R":
        assert done.returncode == 255
    else:  # the client listens; what it is asked for is refused by the server
        with subprocess.Popen([*door.client("ssh"), "-N", way, door.target], stderr=subprocess.PIPE) as listening:
            try:
                assert not greeting(port, option)
            finally:
                listening.kill()  # SIGTERM between two waits of ssh would be forgotten


def greeting(port: int, option: str) -> bytes:
    """Return what is at the other end of a forwarded port."""
    import socket
    import time

    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                if option == "-D":
                    sock.sendall(b"\x05\x01\x00")
                    assert sock.recv(2) == b"\x05\x00"
                    sock.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16")
                    answer = sock.recv(100)
                    return b"" if not answer or answer[1] else answer
                return sock.recv(100)
        except ConnectionRefusedError:
            time.sleep(0.02)
        except ConnectionResetError:
            return b""
    raise AssertionError("ssh does not listen")


def test_agents_are_not_forwarded(door):
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(door.folder / "agent")], stdout=subprocess.DEVNULL) as agent:
        try:
            done = door.ssh("-A", "env")
        finally:
            agent.terminate()
    assert was_refused(done)
    assert not list(Path("/tmp").glob("ssh-*/agent*"))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{home}/.ssh/authorized_keys",
        "{work}/../x",
        "{work}/.biom3d/../../x",
        "relative",
        "",
        "{work}/.biom3d/tmp/x",
        "{work}//data",
        "{work}x/data",
        "{work}/.biom3d/store/ab/x",
    ],
)
def test_paths_outside_are_refused(door, path):
    text = path.format(home=door.account.home, work=door.workdir)
    assert was_refused(door.run("read_file", text))


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "out/../../a", "link", "linked/passwd", "up"])
def test_names_that_lead_outside_are_refused(door, name):
    work = door.root / "jobs" / JOB / "work"
    work.mkdir(parents=True)
    (work / "link").symlink_to("/etc/passwd")
    (work / "linked").symlink_to("/etc")
    (work / "up").symlink_to("../../../../../")
    door.own(door.workdir)
    assert was_refused(door.run("send_files", work, "plain", "plain", stdin=f"{name}\0".encode()))
    done = door.run("send_range", work, name, 0, 1, "plain")
    assert was_refused(done)
    assert b"lead" in done.stderr


def test_names_inside_are_read_whatever_they_are(door):
    work = door.make_file(f".biom3d/jobs/{JOB}/work/it's\n$(id)", "yes").parent
    assert door.run("send_files", work, "plain", "plain", stdin=b"./it's\n$(id)\0").stdout == b"yes"


def test_links_lead_only_from_jobs_to_the_store(door):
    door.make_file(f".biom3d/store/{KEY[:2]}/{KEY}")
    (door.root / "jobs" / JOB).mkdir()
    (door.root / "jobs" / JOB / "evil").symlink_to(door.account.home / ".ssh")
    door.own(door.workdir)
    good = (f"jobs/{JOB}/work/a", f"store/{KEY[:2]}/{KEY}")
    bad = [
        (f"jobs/{JOB}/evil/rc", good[1]),
        ("../../rc", good[1]),
        ("/tmp/rc", good[1]),
        (good[0], "../../.ssh/authorized_keys"),
        (good[0], "/etc/passwd"),
        ("store/ab/x", good[1]),
    ]
    for pair in bad:
        assert was_refused(door.run("link_files", door.root, stdin=archive(good, pair))), pair
        assert names_in(door.root / "jobs" / JOB) == ["evil"]
    assert door.run("link_files", door.root, stdin=archive(good)).returncode == 0
    assert (door.root / good[0]).read_text() == "mine"


def archive(*pairs: tuple[str, str]) -> bytes:
    return gzip.compress(tarstream.links((name.encode(), target.encode()) for name, target in pairs))


def test_a_list_of_links_holds_nothing_else(door):
    whole = tarstream.file_header(f"jobs/{JOB}/a".encode(), 0, 0) + tarstream.END
    for data in (gzip.compress(whole), whole[:100], gzip.compress(whole)[:20], b"x", gzip.compress(b"")):
        done = door.run("link_files", door.root, stdin=data)
        assert done.returncode, data
        assert names_in(door.root / "jobs") == []


def test_only_the_folder_of_a_job_is_removed(door):
    door.make_file("data/a")
    (door.root / "jobs" / JOB / "x").mkdir(parents=True)
    for path in (door.workdir, door.root, door.root / "jobs", door.workdir / "data", door.root / "jobs" / JOB / "x"):
        assert was_refused(door.run("remove_folder", path)), path


def test_a_job_cannot_make_the_gate_read_or_write_elsewhere(door):
    folder = door.root / "jobs" / JOB
    folder.mkdir()
    (folder / "exit").symlink_to(door.account.home / ".ssh" / "authorized_keys")
    door.own(door.workdir)
    assert was_refused(door.run("join", folder, "0" * 16))
    (folder / "exit").unlink()
    (folder / "clients").symlink_to(door.account.home)
    assert was_refused(door.run("join", folder, "0" * 16))


def test_a_file_that_waits_under_the_temporary_name_is_not_written_to(door):
    victim = door.account.home / "victim"
    victim.write_text("safe")
    folder = door.root / "jobs" / JOB
    folder.mkdir()
    (folder / (".tmp-" + "0" * 12)).symlink_to(victim)
    door.own(door.account.home / "victim")
    door.own(door.workdir)
    door.run("write_file", folder / "a", "tmp-" + "0" * 12, 2, stdin=b"hi")
    assert victim.read_text() == "safe"


def test_the_kernel_keeps_scripts_in_the_working_folder_when_a_race_is_lost(door):
    """What a lost race would be: a script that is let through and finds a link where a folder was."""
    (door.account.home / "secret").write_text("secret")
    door.own(door.account.home / "secret")
    folder = door.root / "jobs" / JOB
    folder.mkdir()
    (folder / "a").symlink_to(door.account.home / "secret")
    text = door.gate.read_text().replace("need(below(real, self.workdir), f\"'{path}' leads", 'need(True, f"')
    door.gate.write_text(text)
    done = door.run("read_file", folder / "a")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Permission denied" in done.stderr


def test_another_persons_folder_is_out_of_reach(door, server, account, tmp_path):
    other = Door(server, account, door.folder.parent / "other", "bob")
    other.make_file("data/a", "bob's")
    try:
        assert was_refused(door.run("read_file", other.workdir / "data/a"))
        assert was_refused(
            door.run("send_files", other.root / "jobs" / JOB / "work", "plain", "plain", stdin=b"./data/a\0")
        )
        assert other.run("read_file", other.workdir / "data/a").stdout == b"bob's"
    finally:
        other.remove()


def test_who_is_over_quota_can_read_and_remove_but_not_write(door):
    path = door.make_file(f".biom3d/jobs/{JOB}/big")
    path.write_bytes(os.urandom(300_000))
    door.configure(quota_gb=0.0002)
    done = door.run("write_file", path, "tmp-" + "0" * 12, 2, stdin=b"hi")
    assert was_refused(done)
    assert b"Disk quota exceeded: 0.0 of 0.0 GB" in done.stderr
    assert door.run("read_file", path).returncode == 0
    assert door.run("remove_folder", path.parent).returncode == 0


def test_everything_is_noted_in_one_line_each(door):
    door.ssh("id\n{}", "a")
    door.run("free_bytes", door.root)
    refused, allowed = door.notes()
    assert (refused["who"], refused["verdict"], refused["what"], refused["from"]) == (
        "anna",
        "refused",
        "id\n{} a",
        "127.0.0.1",
    )
    assert (allowed["verdict"], allowed["what"], allowed["args"]) == ("ok", "free_bytes", [str(door.root)])


def test_the_key_is_noted_where_sshd_tells_it(account, tmp_path):
    telling = Server(tmp_path / "sshd", options="ExposeAuthInfo yes")
    with opened(telling, account) as door:
        door.run("free_bytes", door.root)
        shown = run("ssh-keygen", "-lf", f"{door.key}.pub").split()[1]
        assert [note["key"] for note in door.notes()] == [shown]
    telling.stop()


def test_without_a_log_nothing_runs(door):
    door.configure(log="/proc/nothing/log")
    done = door.run("free_bytes", door.root)
    assert (done.returncode, done.stdout) == (77, b"")


@pytest.mark.parametrize("settings", [{"log": "{work}/log"}, {"typo": 1}, {"venv": True}, {"images": "{"}])
def test_a_configuration_that_is_wrong_refuses_everything(door, settings):
    door.configure(
        **{key: str(value).format(work=door.workdir) if key == "log" else value for key, value in settings.items()}
    )
    if settings.get("images"):
        door.config.write_text("{")
    assert was_refused(door.run("free_bytes", door.root))


def test_the_home_folder_is_no_working_folder(door):
    line = json.dumps(unchecked(BY_NAME["free_bytes"], door.account.home / ".biom3d"))
    words = [str(door.gate), "--name", "anna", "--workdir", str(door.account.home)]
    done = subprocess.run(
        words, env={"SSH_ORIGINAL_COMMAND": json.loads(line), "HOME": str(door.account.home)}, capture_output=True
    )
    assert was_refused(done)
