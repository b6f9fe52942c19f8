"""The client's side of set-up: `remote add --card`, `remote keygen`, `remote init`."""

import dataclasses
import stat
import subprocess
from pathlib import Path

import pytest

from biom3d.errors import ConfigError
from biom3d.remote import keygen
from biom3d.remote.__main__ import main
from biom3d.remote.card import settings_of
from biom3d.remote.profile import Settings, profiles_folder, read_profile, write_profile
from biom3d.server.card import Card, read_card, write_card
from biom3d.server.keys import parse_public_key, read_public_key
from tests.remote.server import free_port, make_key, names_in
from tests.remote.test_run import with_engine
from tests.server.conftest import CARD

__all__ = ["with_engine"]
OTHER_KEY = CARD.host_keys[0]


@pytest.fixture
def known_hosts(home):
    """An own ~/.ssh/config, whose known_hosts this is: nothing in it."""
    path = home / "known_hosts"
    config = home / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile {path}\n  GlobalKnownHostsFile none\n  IdentityAgent none\n")
    return path


@pytest.fixture
def card_of(account, server, tmp_path):
    """Makes card files of the test server."""

    def make(**changes) -> Path:
        key = parse_public_key(server.public_key().encode(), "host key")
        card = Card("gpu1", server.address, account.name, "/lab", (f"{key.kind} {key.fingerprint}",), server.port)
        path = tmp_path / "card.yaml"
        write_card(dataclasses.replace(card, **{"engine": "docker", **changes}), path)
        return path

    return make


def add(card: Path, *more: object) -> int:
    return main(["add", "gpu1", "--card", str(card), "--config", "config", *map(str, more)])


@pytest.mark.system
def test_a_card_makes_a_profile_and_the_server_known(known_hosts, card_of, account, server):
    assert add(card_of()) == 0
    settings = read_profile("gpu1")
    assert (settings.address, settings.port, settings.user, settings.workdir) == (
        server.address,
        server.port,
        account.name,
        "/lab",
    )
    assert known_hosts.read_text() == f"[{server.address}]:{server.port} {server.public_key()}\n"


@pytest.mark.system
def test_a_server_that_shows_another_key_is_refused_and_nothing_is_written(known_hosts, card_of, capsys):
    assert add(card_of(host_keys=(OTHER_KEY,))) == 1
    assert "somebody stands between you and the server. Nothing was written" in capsys.readouterr().err
    assert not known_hosts.exists()
    assert not profiles_folder().exists()


@pytest.mark.system
def test_a_key_that_known_hosts_contradicts_is_refused(known_hosts, card_of, server, tmp_path, capsys):
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known_hosts.write_text(f"[{server.address}]:{server.port} {other}")
    assert add(card_of()) == 1
    assert "has CHANGED" in capsys.readouterr().err
    assert not profiles_folder().exists()


@pytest.mark.system
def test_the_same_card_again_with_replace_changes_nothing(known_hosts, card_of):
    assert add(card_of()) == 0
    before = known_hosts.read_text()
    assert add(card_of(), "--replace") == 0
    assert known_hosts.read_text() == before


def test_a_server_that_does_not_answer_makes_no_profile(known_hosts, card_of, capsys):
    assert add(card_of(port=free_port())) == 1
    assert "nothing listens" in capsys.readouterr().err
    assert not profiles_folder().exists()


def test_neither_host_nor_card_is_one_clear_line(home, capsys):
    assert main(["add", "gpu1"]) == 2
    assert "give the server's card (--card FILE)" in capsys.readouterr().err


def test_a_card_with_an_environment_only_makes_jobs_run_in_it(home):
    card = dataclasses.replace(CARD, engine="", environment="/srv/biom3d/env")
    settings = settings_of(card, "gpu1", Settings())
    assert (settings.runtime, settings.venv) == ("venv", "/srv/biom3d/env")


