"""The judge of the soak finds what is not true. `make soak` itself strikes at random times, and is not run here."""

from collections import Counter

import pytest

from tests.remote.soak_people import untruths


@pytest.mark.parametrize(
    ("text", "code", "touched"),
    [
        ("Traceback (most recent call last):", 0, {}),
        ("[job 1] connection lost, trying again", 0, {}),
        ("[job 1] killed from outside; starts again", 0, {"slow line": 1}),
        ("[job 1] has ended meanwhile; taking its results\n[job 1] started in x", 0, {}),
        ("nothing", 1, {"cut of the line": 1}),
        ("nothing", -9, {"Ctrl-C": 1}),
    ],
)
def test_what_is_not_true_is_found(text, code, touched):
    assert untruths(text, code, Counter(touched)) != []


def test_what_is_true_is_not():
    text = "[job 1] started in x\n[job 1] killed from outside; starts again\n[job 1] started in x"
    assert untruths(text, 0, Counter({"power cut": 1})) == []
    assert untruths("cancelled with 'biom3d remote cancel' by anna", 1, Counter(cancel=1)) == []
