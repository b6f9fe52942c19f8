import socket
import subprocess
import time
from pathlib import Path

import pytest

from biom3d.remote import doctor
from biom3d.remote.__main__ import main
from biom3d.remote.doctor import FAIL, OK, WARN, Finding, examine, judge_clock, judge_gpus, judge_images, judge_shell
from biom3d.remote.profile import Settings, write_profile
from tests.remote.server import Account, free_port, make_key
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]
LIMIT_S = 30  # three times what the doctor allows itself, for a machine that has much else to do


@pytest.fixture
def settings(client):
    """Makes the settings of the test server."""

    def make(**changes) -> Settings:
        given = {"key_file": str(client.folder / "key"), "config": str(client.config), "workdir": "lab"}
        return Settings("server", **given | changes)

    return make


@pytest.fixture
def small_disk(account, tmp_path):
    """A full disk that the account may write to: 1 MB, 900 files."""
    folder = account.home / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=900,mode=777", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


@pytest.fixture
def silent_engine(account):
    """A socket where somebody listens and never answers."""
    path = account.home / "engine.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o777)
        sock.listen(5)
        yield path
    path.unlink()


def look(settings: Settings) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(settings, Path.cwd())}


def states(found: dict[str, Finding]) -> dict[str, str]:
    return {what: finding.state for what, finding in found.items()}


def failed(found: dict[str, Finding]) -> list[str]:
    return [what for what, finding in found.items() if finding.state == FAIL]


@pytest.mark.system
def test_a_good_host_passes_every_check_in_time(settings, with_engine, base_image):
    start = time.monotonic()
    found = look(settings(image=base_image))
    assert time.monotonic() - start < LIMIT_S
    wanted = "name port,host key,login,commands,tools,workdir,disk,inodes,clock,engine,images,gpus,line"
    assert list(found) == wanted.replace("name port", "name,port").split(",")
    assert failed(found) == [], [str(finding) for finding in found.values()]


@pytest.mark.system
def test_nothing_is_left_behind(settings, account):
    look(settings(workdir="empty"))
    assert list((account.home / "empty/.biom3d/jobs").iterdir()) == []


@pytest.mark.system
def test_a_name_that_nobody_knows(settings):
    found = look(Settings("no-such-host.invalid"))
    assert failed(found) == list(found)[-1:] == ["name"]
    assert "check the spelling" in found["name"].text + found["name"].fix


@pytest.mark.system
def test_a_port_where_nothing_listens(settings):
    found = look(settings(port=free_port()))
    assert failed(found) == list(found)[-1:] == ["port"]
    assert "is sshd running" in str(found["port"])


