"""The card: text, file, and what a card that came by mail may not say."""

import dataclasses
import json
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biom3d.errors import ConfigError
from biom3d.server.card import Card, card_mapping, card_text, parse_card, qr_payload, qr_text, read_card, write_card
from tests.server.conftest import CARD


@pytest.mark.parametrize("name", ["card.yaml", "card.json"])
def test_a_card_is_read_as_it_was_written(tmp_path, name):
    write_card(CARD, tmp_path / name)
    assert read_card(tmp_path / name) == CARD


def test_a_name_that_ends_in_json_makes_json(tmp_path):
    write_card(CARD, tmp_path / "card.json")
    assert json.loads((tmp_path / "card.json").read_text())["address"] == CARD.address


def test_the_same_card_again_does_not_touch_the_file(tmp_path):
    path = tmp_path / "card.yaml"
    write_card(CARD, path)
    before = path.stat()
    write_card(CARD, path)
    assert path.stat() == before


def test_the_text_names_everything_and_the_next_steps():
    text = card_text(CARD)
    values = [CARD.address, CARD.user, CARD.workdir, *CARD.host_keys, *CARD.images, "22"]
    assert [value for value in values if value not in text] == []
    assert "biom3d remote add gpu1 --card card.yaml" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "-oProxyCommand=evil"),
        ("address", "host name"),
        ("address", "lab@host"),
        ("user", "-l"),
        ("user", "a:b"),
        ("port", 0),
        ("port", "22"),
        ("port", True),
        ("workdir", "relative"),
        ("workdir", "/srv/../etc"),
        ("workdir", "/srv\n"),
        ("jump", "-oProxyCommand=evil"),
        ("jump", "gate,-x"),
        ("host_keys", []),
        ("host_keys", ["ssh-ed25519 MD5:aa"]),
        ("host_keys", "SHA256:x"),
        ("engine", "other"),
        ("images", ["a\x1b[2J"]),
        ("name", "../x"),
        ("key_file", "/etc/passwd"),
        ("config", "/tmp/evil"),
        ("card", 2),
    ],
)
def test_a_card_that_says_what_it_may_not_is_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        parse_card({**card_mapping(CARD), key: value}, "card.yaml")


def test_object_tags_and_huge_files_are_refused(tmp_path):
    (tmp_path / "tag.yaml").write_text("!!python/object/apply:os.system ['true']")
    (tmp_path / "huge.yaml").write_text("# " + "x" * 30_000)
    for name, words in (("tag.yaml", "not valid YAML"), ("huge.yaml", "too large")):
        with pytest.raises(ConfigError, match=words):
            read_card(tmp_path / name)


keys = st.sampled_from([field.name for field in dataclasses.fields(Card)])
words = st.text("aB1/:.-@ \n\x1b", max_size=10)
values = st.one_of(st.none(), st.booleans(), st.integers(), words, st.lists(words, max_size=3))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, values))
def test_nonsense_is_refused_in_our_words_or_is_a_card(changes):
    try:
        card = parse_card({**card_mapping(CARD), **changes}, "card")
    except ConfigError:
        return
    assert parse_card(yaml.safe_load(json.dumps(card_mapping(card))), "card") == card


def test_the_qr_code_holds_a_card_of_the_same_server():
    card = parse_card(yaml.safe_load(qr_payload(CARD)), "qr")
    assert card == dataclasses.replace(CARD, images=())
    assert len(qr_payload(CARD)) < 400


def test_without_segno_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(ConfigError, match=r"\.\[server\]"):
        qr_text(CARD)
