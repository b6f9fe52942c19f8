"""A real OpenSSH server with accounts of its own, on this machine, for the tests: everything in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.leftovers import make_folder

SSHD = "/usr/sbin/sshd"
PASSWORD = "not a secret: it opens a test account"
PATIENCE_S = 60  # on a machine that has much else to do


def run(*words: str | Path, netns: str = "") -> str:
    """Run a command that has to succeed; return what it prints."""
    inside = ["ip", "netns", "exec", netns] if netns else []
    done = subprocess.run([*inside, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def wait_for(is_so, what: str = "it", patience_s: float = PATIENCE_S) -> None:
    """Wait until a fact is true."""
    end = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < end, f"{what} did not come true within {patience_s:g} s"
        time.sleep(0.01)


def names_in(folder: "Path | PurePosixPath") -> list[str]:
    """Return what lies in a folder, sorted."""
    return sorted(path.name for path in Path(folder).iterdir())


def run_client(client, method: str, *arguments: object, **values: object) -> "subprocess.Popen[bytes]":
    """Start a program that calls a method of an SSH host with these settings, so that it can be killed."""
    folder = client.folder
    given = {"key_file": folder / "key", "config": client.config, **values}
    code = (
        "import sys\nfrom pathlib import *\nfrom biom3d.remote.ssh import SSHHost\n"
        "from biom3d.remote.ssh_config import SSHSettings\n"
        "from biom3d.remote.host import Entry\n"
        f"host = SSHHost(SSHSettings('server', **{given!r}), cache={folder / 'cache'!r})\n"
        f"host.{method}(*{arguments!r}, print)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)


def answers(address: str, port: int) -> bool:
    """Say whether something listens."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def make_key(path: Path, phrase: str = "", kind: str = "ed25519") -> Path:
    """Make a key pair."""
    run("ssh-keygen", "-q", "-t", kind, "-N", phrase, "-f", path)
    return path


class Account:
    """An unprivileged account with a password; its home folder goes with it."""

    def __init__(self, password: str = PASSWORD) -> None:
        self.name = f"b3d{uuid.uuid4().hex[:8]}"
        self.home = make_folder("home")
        secret = run("openssl", "passwd", "-6", password).strip()
        run("useradd", "-M", "-d", self.home, "-s", "/bin/sh", "-p", secret, self.name)
        shutil.chown(self.home, self.name, self.name)

    def trust(self, key: Path) -> None:
        """Let whoever has this key in."""
        folder = self.home / ".ssh"
        folder.mkdir(exist_ok=True)
        with open(folder / "authorized_keys", "a") as file:
            file.write(key.with_name(f"{key.name}.pub").read_text())

    def remove(self) -> None:
        """Remove it, and what still runs in its name."""
        for pid in subprocess.run(["ps", "-o", "pid=", "-u", self.name], capture_output=True, text=True).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("userdel", "--force", self.name)
        shutil.rmtree(self.home, ignore_errors=True)


@dataclass
class Server:
    """sshd with its own keys and configuration in `folder`."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    netns: str = ""
    options: str = ""
    inside: tuple[str, ...] = ()  # words before its command: a program that enters name spaces, and forks
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        self.host_key = make_key(self.folder / "host_key")
        self.log = self.folder / "sshd.log"
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        config = self.folder / "sshd_config"
        config.write_text(
            f"{self.options}\nListenAddress {self.address}\nPort {self.port}\nHostKey {self.host_key}\nPidFile none\n"
            "StrictModes no\nUsePAM no\nMaxStartups 100\nLogLevel VERBOSE\nPrintMotd no\nUseDNS no\n"
        )
        inside = ("ip", "netns", "exec", self.netns) if self.netns else self.inside
        line = [*inside, SSHD, "-D", "-f", str(config), "-E", str(self.log)]
        self.process = subprocess.Popen(line)
        if self.netns:
            wait_for(lambda: "Server listening" in self.log.read_text() if self.log.exists() else False, "sshd")
        else:
            wait_for(lambda: answers(self.address, self.port), "sshd")

    def public_key(self) -> str:
        """Return kind and key, as they stand in known_hosts."""
        return " ".join(self.host_key.with_name("host_key.pub").read_text().split()[:2])

    def logins(self) -> int:
        """Return how many connections got in so far."""
        return self.log.read_text().count("Accepted ")

    def stop(self) -> None:
        """Stop listening; connections stay."""
        assert self.process
        for process in children(self.process.pid) if self.inside else [self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        self.process.wait(PATIENCE_S)


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(word) for word in subprocess.run(["pgrep", "-P", str(process)], capture_output=True).stdout.split()]


def end_sessions(server: Server) -> None:
    """Kill the sshd of every open connection, as a restart of the whole service does."""
    assert server.process
    masters = children(server.process.pid) if server.inside else [server.process.pid]
    monitors = [monitor for master in masters for monitor in children(master)]
    for session in [*monitors, *(child for monitor in monitors for child in children(monitor))]:
        with suppress(ProcessLookupError):
            os.kill(session, signal.SIGKILL)
