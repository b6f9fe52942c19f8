"""Save and load between two real engines; the images are small: the base and a file."""

import pytest

from biom3d.engine import find_image
from biom3d.errors import ContainerError, DataError, OutputError
from biom3d.events import Reporter
from biom3d.images.archive import layers_of, load_image, save_image
from biom3d.images.lock import base_id
from biom3d.images.table import load_table
from tests.docker_engine import running_dockerd

pytestmark = pytest.mark.system
REPORT = Reporter("images")
OLD, NEW = "biom3d-test/save:1", "biom3d-test/save:2"


@pytest.fixture(scope="module")
def images(docker_client, cpu_image):
    """Two versions of an image: the new one has one layer more."""
    table = load_table()
    base = f"{table.name}/base:{base_id(table, 'bookworm')}"
    for name, start in ((OLD, base), (NEW, OLD)):
        container = docker_client.containers.create(start, ["bash", "-c", f"echo {name} >/{name[-1]}"])
        container.start()
        container.wait()
        container.commit(*name.split(":"))
        container.remove()
    yield OLD, NEW
    for name in (NEW, OLD):
        docker_client.images.remove(name)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    """Another engine with no image."""
    with running_dockerd(tmp_path_factory.mktemp("receiver"), beside=True) as client:
        yield client


def test_an_image_arrives_and_a_newer_one_needs_only_its_new_layer(docker_client, images, receiver, tmp_path):
    whole = save_image(docker_client, OLD, tmp_path / "old.zst", (), REPORT)
    assert load_image(receiver, tmp_path / "old.zst", REPORT) == [OLD]
    part = save_image(docker_client, NEW, tmp_path / "new.zst", layers_of(receiver, OLD), REPORT)
    assert part < whole / 1000
    assert load_image(receiver, tmp_path / "new.zst", REPORT) == [NEW]
    assert find_image(receiver, NEW).id == find_image(docker_client, NEW).id
    assert (
        receiver.containers.run(NEW, ["cat", "/1", "/2"], network_mode="none", remove=True)
        == f"{OLD}\n{NEW}\n".encode()
    )


def test_layers_that_the_receiver_lacks_are_told(docker_client, images, receiver, tmp_path):
    for name in (NEW, OLD):
        if find_image(receiver, name):
            receiver.images.remove(name)
    save_image(docker_client, NEW, tmp_path / "new.zst", layers_of(docker_client, OLD), REPORT)
    with pytest.raises(ContainerError, match="leaves out layers that this machine does not have"):
        load_image(receiver, tmp_path / "new.zst", REPORT)


@pytest.mark.parametrize(("content", "message"), [(b"no archive", "damaged"), (b"", "empty or cut short")])
def test_a_file_that_is_no_archive_is_refused(docker_client, tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_image(docker_client, tmp_path / "file", REPORT)


def test_an_archive_cut_short_is_refused(docker_client, images, tmp_path):
    save_image(docker_client, OLD, tmp_path / "old.zst", (), REPORT)
    (tmp_path / "old.zst").write_bytes((tmp_path / "old.zst").read_bytes()[:-1000])
    with pytest.raises((DataError, ContainerError), match=r"old.zst"):
        load_image(docker_client, tmp_path / "old.zst", REPORT)


def test_a_full_disk_while_saving_leaves_the_old_file(docker_client, images, tmp_path, monkeypatch):
    import resource

    path = tmp_path / "old.zst"
    path.write_text("the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OutputError, match=r"old\.zst"):
            save_image(docker_client, OLD, path, (), REPORT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]
