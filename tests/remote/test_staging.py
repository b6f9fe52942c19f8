"""Inputs on their way to a real SSH server: sent once, whole, whatever happens on the line and on the disk."""

import hashlib
import os
import re
import subprocess
import threading
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biom3d.errors import DataError, HostError, TransferError
from biom3d.remote import commands, site, template
from biom3d.remote.host import Entry
from biom3d.remote.staging import BATCH_BYTES, plan_mounts, plan_sending
from tests.remote.server import PASSWORD, names_in, run_client, wait_for

pytestmark = pytest.mark.system  # a real sshd, accounts, name spaces: as root

MIB = 2**20
KEY = "0" * 64


def entry(name: str, size: int = 1, key: str = KEY) -> Entry:
    return Entry(name, Path("/here") / name, key, size)


@pytest.fixture
def data(tmp_path):
    """A folder for inputs."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def stage(host, data, say=lambda line: None, job="job"):
    folder = host.root / "jobs" / job
    return folder, host.stage(folder, host.identify([("data", data)]), say)


def on_host(folder) -> Path:
    """Return the job's working folder: the server is this machine, and the tests are root."""
    return Path(folder) / "work"


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def left_over(host) -> list[str]:
    return names_in(host.root / "tmp")


def noise(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)


def test_files_arrive_with_their_names_and_contents(ssh_host, data):
    for name in ("a", "b c/it's", "b c/d/empty"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name if "empty" not in name else "")
    folder, mounts = stage(ssh_host, data)
    assert tree(on_host(folder) / "data") == tree(data)
    assert mounts == ()
    assert left_over(ssh_host) == []


def test_hostile_names_arrive(ssh_host, data):
    hostile = ["new\nline", "-rf", "$HOME", "`id`", "a'b\"c", "[x]*?", "\\", "é🧫", "x" * 200, os.fsdecode(b"\xff\xfe")]
    for name in hostile:
        (data / name).write_bytes(os.fsencode(name))
    folder, _ = stage(ssh_host, data)
    assert tree(on_host(folder) / "data") == tree(data)


def test_five_thousand_small_files_arrive_and_a_second_time_nothing_moves(make_host, data, proxy):
    host = make_host(port=proxy.port)
    for number in range(5000):
        (data / f"{number:04}").write_bytes(noise(100, number % 251) + bytes([number >> 8, number & 255]))
    folder, _ = stage(host, data)
    assert tree(on_host(folder) / "data") == tree(data)
    sent = proxy.up
    folder, _ = stage(host, data, job="second")
    assert len(names_in(on_host(folder) / "data")) == 5000
    assert proxy.up - sent < 5000 * 120  # names and hashes, no contents


@pytest.mark.parametrize("stored", [1, site.FEW + 1])
def test_many_files_of_which_one_is_there_lack_the_others(ssh_host, data, stored):
    for number in range(600):
        (data / f"{number}").write_text(f"{number}")
    entries = ssh_host.identify([("data", data)])
    ssh_host.stage(ssh_host.root / "jobs" / "job", entries[:stored], print)
    assert {entry.key for entry in ssh_host.lacking(entries)} == {entry.key for entry in entries[stored:]}


def test_a_big_file_arrives(ssh_host, data):
    (data / "big").write_bytes(noise(70 * MIB + 12_345))
    folder, _ = stage(ssh_host, data)
    assert tree(on_host(folder) / "data") == tree(data)
    assert left_over(ssh_host) == []


def test_the_same_content_under_another_name_is_not_sent_again(make_host, data, proxy):
    host = make_host(port=proxy.port)
    (data / "a").write_bytes(noise(3 * MIB))
    stage(host, data)
    sent = proxy.up
    (data / "a").rename(data / "b")
    folder, _ = stage(host, data, job="second")
    assert (on_host(folder) / "data" / "b").stat().st_size == 3 * MIB
    assert proxy.up - sent < 20_000


