"""Host keys against known_hosts files, some written by ssh-keygen itself."""

import base64
import subprocess
from dataclasses import replace

import pytest

from biom3d.errors import HostError
from biom3d.remote.hostkeys import check_key, fingerprint, preferred_kinds, read_known, remember
from biom3d.remote.ssh_config import Station
from tests.remote.server import make_key

KIND = "ssh-ed25519"


class Person:
    """Answers always the same, and keeps what it was asked."""

    def __init__(self, answer: bool) -> None:
        self.answer, self.questions = answer, []

    def confirm(self, question):
        self.questions.append(question)
        return self.answer

    def secret(self, question):
        raise AssertionError


@pytest.fixture
def station(tmp_path):
    return Station("gpu", "h", 99, "u", (), (tmp_path / "new" / "known_hosts",), "[h]:99", None)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    texts = [make_key(folder / name).with_suffix(".pub").read_text().split()[1] for name in "ab"]
    return [base64.b64decode(text) for text in texts]


def test_an_unknown_key_is_shown_asked_once_and_kept(station, keys):
    person = Person(True)
    check_key(station, KIND, keys[0], person)
    check_key(station, KIND, keys[0], None)
    assert len(person.questions) == 1
    assert fingerprint(keys[0]) in person.questions[0]


def test_a_key_that_is_not_accepted_is_not_kept(station, keys):
    with pytest.raises(HostError, match="not accepted"):
        check_key(station, KIND, keys[0], Person(False))
    assert not station.known_hosts[0].exists()


def test_where_nobody_can_be_asked_an_unknown_key_is_refused_with_what_to_do(station, keys):
    with pytest.raises(HostError, match=r"not known yet.*accept it once on a terminal: ssh -p 99 u@h"):
        check_key(station, KIND, keys[0], None)


def test_a_changed_key_is_refused_even_if_the_person_would_accept(station, keys):
    remember(station, KIND, keys[0])
    person = Person(True)
    with pytest.raises(HostError, match=r"CHANGED.*ssh-keygen -R"):
        check_key(station, KIND, keys[1], person)
    assert person.questions == []


def test_the_advice_for_a_changed_key_works(station, keys):
    remember(station, KIND, keys[0])
    line = ["ssh-keygen", "-R", station.key_name, "-f", str(station.known_hosts[0])]
    subprocess.run(line, check=True, capture_output=True)
    assert read_known(station.known_hosts, station.key_name) == ()


def test_ssh_reads_what_we_write_plain_and_hashed(station, keys):
    remember(station, KIND, keys[0])
    remember(replace(station, key_name="other", hash_known_hosts=True), KIND, keys[1])
    for name in ("[h]:99", "other"):
        line = ["ssh-keygen", "-F", name, "-f", str(station.known_hosts[0])]
        assert subprocess.run(line, capture_output=True).returncode == 0
    assert "other" not in station.known_hosts[0].read_text()


def test_entries_hashed_by_ssh_are_found(station, keys):
    remember(station, KIND, keys[0])
    subprocess.run(["ssh-keygen", "-H", "-f", str(station.known_hosts[0])], check=True, capture_output=True)
    assert "[h]" not in station.known_hosts[0].read_text()
    check_key(station, KIND, keys[0], None)


def test_a_file_without_a_line_end_is_not_damaged(station, keys):
    path = station.known_hosts[0]
    path.parent.mkdir()
    path.write_text("first ssh-ed25519 AAAA")
    remember(station, KIND, keys[0])
    assert path.read_text().splitlines()[0] == "first ssh-ed25519 AAAA"
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("patterns", "is_named"),
    [("[h]:99", True), ("other,[h]:99", True), ("[*]:99", True), ("[?]:99,![h]:99", False), ("h", False), ("*", True)],
)
def test_patterns_mean_what_they_mean_to_ssh(station, keys, patterns, is_named):
    path = station.known_hosts[0]
    path.parent.mkdir()
    path.write_text(f"{patterns} {KIND} {base64.b64encode(keys[0]).decode()}\n")
    assert bool(read_known([path], "[h]:99")) is is_named


def test_a_revoked_key_is_refused(station, keys):
    path = station.known_hosts[0]
    path.parent.mkdir()
    text = f"{KIND} {base64.b64encode(keys[0]).decode()}"
    path.write_text(f"[h]:99 {text}\n@revoked * {text}\n")
    with pytest.raises(HostError, match="revoked"):
        check_key(station, KIND, keys[0], Person(True))


def test_the_kind_of_key_that_is_known_is_asked_for_first(station, keys):
    remember(station, "ssh-rsa", keys[0])
    known = read_known(station.known_hosts, station.key_name)
    assert preferred_kinds(known, ("ssh-ed25519", "rsa-sha2-256")) == ("rsa-sha2-256", "ssh-ed25519")


def test_lines_that_nobody_understands_are_passed_over(station, keys):
    path = station.known_hosts[0]
    path.parent.mkdir()
    path.write_bytes(b"# comment\n\n[h]:99\n[h]:99 ssh-ed25519 not*base64\n\xff\xfe x y\n|1|bad ssh-ed25519 AAAA\n")
    assert read_known([path], "[h]:99") == ()
