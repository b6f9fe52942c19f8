"""The command lines, run for real by small shells, with the worst names."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biom3d.errors import HostError
from biom3d.remote import commands
from tests.remote.server import names_in

HOSTILE = [
    " ",
    "a b",
    "it's",
    '"',
    "$HOME",
    "`id`",
    "$(id)",
    "a\nb",
    "-rf",
    "--",
    "*",
    "?[a]",
    "\\",
    "é",
    "🧫",
    "~",
    "#",
    "a;b",
]
HOSTILE += [os.fsdecode(b"\xff\xfe"), "\t", "|", "&", ">x", "{a,b}", "!x", "%s", "a\\nb", "'\"'"]
# A name of a file: one to three hostile parts, or anything that a file system takes.
names = st.one_of(
    st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=3).map("".join),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)
for_real = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sh(line: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["dash", "-c", line], input=stdin, capture_output=True)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


@pytest.fixture
def root(tmp_path):
    for name in ("store", "tmp", "jobs"):
        (tmp_path / "it's root" / name).mkdir(parents=True)
    return PurePosixPath(tmp_path / "it's root")


@given(names)
@for_real
def test_write_read_and_remove_take_any_name(name):
    with tempfile.TemporaryDirectory() as folder:
        path = PurePosixPath(folder) / "in" / name
        sh(commands.write_file(path, "tmp-000000000001", 3), b"abc")
        assert sh(commands.read_file(path)) == b"abc"
        assert names_in(path.parent) == [name]
        sh(commands.remove_folder(path))
        assert names_in(path.parent) == []


@given(st.lists(names, min_size=1, max_size=5, unique=True))
@for_real
def test_hashes_and_contents_are_those_of_any_names(parts):
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(parts):
            (Path(folder) / name).write_text(f"{number}")
        stdin = b"".join(os.fsencode(f"./{name}") + b"\0" for name in parts)
        odd = sh(commands.hash_odd_files(PurePosixPath(folder), "openssl"), stdin).splitlines()
        assert [line[:64].decode() for line in odd] == [
            hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(len(parts))
        ]
        assert sh(commands.send_files(PurePosixPath(folder), False), stdin) == b"".join(
            b"%d" % n for n in range(len(parts))
        )
        assert sh(commands.send_range(PurePosixPath(folder), parts[0], 0, 1, False)) == b"0"


@given(st.lists(names, min_size=1, max_size=5, unique=True))
@for_real
def test_a_listing_names_what_is_there_and_nothing_else(parts):
    with tempfile.TemporaryDirectory() as folder:
        for name in parts:
            (Path(folder) / name).write_text("abc")
        stdin = b"".join(os.fsencode(f"./{name}") + b"\0" for name in [*parts, "not there"])
        out = sh(commands.list_outputs(PurePosixPath(folder), "openssl"), stdin).partition(b"\0\0")[0]
        assert sorted(out.split(b"\0")) == sorted(b"f 3 ./" + os.fsencode(name) for name in parts)


@given(names)
@for_real
def test_a_folder_of_any_name_can_be_the_workdir(name):
    with tempfile.TemporaryDirectory() as folder:
        out = sh(commands.probe(f"{folder}/{name}"))
        assert Path(f"{folder}/{name}/.biom3d/store").is_dir()
        assert out.startswith(f"{commands.MARK}\n".encode())


def test_a_workdir_without_slash_is_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("data/lab", "~/other"):
        sh(commands.probe(text))
    assert (tmp_path / "data/lab/.biom3d/jobs").is_dir()
    assert (tmp_path / "other/.biom3d").stat().st_mode & 0o777 == 0o700


def test_what_was_abandoned_for_a_week_is_removed_and_nothing_else(tmp_path):
    sh(commands.probe(str(tmp_path)))
    for name, age in (("old", 8 * 86_400), ("young", 60)):
        folder = tmp_path / ".biom3d" / "tmp" / name
        folder.mkdir()
        os.utime(folder, (folder.stat().st_mtime - age,) * 2)
    sh(commands.probe(str(tmp_path)))
    assert names_in(tmp_path / ".biom3d" / "tmp") == ["young"]


def test_half_a_file_is_never_written_under_its_name(tmp_path):
    line = commands.write_file(PurePosixPath(tmp_path / "a"), "tmp-000000000001", 10)
    assert subprocess.run(["dash", "-c", line], input=b"half").returncode == 1
    assert names_in(tmp_path) == []


def hostile_stream(folder: Path) -> bytes:
    """Return a tar stream with links out, odd names that look like good hashes, and one honest file."""
    key = hashlib.sha256(b"good").hexdigest()
    line = f"x\n{key} *{folder}/secret/{key}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in (f"{key[:2]}/{key}", line, f"../../{key}", f"{folder}/{key}", "evil/x", f"ab/{'0' * 64}"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"good"))
        for name, target in (("link", str(folder / "secret")), ("up", "../.."), (f"ab/{'1' * 64}", "/etc/passwd")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return packed.getvalue()


def test_a_stream_with_links_and_odd_names_brings_only_whole_contents(root, tmp_path):
    key = hashlib.sha256(b"good").hexdigest()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / key).write_text("good")
    line = commands.receive_files(root, "up-" + "0" * 12, "openssl", is_packed=False, files=1)
    subprocess.run(["dash", "-c", line], input=hostile_stream(tmp_path), capture_output=True)
    stored = [path.relative_to(Path(root, "store")) for path in Path(root, "store").rglob("*") if not path.is_dir()]
    assert {str(path) for path in stored} <= {f"{key[:2]}/{key}", key}
    assert not any(path.is_symlink() for path in Path(root, "store").rglob("*"))
    assert names_in(Path(root, "tmp")) == []
    assert (tmp_path / "secret" / key).stat().st_nlink == 1


def test_a_name_with_a_zero_byte_is_refused():
    with pytest.raises(HostError, match="zero byte"):
        commands.read_file(PurePosixPath("a\0b"))


@pytest.mark.parametrize("line", [commands.dial_engine(None), commands.dial_engine("/it's/socket")])
def test_without_an_engine_the_line_says_so(line, tmp_path):
    line = line.replace(":/usr/local/bin:/usr/bin:/bin", "")
    (tmp_path / "sh").symlink_to("/bin/sh")
    done = subprocess.run([shutil.which("dash"), "-c", line], env={"PATH": str(tmp_path)}, capture_output=True)
    assert (done.returncode, done.stderr) == (127, b"neither docker nor podman is there\n")


def test_every_command_stands_in_the_manual():
    manual = (Path(commands.__file__).parents[2] / "docs" / "remote.md").read_text()
    ours = [name for name, thing in vars(commands).items() if getattr(thing, "__module__", "") == commands.__name__]
    assert [name for name in ours if not name.startswith("_") and f"`{name}`" not in manual] == ["quote"]
