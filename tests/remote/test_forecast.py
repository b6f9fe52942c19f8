import pytest

from biom3d.remote.forecast import forecast_text, foretell
from biom3d.remote.host import Entry
from biom3d.remote.local import LocalHost


def entry(name: str, key: str, size: int) -> Entry:
    return Entry(name, None, key, size)


def test_files_folders_and_bytes_are_counted_by_content():
    entries = [entry("a/1", "x", 3_000_000), entry("a/2", "y", 1_000_000), entry("b/1", "x", 3_000_000)]
    assert forecast_text(entries, ["y"]) == "input: 3 files in 2 folders, 4.0 MB, 3.0 MB already there"


def test_one_is_no_plural():
    assert forecast_text([entry("a", "x", 7)], []) == "input: 1 file in 1 folder, 7 bytes, 7 bytes already there"


def test_nothing_is_said_of_this_machine(tmp_path, said):
    foretell(LocalHost(tmp_path), [("a", tmp_path)], said.append)
    assert said == []


@pytest.mark.system
def test_an_input_that_cannot_be_read_is_left_to_its_job(ssh_host, tmp_path, said):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/fifo").symlink_to("nowhere")
    foretell(ssh_host, [("in", tmp_path / "in"), ("loop", tmp_path / "loop")], said.append)
    assert said == []


@pytest.mark.system
def test_what_the_host_has_is_told_before_anything_is_sent(ssh_host, tmp_path, said):
    for name, size in (("old", 3000), ("new", 1000)):
        (tmp_path / name).write_bytes(name.encode() * size)
    ssh_host.stage(ssh_host.root / "jobs/j", ssh_host.identify([("old", tmp_path / "old")]), lambda line: None)
    inputs = [(name, tmp_path / name) for name in ("old", "new", "not made yet")]
    foretell(ssh_host, inputs, said.append)
    assert said == ["input: 2 files in 1 folder, 12.0 kB, 9.0 kB already there"]
