import hashlib
import subprocess
import sys
import zipfile

import pytest

from biom3d.errors import ConfigError
from biom3d.events import Reporter
from biom3d.images.table import load_table
from biom3d.images.wheels import build_packages, checked_wheels, fetch, read_requirements

REPORT = Reporter("images")
BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, info = "tiny-1.0-py3-none-any.whl", "tiny-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels in place of an index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.get(name, "/dev/null"))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL")
    return folder


def make_wheel(folder, name="tiny", version="1.0"):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def write_lock(tmp_path, digest, name="tiny"):
    path = tmp_path / "row.txt"
    path.write_text(f"{name}==1.0 \\\n    --hash=sha256:{digest}\n")
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def get(lock, folder):
    return fetch(lock, folder, "3.11", (), REPORT)


def test_missing_wheels_are_fetched_and_found_again_without_an_index(tmp_path, index, monkeypatch):
    wheel = make_wheel(index)
    lock = write_lock(tmp_path, sha256(wheel))
    first = get(lock, tmp_path / "cache")
    wheel.unlink()
    assert get(lock, tmp_path / "cache") == first == [tmp_path / "cache" / wheel.name]


def test_a_wheel_that_nobody_has_is_named(tmp_path, index):
    with pytest.raises(ConfigError, match=r"no wheel of tiny==1\.0 to be had"):
        get(write_lock(tmp_path, "0" * 64), tmp_path / "cache")


def test_a_wheel_with_another_hash_in_the_index_is_refused(tmp_path, index):
    make_wheel(index)
    with pytest.raises(ConfigError, match=r"the index serves another file than the lock for tiny==1\.0"):
        get(write_lock(tmp_path, "0" * 64), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.whl"))


def test_a_wheel_changed_on_disk_is_refused(tmp_path, index):
    lock = write_lock(tmp_path, sha256(make_wheel(index)))
    path = get(lock, tmp_path / "cache")[0]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="is not the file of the lock"):
        checked_wheels(tmp_path / "cache", read_requirements(lock))


@pytest.mark.parametrize("line", ["tiny>=1.0", "tiny==1.0", "tiny --hash=sha256:" + "0" * 64])
def test_a_lock_without_version_or_hash_is_refused(tmp_path, line):
    (tmp_path / "row.txt").write_text(line + "\n")
    with pytest.raises(ConfigError, match="has no exact version or no hash"):
        read_requirements(tmp_path / "row.txt")


def test_a_package_without_a_wheel_is_built_from_its_source(tmp_path, index):
    folder = tmp_path / "tiny-1.0"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n'
    )
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (folder / "backend.py").write_text(BACKEND)
    archive = index / "tiny-1.0.tar.gz"
    subprocess.run(["tar", "czf", archive, "-C", tmp_path, "tiny-1.0"], check=True)
    lock = write_lock(tmp_path, sha256(archive))
    found = fetch(lock, tmp_path / "cache", "3.11", ("tiny",), REPORT)
    assert [path.name for path in found] == ["tiny-1.0-py3-none-any.whl"]


def test_our_package_is_the_same_wheel_every_time(checkout, tmp_path):
    table = load_table(checkout)
    first = build_packages(table, "cpu", tmp_path / "a")[0]
    second = build_packages(table, "cpu", tmp_path / "b")[0]
    assert sha256(first) == sha256(second)


def test_every_committed_lock_pins_the_torch_of_the_table(table):
    for name, row in table.images.items():
        if not row.reference:
            found = {item.name: item.version for item in read_requirements(table.lock_of(name))}
            assert found["torch"] == row.torch, name


def test_a_full_disk_while_fetching_is_named(tmp_path):
    """The wheel folder is a file system of 64 KB in a name space of its own; the wheel has 1 MB."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = make_wheel(folder)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("big.bin", bytes(2**20))
    lock = write_lock(tmp_path, sha256(wheel))
    (tmp_path / "cache").mkdir()
    code = (
        "import sys; from pathlib import Path; from biom3d.images.wheels import fetch\n"
        "from biom3d.cli import run_step, step_parser\n"
        f"do = lambda args, report: fetch(Path({str(lock)!r}), Path('cache'), '3.11', (), report)\n"
        "sys.exit(run_step('images', step_parser('images', ''), do, []))"
    )
    script = f'mount -t tmpfs -o size=64k tmpfs cache && PIP_NO_INDEX=1 PIP_FIND_LINKS={folder} "$@"'
    command = ["unshare", "--mount", "--map-root-user", "bash", "-c", script, "bash", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("images: error: the disk is full while fetching wheels")
    assert "Traceback" not in done.stderr
