"""A server with an account of its own, as in tests/remote; `server init` runs there as that account."""

import os
import pwd
import shutil
import subprocess
import sys
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from biom3d.server.__main__ import main
from biom3d.server.card import Card
from tests.remote.conftest import account, client, key, make_host, server
from tests.remote.server import Account, make_key

__all__ = ["account", "client", "key", "make_host", "server"]
CARD = Card(
    name="gpu1",
    address="gpu1.example.org",
    user="lab",
    workdir="/srv/biom3d",
    host_keys=("ssh-ed25519 SHA256:" + "A" * 43,),
    engine="docker",
    images=("biom3d-workflow/cpu:0.1.0-abc",),
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of its own, also for configuration; ~/.ssh is in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def public_key(tmp_path):
    """Makes public keys."""

    def make(kind: str = "ed25519", *more: str) -> Path:
        path = tmp_path / f"key-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *more, "-N", "", "-f", path], check=True)
        return path.with_name(f"{path.name}.pub")

    return make


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def as_account(account: Account, folder: Path, *words: object) -> Ended:
    """Run `biom3d server` as the account of the server, which may not be allowed to read this Python's own files."""
    out, err = folder / f"out-{uuid.uuid4().hex[:8]}", folder / f"err-{uuid.uuid4().hex[:8]}"
    entry = pwd.getpwnam(account.name)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Ended(code, out.read_text(), err.read_text())
    code = 99
    try:
        sys.stdout, sys.stderr = open(out, "w"), open(err, "w")  # noqa: SIM115 - the process ends with them
        os.initgroups(account.name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        os.umask(0o022)
        os.environ.update(HOME=str(account.home), PATH=f"{os.environ['PATH']}:/usr/sbin", LANG="C.UTF-8")
        os.chdir(account.home)
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def admin(account, server, tmp_path):
    """Runs `biom3d server` on the server; what it leaves in the home folder goes with the test."""
    keys = account.home / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    keys.touch()
    kept = keys.read_bytes()
    for path in (keys.parent, keys):
        shutil.chown(path, account.name, account.name)

    def run(*words: object) -> Ended:
        return as_account(account, tmp_path, *words)

    yield run
    for name in (".biom3d-server.json", ".biom3d-gate.json", ".biom3d-gate.log", ".local", "lab"):
        path = account.home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    keys.write_bytes(kept)


def new_key(folder: Path) -> Path:
    """Make a key pair and return its private part."""
    return make_key(folder / f"id-{uuid.uuid4().hex[:6]}")
