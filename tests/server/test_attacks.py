"""The page about security says what the tests show."""

from tests.server.attacks import PAGE, page_with_table


def test_the_table_of_attacks_is_that_of_the_tests():
    page = PAGE.read_text()
    assert page == page_with_table(page), "make it anew: python -m tests.server.attacks"
