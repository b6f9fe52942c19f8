"""OME-Zarr behind a real web server on loopback: only what is needed travels, once; all that goes wrong is one line."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from biom3d import check
from biom3d.errors import ConfigError, DataError
from biom3d.io import list_volumes, open_volume, read_header, read_labels, read_volume, volume_name, write_volume
from biom3d.io.ome_zarr import write_image
from tests.web_server import Server, serve

SHAPE = (1, 64, 20, 30)  # two chunks along z


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def array(make) -> np.ndarray:
    return make(*SHAPE)


@pytest.fixture
def server(tmp_path, array, header) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    write_volume(folder / "a.ome.zarr", array, header)
    with serve(folder) as server:
        yield server


@pytest.fixture
def url(server) -> str:
    return f"http://127.0.0.1:{server.server_port}/a.ome.zarr"


def test_only_the_chunks_that_are_asked_for_travel_and_each_once(server, url, array):
    assert read_header(url).spacing_um == (0.3, 0.2, 0.1)
    with open_volume(url) as lazy:
        assert server.chunks() == []
        for planes in (slice(0, 2), slice(5, 9)):
            np.testing.assert_array_equal(lazy.read(planes.start, planes.stop), array[:, planes])
        assert server.chunks() == ["/a.ome.zarr/0/c/0/0/0"]
        np.testing.assert_array_equal(lazy.read(0, 64), array)
        assert server.chunks() == [f"/a.ome.zarr/0/c/{place}/0/0" for place in range(2)]


def test_what_was_kept_goes_with_the_volume(url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    with open_volume(url) as lazy:
        lazy.read(0, 1)
        assert list((tmp_path / "kept").rglob("c/0/0/0"))
    assert not list((tmp_path / "kept").iterdir())


def test_labels_are_named_after_the_image(server, url, tmp_path, array, header):
    write_image(tmp_path / "served/a.ome.zarr/labels/nuclei", array, replace(header, shape=SHAPE), "0.5")
    for name in (f"{url}:labels/nuclei", f"{url}/labels/nuclei"):
        np.testing.assert_array_equal(read_labels(name).array, array)
        assert volume_name(name) == "a"


def test_the_older_version_is_read_too(server, url, tmp_path, array, header):
    write_image(tmp_path / "served/b.zarr", array, replace(header, shape=SHAPE), "0.4")
    np.testing.assert_array_equal(read_volume(url.replace("a.ome", "b")).array, array)


def test_check_looks_at_it_and_fetches_each_chunk_once(server, url, capsys):
    assert check.main(["--img_path", url, "--strict"]) == 0
    assert "64 x 20 x 30" in capsys.readouterr().out
    assert len(server.chunks()) == 2


def test_a_bucket_is_read_without_an_account(server, url, array, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url.rpartition("/")[0])
    np.testing.assert_array_equal(read_volume("s3://a.ome.zarr").array, array)  # the bucket is the folder
    assert {who for _, who in server.asked} == {None}


def test_credentials_are_taken_from_the_usual_file(server, url, array, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url.rpartition("/")[0])
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[lab]\naws_access_key_id = KEY\naws_secret_access_key = SECRET\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    np.testing.assert_array_equal(read_volume("s3://a.ome.zarr").array, array)
    assert all(who.startswith("AWS4-HMAC-SHA256 Credential=KEY/") for _, who in server.asked)


def test_what_is_not_there_is_told(url):
    with pytest.raises(DataError, match=r"nothing is there on .127.0.0.1:.*check the URL"):
        read_header(url.replace("a.ome", "b.ome"))


@pytest.mark.parametrize(("status", "said"), [(403, "does not let this account read it"), (404, "nothing is there")])
def test_what_a_server_refuses_is_told(server, url, status, said):
    server.answer = status
    with pytest.raises(DataError, match=said) as raised:
        read_header(url)
    assert "\n" not in str(raised.value)


def test_a_server_that_fails_on_the_way_is_told(server, url):
    with open_volume(url) as lazy:
        server.answer = 500
        with pytest.raises(DataError, match=r"'127.0.0.1:.* answered 500"):
            lazy.read(0, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("http://127.0.0.1:9/a.zarr", "'127.0.0.1:9' cannot be reached: nothing answers at its port"),
        ("https://me:word@127.0.0.1/a.zarr", "a password does not belong into a URL"),
        ("https://127.0.0.1/a.tif", "a URL leads to an OME-Zarr image, whose name ends in .zarr"),
    ],
)
def test_what_cannot_be_reached_is_one_line_with_the_url(name, said, capsys):
    assert check.main(["--img_path", name]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if said in line]) == 1
    assert any(f"'{name}'" in line for line in told)


def test_an_image_at_a_url_is_a_list_of_one(url):
    assert [volume_name(path) for path in list_volumes(url)] == ["a"]


def test_without_obstore_it_says_what_to_install(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError, match=r"a URL need obstore; install it: pip install 'biom3d-workflow\[urls\]'"):
        read_header(url)
