import pytest

from biom3d.remote.handover import lend, take
from biom3d.remote.profile import Settings

SETTINGS = Settings("gpu1", config="/dev/null")


def test_a_host_that_was_lent_is_taken_once(tmp_path):
    with lend(SETTINGS, tmp_path) as host:
        pass
    assert take(SETTINGS, tmp_path) is host
    assert take(SETTINGS, tmp_path) is not host


def test_other_settings_get_another_host(tmp_path):
    with lend(SETTINGS, tmp_path) as host:
        pass
    assert take(Settings("gpu1", config="/dev/null", workdir="other"), tmp_path) is not host
    assert take(SETTINGS, tmp_path) is host


def test_after_an_error_nothing_waits(tmp_path):
    with pytest.raises(ZeroDivisionError), lend(SETTINGS, tmp_path) as host:
        raise ZeroDivisionError
    assert take(SETTINGS, tmp_path) is not host
