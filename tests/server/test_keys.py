"""Public keys: what is taken, and what is refused with which words."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biom3d.errors import DataError
from biom3d.server.keys import parse_public_key, read_public_key


@pytest.mark.parametrize("kind", [("ed25519",), ("ecdsa", "-b", "384"), ("rsa", "-b", "3072")])
def test_a_good_key_has_the_fingerprint_that_ssh_shows(public_key, kind):
    path = public_key(*kind)
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1] == read_public_key(path).fingerprint


def test_a_private_key_is_refused_and_called_lost(public_key):
    with pytest.raises(DataError, match=r"is a PRIVATE key, .* counts as lost"):
        read_public_key(public_key().with_suffix(""))


def test_a_short_rsa_key_is_refused(public_key):
    with pytest.raises(DataError, match="an RSA key of 2048 bits; wanted 3072 or more"):
        read_public_key(public_key("rsa", "-b", "2048"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ssh-dss AAAA", "a DSA key"),
        (b"", "0 lines with content"),
        (b"ssh-ed25519 AAAA\nssh-ed25519 AAAA\n", "2 lines with content"),
        (b'command="x" ssh-ed25519 AAAA', "begins with 'command=\"x\"'"),
        (b"ssh-ed25519 !!!", "is damaged"),
        (b"ssh-ed25519", "is damaged"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "is damaged"),
        (b"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==", "is damaged"),
        (b"\xff\xfe", "binary data"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", "PRIVATE"),
    ],
)
def test_what_is_no_key_is_refused(content, words):
    with pytest.raises(DataError, match=words):
        parse_public_key(content, "x.pub")


def test_a_key_of_another_kind_than_it_says_is_refused(public_key):
    text = public_key().read_text().replace("ssh-ed25519", "ssh-rsa", 1)
    with pytest.raises(DataError, match="holds another kind of key"):
        parse_public_key(text.encode(), "x.pub")


@given(st.binary(max_size=200), st.sampled_from([b"", b"ssh-ed25519 ", b"ssh-rsa "]))
def test_nonsense_never_breaks_out(content, head):
    with pytest.raises(DataError):
        parse_public_key(head + content, "x.pub")


def test_a_huge_file_is_not_read(tmp_path):
    (tmp_path / "x.pub").write_bytes(b"a" * 10**6)
    with pytest.raises(DataError, match="too large"):
        read_public_key(tmp_path / "x.pub")
