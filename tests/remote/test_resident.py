"""What lies on a host and stays there: found, told apart from what changed, mounted for jobs. A real sshd."""

import os
from pathlib import Path, PurePosixPath

import pytest

from biom3d.errors import DataError
from biom3d.remote import commands
from biom3d.remote.data import note_residents, send_dataset
from biom3d.remote.host import Mount
from biom3d.remote.manifest import SUFFIX, read_manifest
from biom3d.remote.venv import plan_links

pytestmark = pytest.mark.system  # a real sshd and an account: as root
PATH = "data/cells/images"


def every(name: str) -> bool:
    return True


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a.tif", "b é.tif", "c\nd.tif"):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


@pytest.fixture
def workdir(ssh_host):
    return Path(ssh_host.root.parent)


@pytest.fixture
def put(ssh_host, workdir, images):
    """Files that somebody has put on the server, long ago."""
    folder = workdir / PATH
    folder.mkdir(parents=True)
    for path in images.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
        os.utime(folder / path.name, (10**9 + 5, 10**9 + 5))
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The folders in which files were read on the host."""
    folders, real = [], commands.hash_files
    monkeypatch.setattr(commands, "hash_files", lambda folder, how: folders.append(folder) or real(folder, how))
    return folders


def test_what_was_put_there_is_named_with_size_and_hash(ssh_host, put, images, said):
    found = ssh_host.residents.describe(PATH, every, said.append)
    entries = ssh_host.identify([("", images)])
    assert [(item.name, item.size, item.key) for item in found.files] == [
        (entry.name.removeprefix("/"), entry.size, entry.key) for entry in entries
    ]


def test_what_was_sent_is_never_read_there(ssh_host, images, said, hashed):
    place = send_dataset(ssh_host, "cells", images, None, said.append)
    found = ssh_host.residents.describe(f"data/{place.name}/images", every, said.append)
    assert {item.key for item in found.files} == {entry.key for entry in ssh_host.identify([("x", images)])}
    assert hashed == []


def test_what_was_read_once_is_remembered_by_the_next_client(ssh_host, make_host, put, said, hashed, monkeypatch):
    monkeypatch.setattr("biom3d.remote.resident.SETTLED_NS", -(10**12))  # the files were put there a moment ago
    first = ssh_host.residents.describe(PATH, every, said.append)
    other = make_host(workdir=str(put.parents[2]))
    assert (other.residents.describe(PATH, every, said.append), len(hashed)) == (first, 1)


def test_with_check_store_all_is_read_again(make_host, images, said, hashed):
    host = make_host(check_store=True)
    send_dataset(host, "cells", images, None, said.append)
    hashed.clear()
    host.residents.describe(PATH, every, said.append)
    assert len(hashed) == 1


def test_a_manifest_is_written_only_when_something_is_new(ssh_host, put, tmp_path, said):
    note_residents(ssh_host, {PATH: every}, tmp_path, said.append)
    file = tmp_path / f"{PATH}{SUFFIX}"
    before = file.stat().st_mtime_ns
    note_residents(ssh_host, {PATH: every}, tmp_path, said.append)
    os.utime(put / "a.tif")
    note_residents(ssh_host, {PATH: every}, tmp_path, said.append)
    assert file.stat().st_mtime_ns == before
    (put / "a.tif").write_text("other")
    note_residents(ssh_host, {PATH: every}, tmp_path, said.append)
    assert file.stat().st_mtime_ns > before
    assert "changed there" in said[-1]


def test_files_that_are_not_wanted_are_neither_named_nor_read(ssh_host, put, said):
    found = ssh_host.residents.describe(PATH, lambda name: name == "a.tif", said.append)
    assert [item.name for item in found.files] == ["a.tif"]


def test_a_single_file_may_be_named(ssh_host, put, said):
    found = ssh_host.residents.describe(f"{PATH}/a.tif", every, said.append)
    assert [(item.name, item.size) for item in found.files] == [("", 500)]


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda folder: (folder / "a.tif").unlink(), "a.tif' is no longer there; run the same command again"),
        (lambda folder: (folder / "a.tif").write_text("x"), "a.tif' is not what it was; run the same command again"),
        (lambda folder: folder.rename(folder.parent / "gone"), f"there is no '{PATH}' in"),
    ],
)
def test_what_changed_since_it_was_asked_for_is_told(ssh_host, put, tmp_path, said, harm, problem):
    note_residents(ssh_host, {PATH: every}, tmp_path, said.append)
    harm(put)
    with pytest.raises(DataError, match=problem):
        ssh_host.identify([("m", tmp_path / f"{PATH}{SUFFIX}")])


def test_a_link_in_the_folder_is_refused(ssh_host, put, said):
    (put / "z.tif").symlink_to("a.tif")
    with pytest.raises(DataError, match=r"z\.tif' is a symbolic link"):
        ssh_host.residents.describe(PATH, every, said.append)


def test_a_folder_that_is_a_link_is_followed(ssh_host, put, workdir, said):
    (workdir / "data/other").symlink_to(put.parent)
    assert len(ssh_host.residents.describe("data/other/images", every, said.append).files) == 3


def test_a_folder_without_anything_wanted_is_told(ssh_host, put, tmp_path, said):
    wanted = {PATH: lambda name: False, "data/none": every, f"{PATH}/a.tif": every}
    lost = note_residents(ssh_host, wanted, tmp_path, said.append)
    assert [(path, "nothing to use" in why, "there is no '" in why) for path, why in lost.items()] == [
        (PATH, True, False),
        ("data/none", False, True),
    ]


def test_a_job_sees_the_folder_itself_and_nothing_is_sent(ssh_host, put, workdir, tmp_path, said):
    note_residents(ssh_host, {PATH: every, f"{PATH}/a.tif": every}, tmp_path, said.append)
    entries = ssh_host.identify([("m", tmp_path / f"{PATH}{SUFFIX}"), ("n", tmp_path / f"{PATH}/a.tif{SUFFIX}")])
    folder = ssh_host.root / "jobs/j"
    mounts = ssh_host.stage(folder, entries, said.append)
    work = PurePosixPath("/job/work") / PATH
    assert mounts == (Mount(PurePosixPath(put), work), Mount(PurePosixPath(put / "a.tif"), work / "a.tif"))
    assert Path(folder / "work" / PATH).is_dir()
    assert not any(path.is_file() for path in (workdir / ".biom3d/store").rglob("*"))
    assert "4 file(s), 2.5 kB, lie on the server" in said


def test_without_containers_a_job_gets_a_link_to_each_file(ssh_host, put, tmp_path, said):
    note_residents(ssh_host, {PATH: every, f"{PATH}/a.tif": every}, tmp_path, said.append)
    entries = ssh_host.identify([("m", tmp_path / f"{PATH}{SUFFIX}"), ("n", tmp_path / f"{PATH}/a.tif{SUFFIX}")])
    links = plan_links(entries, ssh_host.stage(ssh_host.root / "jobs/j", entries, said.append))
    assert links == tuple((f"{PATH}/{path.name}", str(path)) for path in sorted(put.iterdir()))


def test_entries_are_those_of_a_copy_here(ssh_host, put, images, tmp_path, said):
    note_residents(ssh_host, {PATH: every}, tmp_path, said.append)
    there = ssh_host.identify([("m", tmp_path / f"{PATH}{SUFFIX}")])
    here = ssh_host.identify([(PATH, images)])
    assert [(entry.name, entry.key, entry.size) for entry in there] == [(e.name, e.key, e.size) for e in here]


@pytest.mark.parametrize("text", ["", "[]", '{"path": "x"}', '{"path": "x", "files": [{"name": 1}]}'])
def test_a_broken_manifest_is_told(tmp_path, text):
    (tmp_path / "m").write_text(text)
    with pytest.raises(DataError, match="does not say what lies on the server"):
        read_manifest(tmp_path / "m")
