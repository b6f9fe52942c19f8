import contextlib
import errno
import os

import pytest

from biom3d.errors import OutputError
from biom3d.files import atomic_path, output_error, write_json


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    with contextlib.suppress(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.name.endswith("a.nii.gz")
        temporary.touch()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EIO, "see the reason")],
)
def test_system_errors_say_what_to_do(tmp_path, number, words):
    with pytest.raises(OutputError, match=words), atomic_path(tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def test_the_message_names_the_file(tmp_path):
    assert f"'{tmp_path}'" in str(output_error(tmp_path, OSError(errno.ENOSPC, "full")))
