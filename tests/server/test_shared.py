"""Two people whose keys open the same working folder, through the gate: the same job at the same time, or in turn."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from biom3d.errors import HostError
from biom3d.remote import claims, verbs
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
from tests.remote.conftest import Client, account, key, server
from tests.remote.server import wait_for
from tests.remote.test_faults import COUNTED, WAITING, Far, clients
from tests.server.gated import Door, opened

__all__ = ["account", "clients", "key", "server"]
pytestmark = pytest.mark.system


@pytest.fixture
def people(server, account, base_image, tmp_path) -> Iterator[tuple[Far, Far]]:
    """Anna and Ben, each with a client of their own; both work on the same job, in the same folder of the server."""
    with opened(server, account) as anna:
        shutil.rmtree(anna.root)
        anna.join_engine()
        anna.configure(images=[base_image])
        ben = Door(server, account, anna.folder.parent / "ben", "ben", anna)
        ben.configure(images=[base_image])
        fars = [client_of(door, tmp_path / door.name, base_image) for door in (anna, ben)]
        yield fars[0], fars[1]
        for far in fars:
            far.close()
            far.host.close()


def client_of(door: Door, folder: Path, image: str) -> Far:
    folder.mkdir()
    client = Client(folder, door.server, door.account)
    return far_of(
        SSHSettings("server", key_file=door.key, config=client.config, workdir=str(door.workdir)), folder, image
    )


def far_of(settings: SSHSettings, folder: Path, image: str) -> Far:
    far = Far(folder, image, SSHHost(settings, cache=folder / "hashes.sqlite"))
    far.spec = lambda *args, spec=far.spec, **changes: spec(*args, **{"name": "shared", **changes})
    return far


def test_both_run_the_same_job_at_the_same_time_and_get_its_results(people):
    anna, ben = people
    threads = [anna.begin(WAITING, "out runs"), ben.begin(WAITING, "out runs")]
    work = anna.appears("runs").parent
    wait_for(
        lambda: anna.said("runs already, started by ben") or ben.said("runs already, started by anna"),
        "one that goes on with what the other has started",
    )
    (work / "go").touch()
    for far, thread in zip(people, threads, strict=True):
        far.end(thread)
    assert (anna.text("runs"), ben.text("runs")) == ("run\n", "run\n")
    anna.assert_clean()


def test_the_job_of_somebody_with_a_full_key_in_the_same_folder_is_shared_too(people, key, tmp_path):
    ben = people[1]
    settings = replace(ben.host.settings, key_file=key)
    (tmp_path / "carl").mkdir()
    carl = far_of(settings, tmp_path / "carl", ben.image)
    threads = [carl.begin(WAITING, "out runs")]
    work = carl.appears("runs").parent
    threads.append(ben.begin(WAITING, "out runs"))
    wait_for(lambda: ben.said("runs already, started by"), "a word about it")
    (work / "go").touch()
    for far, thread in zip((carl, ben), threads, strict=True):
        far.end(thread)
    assert (carl.text("runs"), ben.text("runs")) == ("run\n", "run\n")
    ben.assert_clean()
    carl.host.close()


def run_alone(settings: SSHSettings, folder: Path, image: str) -> None:
    far_of(settings, folder, image).run(WAITING, "out runs")


def test_who_died_is_taken_over_and_still_gets_the_results(people, clients):
    anna, ben = people
    arguments = (anna.host.settings, anna.folder, anna.image)
    process = clients.Process(target=run_alone, args=arguments)
    process.start()
    work = anna.appears("runs").parent
    process.kill()
    process.join()
    thread = ben.begin(WAITING, "out runs")
    wait_for(lambda: ben.said("runs already, started by anna"), "a word about it")
    (work / "go").touch()
    ben.end(thread)
    assert ben.text("runs") == "run\n"
    anna.run(WAITING, "out runs")  # who comes back
    assert anna.text("runs") == "run\n"
    anna.assert_clean()


def test_ctrl_c_of_who_joined_leaves_the_job_to_who_started_it(people):
    anna, ben = people
    thread = anna.begin(WAITING, "out runs")
    work = anna.appears("runs").parent
    joined = ben.begin(WAITING, "out runs")
    wait_for(lambda: ben.said("runs already, started by anna"), "a word about it")
    ben.stop.set()
    joined.join(60)
    assert "goes on, for anna started it" in str(ben.errors.pop())
    (work / "go").touch()
    anna.end(thread)
    assert anna.text("runs") == "run\n"
    anna.assert_clean()


def test_ctrl_c_of_who_started_it_leaves_it_to_who_joined(people):
    anna, ben = people
    shell = COUNTED + "if [ -e begun ]; then touch out; else touch begun; sleep 60; fi"
    thread = anna.begin(shell, "out runs")
    anna.appears("begun")
    joined = ben.begin(shell, "out runs")
    wait_for(lambda: ben.said("runs already, started by anna"), "a word about it")
    anna.stop.set()
    thread.join(60)
    ben.end(joined)
    assert ben.text("runs") == "run\nrun\n"
    ben.assert_clean()


def test_everybody_sees_whose_it_is_and_stops_anothers_only_on_purpose(people):
    anna, ben = people
    thread = anna.begin(WAITING, "out runs")
    job_id = anna.appears("runs").parent.parent.name

    def seen_by(far: Far) -> verbs.Seen:
        return verbs.find_job(verbs.list_jobs(far.host), job_id)

    assert (seen_by(anna).is_mine, seen_by(ben).is_mine, seen_by(ben).owner) == (True, False, "anna")
    with pytest.raises(HostError, match="was started by anna, who shares the working folder; --others stops it"):
        verbs.cancel(ben.host, seen_by(ben))
    assert claims.who_cancelled(anna.host, anna.host.root / "jobs" / job_id) == ""
    verbs.cancel(ben.host, seen_by(ben), who="ben", is_meant=True)
    thread.join(60)
    assert "cancelled with 'biom3d remote cancel' by ben" in str(anna.errors.pop())


def test_what_failed_for_one_goes_on_for_the_other(people):
    anna, ben = people
    shell = COUNTED + "if [ -e half ]; then touch out; else touch half; exit 1; fi"
    thread = anna.begin(shell, "out runs")
    thread.join(60)
    assert len(anna.errors) == 1
    ben.run(shell, "out runs")
    assert ben.text("runs") == "run\nrun\n"
    ben.assert_clean()


def test_a_container_that_appears_between_look_and_start_is_joined(people):
    anna, ben = people
    thread = anna.begin(WAITING, "out runs")
    work = anna.appears("runs").parent
    find, looks = ben.runner.runtime.find, [None, None]  # ben sees nothing before he starts it himself
    ben.runner.runtime.find = lambda job_id: looks.pop() if looks else find(job_id)
    joined = ben.begin(WAITING, "out runs")
    wait_for(lambda: ben.said("runs already, started by anna"), "a word about it")
    (work / "go").touch()
    for far, its in ((anna, thread), (ben, joined)):
        far.end(its)
    assert (anna.text("runs"), ben.text("runs")) == ("run\n", "run\n")
    anna.assert_clean()
