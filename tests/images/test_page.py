import dataclasses

import pytest

from biom3d.errors import ConfigError
from biom3d.images.lock import Lock, Row, read_lock
from biom3d.images.page import PAGE, table_text, write_page
from biom3d.images.table import CHECKOUT, load_table

ROW = Row("sha256:" + "d" * 64, "sha256:b", "sha256:c", "2.13.0+cpu", "", "3.11.2", 1391, ())


def test_the_table_tells_size_torch_cuda_and_digest(table):
    lines = table_text(table, Lock({}, {"cpu": ROW})).splitlines()
    assert lines[2] == (
        "| `cpu` | any x86_64 processor | 1.39 GB | 2.13.0+cpu | none | none | 3.11.2 | `sha256:dddddddddddd` |"
    )
    assert "not built yet" in lines[3]


def test_only_the_table_of_the_page_is_written(table):
    path = table.root / PAGE
    path.parent.mkdir()
    path.write_text((CHECKOUT / PAGE).read_text())
    write_page(table, Lock({}, {"cpu": dataclasses.replace(ROW, size_mb=9990)}))
    assert "9.99 GB" in path.read_text()
    assert path.read_text().split("<!-- end")[1] == (CHECKOUT / PAGE).read_text().split("<!-- end")[1]


def test_a_page_without_a_place_for_the_table_is_refused(table):
    with pytest.raises(ConfigError, match="lacks the lines"):
        write_page(table, Lock({}, {}))


def test_the_committed_page_is_up_to_date():
    assert table_text(load_table(), read_lock(CHECKOUT)) in (CHECKOUT / PAGE).read_text()


def test_the_committed_lock_is_true_for_the_committed_table():
    from biom3d.images.record import is_true

    table = load_table()
    assert {name: is_true(table, name, row) for name, row in read_lock(CHECKOUT).images.items()} == dict.fromkeys(
        read_lock(CHECKOUT).images, True
    )
