"""What a key from `server authorize` opens on a real sshd, and what it does not."""

import dataclasses
import json
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pytest

from biom3d.remote.ssh import SSHHost
from biom3d.server.card import read_card, write_card
from biom3d.server.keys import read_public_key
from biom3d.server.people import Grant, authorize, edit
from tests.remote.server import names_in
from tests.server.conftest import CARD, new_key

pytestmark = pytest.mark.system


@pytest.fixture
def anna(tmp_path, account):
    """Anna's private key; her public one can be read by the account."""
    key = new_key(tmp_path)
    public = account.home / "anna.pub"
    shutil.copy(f"{key}.pub", public)
    public.chmod(0o644)
    yield key
    public.unlink()


@pytest.fixture
def lab(account):
    """The working folder, and an authorized_keys of its own."""
    folder = account.home / "lab"
    folder.mkdir()
    shutil.chown(folder, account.name, account.name)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def log_in(key: Path, account, server, *words: str, **more) -> "subprocess.CompletedProcess[str]":
    options = ("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    line = ["ssh", "-F", "none", "-i", str(key), *options, "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-p"]
    target = [str(server.port), f"{account.name}@{server.address}"]
    return subprocess.run([*line, *target, *words], capture_output=True, text=True, timeout=60, **more)


def let_in(account, grant: Grant) -> None:
    edit(account.home / ".ssh" / "authorized_keys", lambda text: authorize(text, grant))


def test_a_person_without_the_gate_runs_commands_and_nothing_else(admin, account, server, anna, lab):
    done = admin("authorize", account.home / "anna.pub", "--name", "anna", "--no-gate")
    assert "may run any command as this account" in done.stderr
    assert log_in(anna, account, server, "id -un").stdout == f"{account.name}\n"
    assert "tty" in log_in(anna, account, server, "-tt", "tty").stderr + log_in(anna, account, server, "tty").stdout
    refused = log_in(anna, account, server, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1")
    assert refused.returncode


def test_a_person_with_the_gate_gets_no_shell(admin, account, server, anna, lab):
    done = admin("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", lab)
    assert done.returncode == 0, done.stderr
    refused = log_in(anna, account, server, "id -un")
    assert (refused.returncode, refused.stdout) == (77, "")
    assert log_in(anna, account, server, stdin=subprocess.DEVNULL).returncode == 77


def test_the_gate_lies_where_its_users_cannot_change_it(admin, account, server, anna, lab):
    admin("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", lab)
    text = (account.home / ".ssh" / "authorized_keys").read_text()
    assert log_in(anna, account, server, "id").returncode == 77
    assert names_in(account.home / ".local/lib/biom3d") == ["__pycache__", "biom3d-gate", "biom3d_gate.py"]
    assert f'command="{account.home}/.local/lib/biom3d/biom3d-gate --name anna --workdir {lab}"' in text
    assert names_in(lab) == []


def test_a_gate_in_the_working_folder_is_refused(admin, account, anna, lab):
    (lab / "gate").write_text("#!/bin/sh\n")
    line = ("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", lab, "--gate", lab / "gate")
    done = admin(*line)
    assert done.returncode == 2
    assert "where its users could change it" in done.stderr


def test_a_gate_of_ones_own_is_called_with_name_and_folder(admin, account, server, anna, lab):
    gate = account.home / "own-gate"
    gate.write_text('#!/bin/sh\necho "$@"\n')
    gate.chmod(0o755)
    admin("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", lab, "--gate", gate)
    assert log_in(anna, account, server, "rm -rf /").stdout == f"--name anna --workdir {lab}\n"
    gate.unlink()


@pytest.mark.parametrize("is_inner_first", [True, False])
def test_a_folder_in_that_of_another_person_is_refused(admin, account, anna, lab, tmp_path, is_inner_first):
    inner = lab / "anna"
    inner.mkdir()
    shutil.chown(inner, account.name, account.name)
    folders = [inner, lab] if is_inner_first else [lab, inner]
    ben = account.home / "ben.pub"
    shutil.copy(f"{new_key(tmp_path)}.pub", ben)
    ben.chmod(0o644)
    assert admin("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", folders[0]).returncode == 0
    done = admin("authorize", ben, "--name", "ben", "--workdir", folders[1])
    ben.unlink()
    assert done.returncode == 2
    assert f"reads and changes what is in '{inner}'; give a folder beside it, such as '{lab}-ben'" in done.stderr


def test_a_folder_of_ones_own_has_a_card_that_names_it(admin, account, anna, lab):
    own = account.home / "lab-anna"
    own.mkdir()
    shutil.chown(own, account.name, account.name)
    write_card(dataclasses.replace(CARD, workdir=str(lab)), lab / "card.yaml")
    (account.home / ".biom3d-server.json").write_text(json.dumps({"workdir": str(lab)}))
    done = admin("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", own)
    assert f"anna's own card, which names this folder: '{own}/card.yaml'" in done.stderr
    assert read_card(own / "card.yaml") == dataclasses.replace(CARD, workdir=str(own))
    shutil.rmtree(own)


def test_who_was_revoked_gets_in_no_more(admin, account, server, anna, lab):
    admin("authorize", account.home / "anna.pub", "--name", "anna", "--no-gate")
    assert admin("revoke", "--name", "anna").returncode == 0
    assert "Permission denied" in log_in(anna, account, server, "true").stderr
    assert admin("people").stdout.split() == ["NAME", "UNTIL", "FROM", "KEY", "MAY", "RUN"]


@pytest.mark.parametrize(("days", "is_in"), [(0, True), (-1, False)])
def test_a_key_is_good_to_the_end_of_its_last_day(admin, account, server, anna, days, is_in):
    day = date.today() + timedelta(days=days)
    let_in(account, Grant("anna", read_public_key(Path(f"{anna}.pub")), day))
    assert (log_in(anna, account, server, "true").returncode == 0) == is_in


@pytest.mark.parametrize(("sources", "is_in"), [("127.0.0.0/8", True), ("10.0.0.0/8", False)])
def test_a_key_is_good_only_from_its_addresses(admin, account, server, anna, sources, is_in):
    admin("authorize", account.home / "anna.pub", "--name", "anna", "--no-gate", "--from", sources)
    assert (log_in(anna, account, server, "true").returncode == 0) == is_in


def test_people_lists_who_may_do_what(admin, account, anna, lab):
    line = ("authorize", account.home / "anna.pub", "--name", "anna", "--no-gate", "--expires", "2099-06-30")
    admin(*line, "--from", "10.0.0.0/8")
    row = admin("people").stdout.splitlines()[1].split()
    key = read_public_key(Path(f"{anna}.pub"))
    assert row == ["anna", "2099-06-30", "10.0.0.0/8", "ed25519", key.fingerprint, "no", "gate"]


def test_the_keys_that_were_there_stay(admin, account, anna):
    path = account.home / ".ssh" / "authorized_keys"
    before = path.read_bytes()
    admin("authorize", account.home / "anna.pub", "--name", "anna", "--no-gate")
    admin("revoke", "--name", "anna")
    assert path.read_bytes() == before


def test_without_init_the_working_folder_is_asked_for(admin, account, anna):
    done = admin("authorize", account.home / "anna.pub", "--name", "anna")
    assert done.returncode == 2
    assert "run 'biom3d server init DIR', or --workdir" in done.stderr


def test_our_client_works_through_the_gate(admin, account, server, anna, lab, client):
    line = ("authorize", account.home / "anna.pub", "--name", "anna", "--workdir", lab)
    assert admin(*line).returncode == 0
    host = SSHHost(client.settings(key_file=anna, workdir=str(lab)))
    try:
        host.write(host.root / "jobs" / "x", b"content")
        assert host.read(host.root / "jobs" / "x") == b"content"
    finally:
        host.close()
