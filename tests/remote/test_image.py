"""Images on their way to a host's engine: two real engines, the far one behind a real sshd."""

from pathlib import Path

import pytest

from biom3d.errors import ContainerError
from biom3d.events import Reporter
from biom3d.remote.image import reference_of, send_image
from tests.docker_engine import running_dockerd

pytestmark = pytest.mark.system
OLD, NEW = "biom3d-test/send:1", "biom3d-test/send:2"


@pytest.fixture(scope="module")
def images(docker_client, base_image):
    """Two versions of an image: the new one has one layer more."""
    for name, start in ((OLD, base_image), (NEW, OLD)):
        container = docker_client.containers.create(start, ["bash", "-c", f"echo {name} >/{name[-1]}"])
        container.start()
        container.wait()
        container.commit(*name.split(":"))
        container.remove()
    yield
    for name in (NEW, OLD):
        docker_client.images.remove(name)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """Another engine, with no image, that every account may use."""
    with running_dockerd(tmp_path_factory.mktemp("far"), beside=True) as client:
        socket = Path(client.api._custom_adapter.socket_path)
        socket.parent.chmod(0o755)
        socket.chmod(0o666)
        yield client, str(socket)


def test_an_image_is_sent_once_and_a_newer_one_only_with_its_new_layer(images, far, make_host, capfd):
    engine, socket = far
    host, report = make_host(engine_socket=socket), Reporter("remote")
    assert [send_image(host, name, report) for name in (OLD, NEW, NEW)] == [True, True, False]
    assert "2 of its 2 layers" in (told := capfd.readouterr().err)
    assert "1 of its 3 layers" in told
    out = engine.containers.run(NEW, ["cat", "/1", "/2"], network_mode="none", remove=True)
    assert out == f"{OLD}\n{NEW}\n".encode()


def test_an_image_that_is_not_here_is_told(docker_client, far, make_host):
    with pytest.raises(ContainerError, match=r"this machine: image 'biom3d-test/none:1' is not there; build it first"):
        send_image(make_host(engine_socket=far[1]), "biom3d-test/none:1", Reporter("remote"))


def test_a_row_of_the_table_stands_for_the_image_of_this_checkout():
    assert reference_of("cpu").startswith("biom3d-workflow/cpu:")
    assert reference_of("somebody/else:1") == "somebody/else:1"
