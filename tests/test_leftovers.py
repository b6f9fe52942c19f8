"""What a killed run of the tests leaves is removed by the next, and nothing else."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import docker.types
import pytest

from biom3d.remote.job import LABEL
from tests.leftovers import make_folder, remove_leftovers
from tests.remote.server import Account

pytestmark = pytest.mark.system
# A session that makes an account in whose name something runs, and is gone without a word.
KILLED = """
import os, subprocess
from tests.remote.server import Account
account = Account()
subprocess.Popen(["sleep", "600"], user=account.name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(account.name, account.home, flush=True)
os._exit(0)
"""


@pytest.fixture
def account():
    account = Account()
    yield account
    account.remove()


def start_job(client, image: str, folder: Path):
    mount = docker.types.Mount("/job", str(folder), type="bind")
    labels = {LABEL: os.urandom(12).hex(), f"{LABEL}.threads": "0", f"{LABEL}.mem_mb": "0"}
    return client.containers.run(image, ["sleep", "600"], labels=labels, mounts=[mount], detach=True)


def test_what_a_killed_session_leaves_goes_and_what_is_ours_stays(docker_client, base_image, account):
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=True)
    name, home = done.stdout.split()
    theirs, ours = (start_job(docker_client, base_image, folder) for folder in (Path(home), account.home))
    try:
        assert Path(home) in remove_leftovers()
        left = {one.id for one in docker_client.containers.list(filters={"label": LABEL}, ignore_removed=True)}
        assert (theirs.id in left, ours.id in left) == (False, True)
        assert not Path(home).exists()
        assert name not in [one.pw_name for one in pwd.getpwall()]
        assert account.home.is_dir()
    finally:
        ours.remove(force=True)


def test_a_folder_of_this_session_is_not_left_over():
    folder = make_folder("test")
    assert folder not in remove_leftovers()
    folder.rmdir()