def test_masks_are_packed_on_the_way(make_host, data, proxy):
    (data / "mask").write_bytes(bytes(20 * MIB))
    (data / "big mask").write_bytes(bytes(70 * MIB) + b"1")
    folder, _ = stage(make_host(port=proxy.port), data)
    assert tree(on_host(folder) / "data") == tree(data)
    assert proxy.up < MIB


def test_absolute_names_come_by_mounts(ssh_host, data):
    (data / "a").write_text("x")
    folder = ssh_host.root / "jobs" / "job"
    mounts = ssh_host.stage(folder, ssh_host.identify([(str(data), data)]), print)
    assert [(str(mount.target), mount.read_only) for mount in mounts] == [(str(data / "a"), True)]
    assert Path(mounts[0].source).read_text() == "x"


def test_many_absolute_names_of_one_folder_are_one_mount():
    entries = [entry(f"/in/many/{number}") for number in range(65)]
    mounts = plan_mounts(PurePosixPath("/root/jobs/j"), entries)
    assert [(str(mount.source), str(mount.target)) for mount in mounts] == [("/root/jobs/j/abs/in/many", "/in/many")]


def test_a_name_that_leads_out_of_the_folder_is_refused(ssh_host, data):
    (data / "a").write_text("x")
    with pytest.raises(DataError, match="leads out of the working folder"):
        ssh_host.stage(ssh_host.root / "jobs" / "job", ssh_host.identify([("../a", data / "a")]), print)


def test_a_folder_that_is_not_ours_is_refused(ssh_host):
    with pytest.raises(HostError, match="no folder of a job"):
        ssh_host.stage(PurePosixPath("/home/other"), (), print)


def test_very_many_files_are_shared_evenly_among_lanes():
    entries = [Entry(f"{number}", Path("x"), f"{number:064x}", 100) for number in range(50_000)]
    batches = plan_sending(entries, lanes=3).batches
    assert sorted(map(len, batches)) == [8330, *5 * [8334]]
    assert [entry for batch in batches for entry in batch] == entries


@given(st.lists(st.integers(0, 100 * MIB), max_size=60))
def test_a_plan_sends_every_file_once_in_streams_of_limited_size(sizes):
    entries = [entry(f"{number}", size) for number, size in enumerate(sizes)]
    plan = plan_sending(entries)
    assert sorted(e.name for part in (*plan.batches, plan.big) for e in part) == sorted(e.name for e in entries)
    assert all(sum(e.size for e in batch) <= BATCH_BYTES for batch in plan.batches)
    assert plan.size == sum(sizes)


def test_a_line_says_what_goes_and_what_is_there(ssh_host, data):
    lines: list[str] = []
    (data / "a").write_bytes(noise(2_000_000))
    stage(ssh_host, data, lines.append)
    (data / "b").write_bytes(noise(1_000_000, 1))
    stage(ssh_host, data, lines.append, job="second")
    assert lines[0] == "1 file, 2.0 MB, 0 bytes already there"
    assert lines[2] == "2 files, 3.0 MB, 2.0 MB already there"
    stage(ssh_host, data, lines.append, job="third")
    assert lines[-1] == "2 files, 3.0 MB, all there already"


