"""What a killed run of the tests leaves on this machine, and its removal when the next one begins.

Folders, accounts and containers of a session carry its process number (and its name space of processes) in the name of
their folder. Only what belongs to a session that is dead is touched; others run beside us.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from biom3d.remote.job import LABEL
from tests.docker_engine import answering

TOP = Path("/tmp")  # every account may enter it
NAME = re.compile(r"b3d-[a-z]+-(\d+)-(\d+)-.*")


def make_folder(kind: str) -> Path:
    """Make a folder of this session that every account may enter, if its mode is opened; its path is short."""
    return Path(tempfile.mkdtemp(prefix=f"b3d-{kind}-{os.getpid()}-{_space()}-", dir=TOP))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove what dead sessions have left; only root can."""
    if os.geteuid() == 0 and not session.config.option.collectonly:
        remove_leftovers()


def remove_leftovers() -> list[Path]:
    """Remove containers, processes, accounts, mounts and folders of sessions that are dead; return the folders."""
    dead = [path for path in TOP.glob("b3d-*") if is_dead(path)]
    _remove_containers(dead)
    for account in [one for one in pwd.getpwall() if Path(one.pw_dir) in dead]:
        _kill(lambda pid, uid=account.pw_uid: Path(f"/proc/{pid}").stat().st_uid == uid)
        subprocess.run(["userdel", "--force", account.pw_name], capture_output=True)
    for path in dead:
        _kill(lambda pid, name=bytes(path): name in Path(f"/proc/{pid}/cmdline").read_bytes())
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounts if Path(place).is_relative_to(path)]):
            subprocess.run(["umount", "-l", place], capture_output=True)
        shutil.rmtree(path, ignore_errors=True)
    return dead


def is_dead(path: Path) -> bool:
    """Say whether a folder is of a session that has ended, of those whose processes we can see."""
    name = NAME.fullmatch(path.name)
    return bool(name and int(name[2]) == _space() and not Path(f"/proc/{name[1]}").exists())


def _remove_containers(dead: list[Path]) -> None:
    """Remove jobs that work in a folder of a dead session, of ours or of pytest's."""
    client = answering()
    if client is None:
        return
    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        places = [Path(mount.get("Source", "")) for mount in container.attrs.get("Mounts", [])]
        if any(place.is_relative_to(path) for place in places for path in dead) or any(map(_is_of_dead_pytest, places)):
            with suppress(Exception):  # somebody else removes it at this moment
                container.remove(force=True)


def _is_of_dead_pytest(place: Path) -> bool:
    """Say whether a path lies in the folder of a pytest that was killed: its lock names a process that is gone."""
    parts = place.parts
    if len(parts) < 4 or not parts[2].startswith("pytest-of-"):
        return False
    with suppress(OSError, ValueError):
        return not Path(f"/proc/{int(Path(*parts[:4], '.lock').read_text())}").exists()
    return False


def _kill(is_meant) -> None:  # type: ignore[no-untyped-def]
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(path.name) != os.getpid() and is_meant(path.name):
                os.kill(int(path.name), signal.SIGKILL)


def _space() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
