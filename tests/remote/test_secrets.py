"""After a whole run with a known password: it stands in no file, no list of processes, no container, no log.

The password is made for this run, so that nobody else's test can be taken for a leak.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from biom3d.remote.profile import Settings, write_profile
from tests.remote.conftest import Client
from tests.remote.server import Account
from tests.remote.test_run import make_project
from tests.workflow.conftest import SNAKEFILE

pytestmark = pytest.mark.system


def forms(secret: str) -> list[bytes]:
    """Return how a secret may stand in a file: plain, quoted, as hexadecimal digits, and in base64 at any place."""
    raw = secret.encode()
    coded = [base64.b64encode(b"x" * shift + raw) for shift in range(3)]
    return [raw, quote(secret).encode(), raw.hex().encode(), *(text[4:-4] for text in coded)]


def leaks(secret: str, *places: Path) -> list[str]:
    """Return the files that hold a secret, in any form."""
    wanted = forms(secret)
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [str(path) for path in files if path.is_file() and any(form in path.read_bytes() for form in wanted)]


@pytest.mark.parametrize("form", range(6))
def test_the_search_finds_every_form(tmp_path, form):
    (tmp_path / "a").write_bytes(b"before" + forms("a password; of 23 chars")[form] + b"after")
    assert leaks("a password; of 23 chars", tmp_path) == [str(tmp_path / "a")]


@pytest.mark.parametrize("shift", range(3))
def test_the_search_finds_what_a_report_embeds(tmp_path, shift):
    text = base64.b64encode(b"y" * (30 + shift) + b"a password; of 23 chars" + b"z" * 20)
    (tmp_path / "a").write_bytes(text)
    assert leaks("a password; of 23 chars", tmp_path)


class Watch:
    """Looks at all processes and containers of this machine while a client runs."""

    def __init__(self, secret: str, client: int, engine) -> None:
        self.secret, self.client, self.engine = secret.encode(), client, engine
        self.found: set[str] = set()
        self.own: set[int] = set()  # processes of the client that hold it in their environment
        self.containers: set[str] = set()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._each, args=(look,)) for look in (self._look, self._inspect)]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _each(self, look) -> None:
        while not self._over.wait(0.05):
            look()

    def _look(self) -> None:
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        for pid in parents:
            with suppress(OSError):
                if self.secret in Path(f"/proc/{pid}/cmdline").read_bytes():
                    self.found.add(f"arguments of {pid}")
                if self.secret in Path(f"/proc/{pid}/environ").read_bytes():
                    is_own = self._is_clients(pid, parents)
                    self.own.add(pid) if is_own else self.found.add(f"environment of {pid}")

    def _is_clients(self, pid: int, parents: dict[int, int]) -> bool:
        while pid > 1 and pid != self.client:
            pid = parents.get(pid, 0)
        return pid == self.client

    def _inspect(self) -> None:
        for container in self.engine.containers.list(all=True, filters={"label": "biom3d.job"}, ignore_removed=True):
            self.containers.add(container.id)
            if self.secret in json.dumps(container.attrs).encode():
                self.found.add(f"container {container.name}")


@pytest.fixture
def person(tmp_path, server, docker_client, cpu_image):
    """Somebody with a password, who may use the engine; home folders of their own here and there."""
    secret = f"Pass word;{uuid.uuid4().hex}"
    account = Account(secret)
    subprocess.run(["usermod", "-aG", Path("/var/run/docker.sock").group(), account.name], check=True)
    (tmp_path / "client").mkdir()
    yield secret, Client(tmp_path / "client", server, account)
    account.remove()


def test_a_password_stands_nowhere_after_a_whole_run(person, server, docker_client, tmp_path, monkeypatch):
    secret, client = person
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.chdir(tmp_path)
    write_profile("lab", Settings("server", config=str(client.config), workdir="lab"))
    make_project(tmp_path / "project")
    line = [Path(sys.executable).parent / "snakemake", "--snakefile", SNAKEFILE, "--profile", "lab"]
    environment = {**os.environ, "BIOM3D_SSH_PASSWORD": secret}
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen([*line, "--verbose"], env=environment, stdout=out, stderr=out)
        with Watch(secret, process.pid, docker_client) as watch:
            assert process.wait() == 0, (tmp_path / "out").read_text()[-3000:]
        assert (
            subprocess.run([*line, "--report", "report.html"], env=environment, stdout=out, stderr=out).returncode == 0
        )
    assert watch.own, "the watch must see what is there to be seen"
    assert len(watch.containers) >= 5
    assert watch.found == set()
    assert Path("report.html").stat().st_size > 10_000
    assert leaks(secret, tmp_path, client.account.home, server.log) == []