def test_the_key_of_keygen_is_used(home):
    keygen.write_pair(keygen.make_pair("", "x"), keygen.key_path("gpu1"))
    assert settings_of(CARD, "gpu1", Settings()).key_file == str(home / ".ssh" / "id_ed25519_gpu1")


def test_what_is_given_goes_before_the_card(home):
    settings = settings_of(CARD, "gpu1", Settings(user="anna", workdir="mine"))
    assert (settings.address, settings.user, settings.workdir) == (CARD.address, "anna", "mine")


def test_keygen_makes_a_key_that_ssh_reads(home, capsys):
    assert main(["keygen", "gpu1", "--no-passphrase"]) == 0
    private = home / ".ssh" / "id_ed25519_gpu1"
    derived = subprocess.run(["ssh-keygen", "-yf", private], capture_output=True, text=True, check=True).stdout
    said = capsys.readouterr()
    assert said.out.split()[:2] == derived.split()[:2]
    assert "biom3d server authorize id_ed25519_gpu1.pub --name" in said.err


def test_the_private_part_is_its_owners_alone(home):
    main(["keygen", "gpu1", "--no-passphrase"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / ".ssh").iterdir()}
    assert modes == {"id_ed25519_gpu1": 0o600, "id_ed25519_gpu1.pub": 0o644}
    assert stat.S_IMODE((home / ".ssh").stat().st_mode) == 0o700


def test_a_passphrase_locks_the_key(home, monkeypatch):
    monkeypatch.setenv("BIOM3D_SSH_PASSPHRASE", "correct horse")
    main(["keygen", "gpu1"])
    private = home / ".ssh" / "id_ed25519_gpu1"
    codes = [
        subprocess.run(["ssh-keygen", "-yP", phrase, "-f", private], capture_output=True).returncode
        for phrase in ("wrong", "correct horse")
    ]
    assert (codes[0] == 0, codes[1] == 0) == (False, True)


def test_nobody_to_ask_and_no_wish_for_none_makes_no_key(home, capsys):
    assert main(["keygen", "gpu1"]) == 2
    assert "--no-passphrase" in capsys.readouterr().err
    assert not (home / ".ssh").exists()


@pytest.mark.parametrize("name", ["id_ed25519_gpu1", "id_ed25519_gpu1.pub"])
def test_a_key_is_never_overwritten(home, name, capsys):
    (home / ".ssh").mkdir()
    (home / ".ssh" / name).write_text("precious")
    assert main(["keygen", "gpu1", "--no-passphrase"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert [(home / ".ssh" / name).read_text(), names_in(home / ".ssh")] == ["precious", [name]]


class Hands:
    """Somebody who types these."""

    def __init__(self, *typed: str) -> None:
        self.typed = list(typed)

    def confirm(self, question: str) -> bool:
        return False

    def secret(self, question: str) -> str:
        return self.typed.pop(0)


def test_a_passphrase_is_asked_for_twice(home):
    assert keygen.ask_passphrase(Hands("a", "b", "c", "c"), False) == "c"


def test_two_that_differ_again_and_again_make_no_key(home):
    with pytest.raises(ConfigError, match="the two passphrases differed"):
        keygen.ask_passphrase(Hands(*"abcdef"), False)


@pytest.mark.system
def test_init_from_afar_makes_folders_and_a_card_that_add_takes(
    home, client, account, server, with_engine, tmp_path, capsys
):
    profile = Settings(
        "server", key_file=str(client.folder / "key"), config=str(client.config), workdir=str(account.home / "afar")
    )
    write_profile("gpu1", profile)
    card = tmp_path / "card.json"
    assert main(["init", "gpu1", "--card", str(card)]) == 0, capsys.readouterr().err
    assert {"data", "logs"} <= {path.name for path in (account.home / "afar").iterdir()}
    told = read_card(card)
    assert (told.name, told.address, told.port, told.user) == ("gpu1", server.address, server.port, account.name)
    assert told.fingerprints == (read_public_key(server.host_key.with_suffix(".pub")).fingerprint,)
    assert main(["add", "again", "--card", str(card), "--config", str(client.config)]) == 0
