"""Headers written by hand, read by the standard library and unpacked by tar."""

import io
import subprocess
import tarfile

import pytest

from biom3d.remote import tarstream


@pytest.mark.parametrize("length", [1, 99, 100, 101, 511, 512, 2000])
def test_names_of_any_length_are_read_as_written(length):
    name = b"n" * length
    content = tarstream.file_header(name, 3, 5) + b"abc" + tarstream.padding(3) + tarstream.END
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.getmembers()[0]
        assert (member.name, member.size, member.mtime, member.mode) == (name.decode(), 3, 5, 0o444)
        assert tar.extractfile(member).read() == b"abc"


def test_links_are_unpacked_by_tar_with_any_names(tmp_path):
    (tmp_path / "target").write_text("abc")
    names = [b"a b/it's", b"new\nline", b"\xff", b"-dash", b"d/" + b"x" * 150]
    content = tarstream.links((name, b"target") for name in names)
    subprocess.run(["tar", "-xf", "-"], input=content, cwd=tmp_path, check=True)
    assert (tmp_path / "target").stat().st_nlink == len(names) + 1


def test_a_link_to_a_long_name_is_unpacked(tmp_path):
    (tmp_path / ("y" * 180)).write_text("abc")
    content = tarstream.links(iter([(b"x" * 150, b"y" * 180)]))
    subprocess.run(["tar", "-xf", "-"], input=content, cwd=tmp_path, check=True)
    assert (tmp_path / ("x" * 150)).read_text() == "abc"


def test_a_size_that_tar_cannot_say_is_our_own_mistake():
    with pytest.raises(AssertionError):
        tarstream.file_header(b"n", tarstream.MAX_SIZE + 1, 0)