@pytest.mark.system
def test_a_port_where_something_else_answers(settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(5)
        found = {}
        for finding in examine(settings(port=other.getsockname()[1]), Path.cwd()):
            found[finding.what] = finding
        assert failed(found) == list(found)[-1:] == ["port"]


@pytest.mark.system
def test_a_line_that_is_silent_is_given_up_in_time(settings, proxy):
    proxy.stall()
    start = time.monotonic()
    assert failed(look(settings(port=proxy.port))) == ["port"]
    assert time.monotonic() - start < LIMIT_S


@pytest.mark.system
def test_the_way_through_a_jump_host_is_told(settings, client):
    client.write_config(
        f"Host gate\n  HostName {client.server.address}\n  Port {client.server.port}\n  User {client.account.name}\n"
        f"  HostKeyAlias server\n  IdentityFile {client.folder / 'key'}\n"
    )
    found = look(settings(jump="gate"))
    assert "through gate" in found["login"].text


@pytest.mark.system
def test_an_unknown_host_key(settings, client):
    client.known_hosts.write_text("")
    found = look(settings())
    assert failed(found) == ["host key"]
    assert "not known yet" in found["host key"].text


@pytest.mark.system
def test_a_changed_host_key(settings, client, tmp_path):
    other = make_key(tmp_path / "other").with_name("other.pub").read_text()
    client.known_hosts.write_text(f"server {other}")
    assert "CHANGED" in look(settings())["host key"].text


@pytest.mark.system
def test_a_key_that_is_not_let_in(settings, tmp_path):
    found = look(settings(key_file=str(make_key(tmp_path / "mine"))))
    assert failed(found) == list(found)[-1:] == ["login"]
    assert "ssh-copy-id" in str(found["login"])


@pytest.mark.system
def test_a_key_file_that_is_not_there(settings):
    assert failed(look(settings(key_file="/none"))) == ["settings"]


@pytest.mark.system
def test_a_folder_that_cannot_be_made_stops_what_needs_it(settings):
    found = look(settings(workdir="/proc/none"))
    assert failed(found) == ["workdir"]
    assert "because of: workdir" in found["engine"].text


@pytest.mark.system
def test_a_disk_that_is_nearly_full(settings, small_disk):
    found = look(settings(workdir=str(small_disk)))
    assert {"disk", "inodes"} <= set(failed(found))


@pytest.mark.system
def test_an_account_that_may_not_use_the_engine(settings, docker_client):
    somebody = Account()
    try:
        key = make_key(somebody.home / "key")
        somebody.trust(key)
        found = look(settings(user=somebody.name, key_file=str(key)))
        assert states(found)["engine"] == FAIL
        assert "group 'docker'" in found["engine"].fix
    finally:
        somebody.remove()


@pytest.mark.system
def test_an_engine_that_does_not_answer_is_given_up_in_time(settings, silent_engine):
    start = time.monotonic()
    assert "engine" in failed(look(settings(engine_socket=str(silent_engine))))
    assert time.monotonic() - start < LIMIT_S


@pytest.mark.system
def test_gpus_that_are_not_there_are_a_failure_only_if_asked_for(settings):
    assert [states(look(settings(gpus=gpus)))["gpus"] for gpus in (None, "0")] == [WARN, FAIL]


@pytest.mark.system
def test_this_machine_is_looked_at_without_ssh(tmp_path, docker_client, base_image):
    found = {finding.what: finding for finding in examine(Settings(image=base_image), tmp_path)}
    assert list(found) == ["tools", "workdir", "disk", "inodes", "engine", "images", "gpus"]
    assert failed(found) == []


def test_a_shell_that_prints_more_is_told_where_to_stop_it():
    finding = judge_shell(b"Welcome!\nbiom3d-doctor\n")
    assert (finding.state, "Welcome!" in finding.text, "~/.bashrc" in finding.fix) == (FAIL, True, True)


@pytest.mark.parametrize(("skew", "state"), [(0.2, OK), (-4.9, OK), (7200, WARN), (-60, WARN)])
def test_a_clock_that_is_off_is_only_a_warning(skew, state):
    assert judge_clock(skew).state == state


@pytest.mark.parametrize(("there", "state"), [(["cpu"], OK), (["cpu", "gpu"], OK), ([], FAIL)])
def test_one_image_is_enough(there, state):
    assert judge_images(["cpu", "gpu"], there).state == state


@pytest.mark.parametrize(("driver", "state"), [("580.65", OK), ("535.1", WARN), ("[N/A]", OK)])
def test_a_driver_that_is_too_old_for_an_image_is_told(driver, state):
    finding = judge_gpus([["0", "A", "80", driver]], {"cuda": "580", "legacy": "525"})
    assert (finding.state, "cuda" in finding.text) == (state, state == WARN)


def test_without_an_image_the_way_to_bring_one_is_shown():
    assert "biom3d remote send-image PROFILE cpu" in judge_images(["cpu"], []).fix


def test_a_finding_is_one_line():
    assert str(Finding(FAIL, "x", "a", "b")) == "FAIL x: a; fix: b"


def test_errors_that_are_not_ours_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        doctor.within(5, lambda: 1 // 0)


def test_the_command_ends_with_1_if_something_failed(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_profile("x", Settings("no-such-host.invalid"))
    assert main(["doctor", "x"]) == 1
    assert capsys.readouterr().out.startswith("FAIL name: ")


def test_a_command_without_an_answer_is_told_with_what_was_said_beside_it():
    broken = judge_shell(b"", b"biom3d-gate: refused: Expecting value: line 1 column 1\n")
    assert "it says: biom3d-gate: refused: Expecting value" in str(broken)
    assert "the administrator has to mend the gate" in str(broken)
    assert "a command prints nothing" in str(judge_shell(b""))
