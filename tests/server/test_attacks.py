"""The page about security says what the tests show."""

import pytest

from tests.server import attacks
from tests.server.attacks import PAGE, page_with_table


def test_the_table_of_attacks_is_that_of_the_tests():
    page = PAGE.read_text()
    assert page == page_with_table(page), "make it anew: python -m tests.server.attacks"


def test_words_that_no_test_has_in_its_name_are_an_error(monkeypatch):
    monkeypatch.setattr(attacks, "SOURCES", {"X": {"tests/server/test_attacks.py": ("error", "no such words")}})
    with pytest.raises(ValueError, match="no such words"):
        attacks.table()
