"""authorized_keys: our lines, and those of others that stay as they are."""

import stat
import threading
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biom3d.errors import ConfigError
from biom3d.server.keys import parse_public_key
from biom3d.server.people import Grant, authorize, check_expiry, edit, forced_command, read_grants, read_sources, revoke
from tests.remote.server import names_in

KEY = parse_public_key(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS", "x")
OTHER = parse_public_key(b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDDc0lOvQiXmyJ3XTzkj4Vdrsd1Dzc8Z7Nq6uZ5Yyq8r", "y")
ANNA = Grant("anna", KEY, date(2027, 6, 30), ("10.0.0.0/8", "*.lab.org"), "/g --name anna")
FOREIGN = b'# a comment\r\n\n  ssh-rsa AAAAB3 somebody@else \xff\ncert-authority,x="y" ssh-rsa AAAA'


def test_a_line_says_all_limits():
    assert ANNA.line() == (
        f'restrict,command="/g --name anna",expiry-time="202706302359",from="10.0.0.0/8,*.lab.org" {KEY} biom3d:anna'
    )


def test_what_is_written_is_read_again():
    text = authorize(authorize(b"", ANNA), Grant("ben", OTHER))
    assert list(read_grants(text)) == [ANNA, Grant("ben", OTHER)]


def test_the_same_again_changes_nothing():
    once = authorize(FOREIGN, ANNA)
    assert authorize(once, ANNA) == once


def test_new_limits_replace_the_line():
    assert list(read_grants(authorize(authorize(b"", ANNA), Grant("anna", KEY)))) == [Grant("anna", KEY)]


def test_revoking_leaves_the_others():
    text = authorize(authorize(authorize(b"", ANNA), Grant("ben", OTHER)), ANNA)
    assert list(read_grants(revoke(text, "anna"))) == [Grant("ben", OTHER)]


def test_who_was_never_there_cannot_be_revoked():
    with pytest.raises(ConfigError, match="'carl' has no key here; known: anna"):
        revoke(authorize(b"", ANNA), "carl")


@given(st.binary(max_size=300).filter(lambda text: b"biom3d:" not in text and bytes(str(KEY), "ascii") not in text))
def test_lines_of_others_stay_byte_for_byte(foreign):
    ended = foreign if not foreign or foreign.endswith(b"\n") else foreign + b"\n"
    text = authorize(foreign, ANNA)
    assert text == ended + ANNA.line().encode() + b"\n"
    assert revoke(text, "anna") == ended


@pytest.mark.parametrize("head", [b"", b'no-pty,command="x" '])
def test_a_key_that_somebody_else_let_in_is_refused(head):
    with pytest.raises(ConfigError, match="stands in line 2 already"):
        authorize(b"\n" + head + str(KEY).encode() + b" me@home\n", ANNA)


def test_a_key_is_one_persons():
    with pytest.raises(ConfigError, match="this key is anna's already"):
        authorize(authorize(b"", ANNA), Grant("ben", KEY))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "a b", "x,,y", "!10.0.0.0/8", 'x"', "10.0.0.0/33", "a\nb", ""])
def test_sources_that_sshd_would_stumble_over_are_refused(text):
    with pytest.raises(ConfigError, match="--from"):
        read_sources(text)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.0.2.7,2001:db8::/32", "*.lab.org,!bad.lab.org", "host"])
def test_usual_sources_are_taken(text):
    assert read_sources(text) == tuple(text.split(","))


def test_a_day_that_is_over_is_refused():
    with pytest.raises(ConfigError, match="is over"):
        check_expiry(date(2026, 1, 1), date(2026, 1, 2))


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\x00b"])
def test_names_that_would_end_the_command_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot stand in authorized_keys"):
        forced_command(["/g"], "anna", tmp_path / name, None)


def test_a_folder_with_spaces_is_one_word(tmp_path):
    assert forced_command(["/g"], "anna", tmp_path / "my data", None).endswith(f"--workdir '{tmp_path}/my data'")


def test_the_file_is_the_accounts_alone_and_nothing_else_is_left(tmp_path):
    path = tmp_path / ".ssh" / "authorized_keys"
    edit(path, lambda text: authorize(text, ANNA))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert names_in(path.parent) == ["authorized_keys"]


def test_the_same_again_does_not_touch_the_file(tmp_path):
    path = tmp_path / "authorized_keys"
    assert edit(path, lambda text: authorize(text, ANNA))
    before = path.stat()
    assert not edit(path, lambda text: authorize(text, ANNA))
    assert path.stat() == before


def test_a_failed_edit_leaves_what_was_there(tmp_path):
    path = tmp_path / "authorized_keys"
    path.write_bytes(FOREIGN)
    with pytest.raises(ConfigError):
        edit(path, lambda text: revoke(text, "anna"))
    assert path.read_bytes() == FOREIGN


def test_many_at_once_lose_nobody(tmp_path):
    path = tmp_path / "authorized_keys"

    def add(number: int) -> None:
        edit(path, lambda text: text + b"%d\n" % number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, path.read_bytes().split())) == list(range(20))


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"")
    link = tmp_path / "authorized_keys"
    link.symlink_to("real")
    edit(link, lambda text: authorize(text, ANNA))
    assert link.is_symlink()
    assert ANNA.line().encode() in (tmp_path / "real").read_bytes()