def test_a_cut_line_is_made_again_and_all_arrives(make_host, data, proxy):
    host = make_host(port=proxy.port)
    for number in range(40):
        (data / f"{number}").write_bytes(noise(MIB // 2, number))
    host.user()
    proxy.cut_up_at = proxy.up + 10 * MIB
    folder, _ = stage(host, data)
    assert tree(on_host(folder) / "data") == tree(data)
    assert proxy.cuts == 1
    assert proxy.up < (20 + 3 * 2 + 2) * MIB  # 3 streams at once, a window of 2 MiB each
    wait_for(lambda: left_over(host) == [])


def test_a_big_file_goes_on_after_cuts_where_it_was(make_host, data, proxy):
    host = make_host(port=proxy.port, parallel=2)
    (data / "big").write_bytes(noise(128 * MIB))
    host.user()
    for part in (0.3, 0.6):
        threading.Thread(target=lambda part=part: wait_for(lambda: proxy.up > part * 128 * MIB) or proxy.cut()).start()
    folder, _ = stage(host, data)
    assert tree(on_host(folder) / "data") == tree(data)
    assert proxy.cuts == 2
    assert proxy.up < 1.3 * 128 * MIB  # 2 cuts x 2 connections x 2 pieces of 4 MiB, at the most


def test_a_killed_upload_is_taken_up_by_the_next_client(make_host, client, data, proxy, tmp_path):
    (data / "big").write_bytes(noise(256 * MIB))
    host = make_host(port=proxy.port)
    entries = host.identify([("data", data)])
    process = run_client(client, "stage", host.root / "jobs/x", entries, port=proxy.port, workdir=host.settings.workdir)
    wait_for(lambda: proxy.up > 130 * MIB, "half of it")
    process.kill()
    process.wait()
    folder, _ = stage(host, data)
    assert tree(on_host(folder) / "data") == tree(data)
    assert proxy.up < (256 + 36) * MIB  # 4 connections x 2 pieces of 4 MiB, at the most
    assert left_over(host) == []


def test_a_file_that_changes_while_it_is_sent_is_told_and_never_stored(ssh_host, data):
    (data / "a").write_bytes(noise(MIB))
    entries = ssh_host.identify([("data", data)])
    (data / "a").write_bytes(noise(MIB, 1))
    with pytest.raises(TransferError, match=r"input '.*/a' changed while it was sent"):
        ssh_host.stage(ssh_host.root / "jobs" / "j", entries, print)
    assert left_over(ssh_host) == [] == [name for _, _, names in os.walk(ssh_host.root / "store") for name in names]


def test_a_big_file_that_changes_while_it_is_sent_is_told(ssh_host, data):
    (data / "a").write_bytes(noise(65 * MIB))
    entries = ssh_host.identify([("data", data)])
    with open(data / "a", "r+b") as file:
        file.write(b"changed")
    with pytest.raises(TransferError, match=r"input '.*/a' changed while it was sent"):
        ssh_host.stage(ssh_host.root / "jobs" / "j", entries, print)
    assert left_over(ssh_host) == [] == [name for _, _, names in os.walk(ssh_host.root / "store") for name in names]


def test_a_file_that_is_gone_or_shorter_is_told(ssh_host, data):
    (data / "a").write_bytes(noise(MIB))
    entries = ssh_host.identify([("data", data)])
    (data / "a").write_bytes(b"short")
    with pytest.raises(TransferError, match="changed while it was sent"):
        ssh_host.stage(ssh_host.root / "jobs" / "j", entries, print)
    (data / "a").unlink()
    with pytest.raises(TransferError, match="is it still there"):
        ssh_host.stage(ssh_host.root / "jobs" / "j", entries, print)


def damage(host, content: bytes, keep_times: bool = False) -> Path:
    """Flip a byte of a file in the store."""
    key = hashlib.sha256(content).hexdigest()
    path = Path(host.root) / "store" / key[:2] / key
    facts = path.stat()
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.write(bytes([content[0] ^ 1]))
    if keep_times:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return path


def test_a_file_somebody_wrote_to_on_the_host_is_sent_again(ssh_host, data):
    content = noise(MIB)
    (data / "a").write_bytes(content)
    stage(ssh_host, data)
    path = damage(ssh_host, content)
    folder, _ = stage(ssh_host, data, job="second")
    assert tree(on_host(folder) / "data") == tree(data)
    assert path.read_bytes() == content


def test_a_byte_that_the_disk_lost_is_found_when_asked_for(make_host, data):
    content = noise(MIB)
    (data / "a").write_bytes(content)
    host = make_host(check_store=True)
    stage(host, data)
    damage(host, content, keep_times=True)
    folder, _ = stage(host, data, job="second")
    assert tree(on_host(folder) / "data") == tree(data)


def test_a_file_cut_short_on_the_host_is_sent_again(ssh_host, data):
    content = noise(MIB)
    (data / "a").write_bytes(content)
    stage(ssh_host, data)
    os.truncate(damage(ssh_host, content, keep_times=True), 1000)
    folder, _ = stage(ssh_host, data, job="second")
    assert tree(on_host(folder) / "data") == tree(data)


def test_what_is_in_the_store_cannot_be_written_by_a_job(ssh_host, data):
    (data / "a").write_text("x")
    folder, _ = stage(ssh_host, data)
    assert ssh_host.run(f"echo y >{folder}/work/data/a").code != 0


@pytest.fixture
def small_disk(account):
    """A disk of 24 MB in the account's home folder."""
    disk = account.home / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=777", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
    disk.rmdir()


@pytest.mark.parametrize("size", [40 * MIB, 80 * MIB])
def test_a_full_disk_is_told_and_nothing_is_left(make_host, data, small_disk, size):
    host = make_host(workdir=str(small_disk))
    (data / "a").write_bytes(noise(size))
    with pytest.raises(TransferError, match=r"the disk there is full .*free some space"):
        stage(host, data)
    assert left_over(host) == []
    assert host.free_bytes() > 20 * MIB


def test_two_clients_stage_the_same_at_once(make_host, data):
    (data / "big").write_bytes(noise(66 * MIB))
    for number in range(200):
        (data / f"{number}").write_bytes(noise(1000, number))
    first = make_host()
    second = make_host(workdir=first.settings.workdir)
    done = []
    threads = [
        threading.Thread(target=lambda host=host, job=job: done.append(stage(host, data, job=job)[0]))
        for host, job in ((first, "one"), (second, "two"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    for folder in done:
        assert tree(on_host(folder) / "data") == tree(data)


def test_jobs_that_need_the_same_at_once_send_it_once(make_host, data, proxy):
    host = make_host(port=proxy.port)
    (data / "a").write_bytes(noise(10 * MIB))
    threads = [threading.Thread(target=stage, args=(host, data), kwargs={"job": f"{number}"}) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.up < 12 * MIB


def test_a_server_without_zstd_and_openssl_will_do(make_host, data, monkeypatch):
    import dataclasses

    host = make_host()
    site, stager, collector = host._look()
    plain = dataclasses.replace(site, has_zstd=False, hasher="sha256sum")
    stager._site = collector._site = plain
    (data / "a").write_bytes(bytes(2 * MIB))
    folder, _ = stage(host, data)
    assert tree(on_host(folder) / "data") == tree(data)


def test_the_bandwidth_is_kept_within_its_limit(make_host, data):
    host = make_host(bandwidth_mb_s=4)
    (data / "a").write_bytes(noise(4_000_000))
    host.user()
    lines: list[str] = []
    stage(host, data, lines.append)
    assert 2.5 < float(lines[-1].split()[-2]) < 5.5, lines


def test_no_password_reaches_the_host_or_our_files(make_host, data, monkeypatch, tmp_path, server):
    monkeypatch.setenv("BIOM3D_SSH_PASSWORD", PASSWORD)
    host = make_host(key_file=None)
    (data / "a").write_text("x")
    stage(host, data)
    for place in (Path(host.root), tmp_path):
        assert not any(PASSWORD.encode() in path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert PASSWORD not in repr(host.settings) + server.log.read_text()


def test_a_batch_that_never_arrives_whole_ends_with_an_error(ssh_host, data, monkeypatch):
    (data / "a").write_text("x")
    monkeypatch.setitem(commands.HASHERS, "openssl", "md5sum -b")  # what arrives never is what it should be
    monkeypatch.setitem(template.WORDS, "hasher", re.compile(".*"))
    with pytest.raises(TransferError, match="did not arrive whole"):
        stage(ssh_host, data)
