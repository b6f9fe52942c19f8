"""What every host does: the same tests on this machine and over SSH."""

import subprocess
from pathlib import Path

import pytest

from biom3d.errors import DataError, HostError
from biom3d.remote import commands
from biom3d.remote.job import RUN, STEPS
from biom3d.remote.local import LocalHost
from tests.remote.server import names_in


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.system)])
def host(request, tmp_path):
    if request.param == "local":
        host = LocalHost(tmp_path / "results" / ".biom3d")
        yield host
        host.close()
    else:
        yield request.getfixturevalue("ssh_host")


def job_folder(host):
    return host.root / "jobs" / "job"


def test_a_command_answers(host):
    done = host.run("cat; echo wrong >&2; exit 3", stdin=b"in")
    assert (done.code, done.out, done.err) == (3, b"in", b"wrong\n")


def test_a_command_that_takes_too_long_is_given_up(host):
    with pytest.raises(HostError):
        host.run("sleep 20", timeout_s=0.2)


def test_the_account_is_the_one_that_owns_what_is_written(host):
    host.write(host.root / "jobs" / "x", b"")
    facts = Path(host.root / "jobs" / "x").stat()
    assert host.user() == (facts.st_uid, facts.st_gid)


def test_free_space_is_that_of_the_disk(host):
    assert 0 < host.free_bytes() < 2**60


@pytest.mark.parametrize("name", ["a", "deep/er/a b", "it's $HOME", "new\nline", "-rf", "é🧫"])
def test_a_small_file_is_read_as_it_was_written(host, name):
    path = host.root / "jobs" / name
    host.write(path, b"\x00one\n")
    host.write(path, b"two")
    assert host.read(path) == b"two"
    assert names_in(path.parent) == [path.name]


def test_both_scripts_of_a_job_are_written_and_replaced(host):
    for steps, run in ((b"\x00one\n", b"a" * 100_000), (b"", b"two")):
        host.write_scripts(job_folder(host), steps, run)
        assert (host.read(job_folder(host) / STEPS), host.read(job_folder(host) / RUN)) == (steps, run)
    assert names_in(job_folder(host)) == sorted([STEPS, RUN])


@pytest.mark.system
def test_scripts_that_do_not_arrive_whole_replace_nothing(ssh_host):
    folder = job_folder(ssh_host)
    ssh_host.write_scripts(folder, b"steps", b"run")
    done = ssh_host.run(commands.write_scripts(folder, "tmp-" + "0" * 12, 5, 4), stdin=b"stepsru")
    assert done.code
    assert (ssh_host.read(folder / STEPS), ssh_host.read(folder / RUN)) == (b"steps", b"run")
    assert names_in(folder) == sorted([STEPS, RUN])


def test_a_file_that_is_not_there_is_nothing(host):
    assert host.read(host.root / "jobs" / "none") is None


def test_equal_contents_have_equal_keys_only_if_nothing_changed(host, tmp_path):
    (tmp_path / "a").write_text("x")
    first = host.identify([("a", tmp_path / "a")])
    assert host.identify([("a", tmp_path / "a")]) == first
    (tmp_path / "a").write_text("yy")
    assert host.identify([("a", tmp_path / "a")])[0].key != first[0].key


def test_an_input_that_is_not_there_is_told(host, tmp_path):
    with pytest.raises(DataError, match="none"):
        host.identify([("a", tmp_path / "none")])


def test_inputs_can_be_read_where_the_job_works_or_by_a_mount(host, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b").write_text("x")
    folder = job_folder(host)
    mounts = host.stage(folder, host.identify([("data", tmp_path / "in"), ("/abs/b", tmp_path / "in" / "a b")]), print)
    by_mount = {str(mount.target): Path(mount.source) for mount in mounts}
    staged = Path(folder) / "work" / "data" / "a b"
    mounted = next((path for target, path in by_mount.items() if target.endswith(("data/a b", "data"))), staged)
    assert (mounted / "a b" if mounted.is_dir() else mounted).read_text() == "x"
    assert by_mount["/abs/b"].read_text() == "x"


def test_staging_twice_is_fine(host, tmp_path):
    (tmp_path / "a").write_text("x")
    entries = host.identify([("a", tmp_path / "a")])
    assert host.stage(job_folder(host), entries, print) == host.stage(job_folder(host), entries, print)


def make_outputs(host, account):
    work = Path(job_folder(host)) / "work"
    assert host.run(f"mkdir -p '{work}/out/a b' && cd '{work}' && echo 1 >'out/a b/1' && echo 2 >single").code == 0


def test_outputs_come_to_their_places_and_missing_ones_are_named(host, tmp_path, account):
    make_outputs(host, account)
    target = tmp_path / "results"
    outputs = [(name, target / name) for name in ("out", "single", "none")]
    assert host.collect(job_folder(host), outputs, print) == ("none",)
    assert (target / "out" / "a b" / "1").read_text() == "1\n"
    assert (target / "single").read_text() == "2\n"


def test_an_output_replaces_what_was_there(host, tmp_path, account):
    make_outputs(host, account)
    target = tmp_path / "results"
    (target / "out").mkdir(parents=True)
    (target / "out" / "old").touch()
    (target / "single").write_text("old")
    host.collect(job_folder(host), [(name, target / name) for name in ("out", "single")], print)
    assert names_in(target / "out") == ["a b"]
    assert (target / "single").read_text() == "2\n"


def test_a_removed_job_is_gone_and_removing_it_again_is_fine(host, account):
    make_outputs(host, account)
    host.remove(job_folder(host))
    host.remove(job_folder(host))
    assert not Path(job_folder(host)).exists()


@pytest.mark.system
def test_the_engine_answers(host, account, docker_client):
    subprocess.run(["usermod", "-aG", "docker", account.name], check=True)
    try:
        assert host.engine().version()["ApiVersion"] == docker_client.version()["ApiVersion"]
    finally:
        subprocess.run(["gpasswd", "-d", account.name, "docker"], check=True, capture_output=True)
