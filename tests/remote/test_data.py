from pathlib import Path, PurePosixPath

import pytest

from biom3d.errors import ConfigError, DataError
from biom3d.remote.__main__ import main
from biom3d.remote.data import (
    CONTENT,
    dataset_rows,
    get,
    model_rows,
    note_residents,
    relative_name,
    remove_sent,
    send_dataset,
    send_model,
)
from biom3d.remote.local import LocalHost
from biom3d.remote.questions import drop_unused
from tests.remote.server import names_in
from tests.remote.test_verbs import profile

__all__ = ["profile"]
pytestmark = pytest.mark.system  # a real sshd and an account: as root


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "my images"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.tif", "deep/b é.tif"):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


@pytest.fixture
def workdir(ssh_host):
    return Path(ssh_host.root.parent)


def test_a_data_set_arrives_under_its_name(ssh_host, images, workdir, said):
    place = send_dataset(ssh_host, "cells", images, images, said.append)
    assert Path(place) == workdir / "data/cells"
    assert names_in(place) == [CONTENT, "images", "masks"]
    assert (workdir / "data/cells/masks/deep/b é.tif").read_bytes() == (images / "deep/b é.tif").read_bytes()


def test_nothing_is_left_behind(ssh_host, images, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    assert names_in(ssh_host.root / "jobs") == []


def test_the_same_data_set_is_not_sent_twice(ssh_host, images, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    said.clear()
    send_dataset(ssh_host, "cells", images, None, said.append)
    assert said == ["the same is there already; nothing was sent"]


def test_what_lacks_of_a_data_set_that_was_sent_is_put_back(ssh_host, images, workdir, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    (workdir / "data/cells/images/a.tif").unlink()
    said.clear()
    send_dataset(ssh_host, "cells", images, None, said.append)
    assert "is not whole any more (missing: images/a.tif); putting it right" in said[0]
    assert (workdir / "data/cells/images/a.tif").read_bytes() == (images / "a.tif").read_bytes()
    assert names_in(ssh_host.root / "jobs") == []


def test_what_was_changed_or_added_is_named_and_stays_until_repair_is_asked_for(ssh_host, images, workdir, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    one, more = workdir / "data/cells/images/a.tif", workdir / "data/cells/images/more"
    one.chmod(0o644)
    one.write_bytes(b"edited there")
    more.touch()
    with pytest.raises(ConfigError, match=r"changed: images/a\.tif; not of it: images/more\); --repair makes it so"):
        send_dataset(ssh_host, "cells", images, None, said.append)
    assert (one.read_bytes(), more.exists()) == (b"edited there", True)
    send_dataset(ssh_host, "cells", images, None, said.append, is_repaired=True)
    assert (one.read_bytes(), more.exists()) == ((images / "a.tif").read_bytes(), False)


def test_get_and_location_server_say_that_a_data_set_is_not_what_was_sent(ssh_host, images, workdir, tmp_path, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    (workdir / "data/cells/images/a.tif").unlink()
    said.clear()
    get(ssh_host, "data/cells/images/deep", tmp_path, said.append)
    (tmp_path / "project").mkdir()
    note_residents(ssh_host, {"data/cells/images": lambda name: True}, tmp_path / "project", said.append)
    told = "warning: 'data/cells' on server is not what was sent there (missing: images/a.tif)"
    assert len([line for line in said if line.startswith(told)]) == 2


def test_a_data_set_that_was_sent_is_removed_with_its_bytes_and_nothing_else_is(ssh_host, images, workdir, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    (workdir / "data/own").mkdir()
    with pytest.raises(ConfigError, match="was not brought by 'biom3d remote send'"):
        remove_sent(ssh_host, "data/own")
    remove_sent(ssh_host, "data/cells")
    assert names_in(workdir / "data") == ["own"]
    assert [path for path in (workdir / ".biom3d/store").rglob("*") if path.is_file()] == []


def test_a_data_set_that_a_job_has_is_not_removed(ssh_host, images, workdir, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    (workdir / ".biom3d/jobs/abc/work/data/cells/images").mkdir(parents=True)
    with pytest.raises(ConfigError, match="job abc uses 'data/cells'"):
        remove_sent(ssh_host, "data/cells")
    assert names_in(workdir / "data") == ["cells"]


def test_another_data_set_is_not_overwritten(ssh_host, images, workdir, said):
    (workdir / "data/cells/images").mkdir(parents=True)
    (workdir / "data/cells/images/x").touch()
    with pytest.raises(ConfigError, match="another data set"):
        send_dataset(ssh_host, "cells", images, None, said.append)
    assert names_in(workdir / "data/cells/images") == ["x"]


def test_a_data_set_that_was_sent_survives_cleaning(ssh_host, images, workdir, said):
    keys = {entry.key for entry in ssh_host.identify([("images", images)])}
    send_dataset(ssh_host, "cells", images, None, said.append)
    names = b"".join(f"{key[:2]}/{key}\0".encode() for key in keys)
    assert ssh_host.run(drop_unused(ssh_host.root), stdin=names).code == 0
    assert all((workdir / f".biom3d/store/{key[:2]}/{key}").exists() for key in keys)


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", ".biom3d", "a/b"])
def test_a_name_that_is_a_path_is_refused(ssh_host, images, said, name):
    with pytest.raises(ConfigError, match="no name"):
        send_dataset(ssh_host, name, images, None, said.append)


def test_a_model_arrives_with_its_folds_and_nothing_else(ssh_host, images, workdir, tmp_path, said):
    for name in ("fold_0", "fold_1", "fold_2.partial"):
        (tmp_path / "logs/m" / name).mkdir(parents=True)
        (tmp_path / "logs/m" / name / "model.pt").write_text(name)
    place = send_model(ssh_host, "m", tmp_path / "logs/m", said.append)
    assert Path(place) == workdir / "logs/m"
    assert names_in(place) == [CONTENT, "fold_0", "fold_1"]
    assert (workdir / "logs/m/fold_1/model.pt").read_text() == "fold_1"


def test_a_folder_without_folds_is_no_model(ssh_host, images, said):
    with pytest.raises(DataError, match="holds no fold_0"):
        send_model(ssh_host, "m", images, said.append)


def test_an_empty_folder_is_refused(ssh_host, images, tmp_path, said):
    (tmp_path / "none").mkdir()
    for masks in (tmp_path / "none", tmp_path / "missing"):
        with pytest.raises(DataError, match="masks"):
            send_dataset(ssh_host, "cells", images, masks, said.append)


def test_a_file_comes_to_a_name_and_a_folder_into_a_folder(ssh_host, images, tmp_path, said):
    send_dataset(ssh_host, "cells", images, None, said.append)
    get(ssh_host, "data/cells/images/a.tif", tmp_path / "one.tif", said.append)
    arrived = get(ssh_host, "data/cells", tmp_path, said.append)
    assert (tmp_path / "one.tif").read_bytes() == (images / "a.tif").read_bytes()
    assert arrived == tmp_path / "cells"
    assert names_in(arrived / "images") == ["a.tif", "deep"]


def test_getting_changes_nothing_on_the_host(ssh_host, workdir, tmp_path, said):
    (workdir / "notes.txt").write_text("x")
    before = (workdir / "notes.txt").stat()
    get(ssh_host, "notes.txt", tmp_path / "here", said.append)
    after = (workdir / "notes.txt").stat()
    assert (before.st_mtime_ns, before.st_mode, before.st_nlink) == (after.st_mtime_ns, after.st_mode, after.st_nlink)
    assert names_in(ssh_host.root / "jobs") == []


def test_what_is_here_is_not_overwritten(ssh_host, workdir, tmp_path, said):
    (workdir / "a").write_text("theirs")
    (tmp_path / "a").write_text("ours")
    with pytest.raises(ConfigError, match="not overwritten"):
        get(ssh_host, "a", tmp_path, said.append)
    assert (tmp_path / "a").read_text() == "ours"


def test_what_is_not_there_is_told(ssh_host, tmp_path, said):
    with pytest.raises(DataError, match="there is no"):
        get(ssh_host, "none", tmp_path / "x", said.append)
    assert names_in(ssh_host.root / "jobs") == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "", ".", "a/../../b", "/w"])
def test_a_path_out_of_the_working_folder_is_refused(path):
    with pytest.raises(ConfigError):
        relative_name(path, PurePosixPath("/w"))


def test_data_sets_and_models_are_listed(ssh_host, images, workdir, said):
    send_dataset(ssh_host, "cells", images, images, said.append)
    (workdir / "logs/my model/fold_0").mkdir(parents=True)
    (workdir / "logs/my model/fold_0/x").write_text("x")
    assert [row[:3] for row in dataset_rows(ssh_host)] == [("cells", "2", "2")]
    assert [row[:2] for row in model_rows(ssh_host)] == [("my model", "1")]


def test_a_new_host_has_no_data(ssh_host):
    assert dataset_rows(ssh_host) == model_rows(ssh_host) == []


def test_nothing_is_sent_to_this_machine(tmp_path, images, said):
    with pytest.raises(ConfigError, match="this machine"):
        send_dataset(LocalHost(tmp_path), "cells", images, None, said.append)


def test_the_commands_send_list_and_get(profile, images, tmp_path, capsys):
    assert main(["send", "gpu", "cells", "--images", str(images)]) == 0
    assert main(["datasets", "gpu"]) == main(["models", "gpu"]) == 0
    assert main(["get", "gpu", "data/cells/images/a.tif", str(tmp_path / "back.tif")]) == 0
    assert (tmp_path / "back.tif").read_bytes() == (images / "a.tif").read_bytes()
    assert "cells    2       0" in capsys.readouterr().out
