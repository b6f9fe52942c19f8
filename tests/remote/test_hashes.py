"""Local files and what they have: read once, read again when anything changed."""

import hashlib
import os
import threading

import pytest

from biom3d.errors import DataError
from biom3d.remote import hashes
from biom3d.remote.hashes import Cache, State, hash_file, identify


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache" / "hashes.sqlite")


@pytest.fixture
def settled(monkeypatch):
    """Files that changed a moment ago count as settled."""
    monkeypatch.setattr(hashes, "SETTLED_NS", -10_000_000_000)


@pytest.fixture
def reads(monkeypatch):
    """Paths that were really read."""
    seen = []
    real = hashes.hash_file
    monkeypatch.setattr(hashes, "hash_file", lambda path: (seen.append(path), real(path))[1])
    return seen


def test_a_key_is_the_sha256_of_the_content(tmp_path, cache):
    (tmp_path / "a").write_bytes(b"x")
    entry = identify([("data/a", tmp_path / "a")], cache)[0]
    assert (entry.name, entry.key, entry.size) == ("data/a", hashlib.sha256(b"x").hexdigest(), 1)


def test_folders_are_walked_and_sorted_by_name(tmp_path, cache):
    for name in ("b", "a/c", "a/b"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(name)
    entries = identify([("z", tmp_path / "d")], cache)
    assert [entry.name for entry in entries] == ["z/a/b", "z/a/c", "z/b"]


def test_links_are_followed(tmp_path, cache):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [entry.name for entry in identify([("n", tmp_path / "link")], cache)] == ["n/a"]


def test_a_folder_within_itself_is_refused(tmp_path, cache):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "again").symlink_to(tmp_path / "d")
    with pytest.raises(DataError, match="link to a folder that it lies in"):
        identify([("d", tmp_path / "d")], cache)


def test_what_is_not_there_is_told(tmp_path, cache):
    with pytest.raises(DataError, match="No such file"):
        identify([("a", tmp_path / "none")], cache)


def test_what_is_no_file_is_refused(tmp_path, cache):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        identify([("a", tmp_path / "pipe")], cache)


def test_each_file_is_read_once(tmp_path, cache, reads, settled):
    (tmp_path / "d").mkdir()
    for number in range(100):
        (tmp_path / f"d/{number}").write_text("x")
    first = identify([("d", tmp_path / "d")], cache)
    assert identify([("d", tmp_path / "d")], cache) == first
    assert len(reads) == 100


def test_files_are_told_apart_however_they_are_shared_among_threads(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(hashes, "BATCH_FILES", 3)
    monkeypatch.setattr(hashes, "BATCH_BYTES", 40)
    contents = [os.urandom(size) for size in (0, 1, 100, 5, 30, 30, 7, 8, 9, 10, 0)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number:02d}").write_bytes(content)
    inputs = [(f"{number:02d}", tmp_path / f"{number:02d}") for number in range(len(contents))]
    found = [(entry.key, entry.size) for entry in identify(inputs, cache)]
    assert found == [(hashlib.sha256(content).hexdigest(), len(content)) for content in contents]


def test_a_file_that_changed_a_moment_ago_is_read_again(tmp_path, cache, reads):
    (tmp_path / "a").write_text("x")
    for _ in range(2):
        identify([("a", tmp_path / "a")], cache)
    assert len(reads) == 2


@pytest.mark.parametrize("change", ["content", "same size and times", "other file of that name"])
def test_a_changed_file_is_seen(tmp_path, cache, settled, change):
    path = tmp_path / "a"
    path.write_text("one")
    before, facts = identify([("a", path)], cache)[0].key, path.stat()
    if change == "other file of that name":
        path.rename(tmp_path / "kept")
    path.write_text("two")
    if change != "content":
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert identify([("a", path)], cache)[0].key != before


def test_a_file_that_changes_all_the_time_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("x")
    real = hashes._digest

    def digest(file):
        with open(path, "a") as writer:
            writer.write("x")
        return real(file)

    monkeypatch.setattr(hashes, "_digest", digest)
    with pytest.raises(DataError, match="changes while it is read"):
        hash_file(path)


def test_names_that_are_no_text_are_kept(tmp_path, cache, settled):
    name = os.fsdecode(b"\xff\n'")
    (tmp_path / name).write_text("x")
    for _ in range(2):
        assert identify([(f"d/{name}", tmp_path / name)], cache)[0].name == f"d/{name}"


def test_without_a_place_for_the_cache_files_are_read_each_time(tmp_path, reads):
    (tmp_path / "file").write_text("x")
    cache = Cache(tmp_path / "file" / "cache")
    for _ in range(2):
        identify([("a", tmp_path / "file")], cache)
    assert len(reads) == 2


def test_a_damaged_cache_is_no_obstacle(tmp_path, reads):
    (tmp_path / "file").write_text("x")
    (tmp_path / "cache").write_bytes(b"this is no database" * 100)
    assert identify([("a", tmp_path / "file")], Cache(tmp_path / "cache"))[0].size == 1


def test_threads_and_caches_share_one_file(tmp_path, settled):
    caches = [Cache(tmp_path / "c") for _ in range(4)]

    def learn(number):
        for index in range(20):
            caches[number].learn([(f"{number}-{index}", State(1, 1, 1, 1), "k")])

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {f"{number}-{index}": State(1, 1, 1, 1) for number in range(4) for index in range(20)}
    assert len(caches[0].find(names)) == 80
