"""A person whose SSH key opens nothing but the gate: a real sshd, the installed file, the real container engine."""

import http.client
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from biom3d.errors import JobError
from biom3d.remote.job import JobSpec
from biom3d.remote.lifecycle import Runner
from biom3d.remote.table import TEMPLATES
from biom3d.remote.template import Template
from biom3d.server.gatefile import render_gate
from tests.leftovers import make_folder
from tests.remote.server import Account, Server, make_key

SOCKET = "/var/run/docker.sock"
BY_NAME = {template.name: template for template in TEMPLATES}


def install_gate(path: Path) -> Path:
    """Write the gate as an administrator would have it; this machine's system Python runs it."""
    path.write_text(render_gate(TEMPLATES, "0.0.test"))
    path.chmod(0o755)
    return path


def load_gate() -> types.ModuleType:
    """Return the installed gate as a module."""
    module = types.ModuleType("installed_gate")
    sys.modules[module.__name__] = module
    exec(compile(render_gate(TEMPLATES, "0.0.test"), "biom3d-gate", "exec"), module.__dict__)
    return module


def line_of(name: str, *arguments: object) -> str:
    """Return the client's line for a command."""
    return BY_NAME[name].line(*map(str, arguments))


def unchecked(template: Template, *arguments: object) -> str:
    """Return the line of somebody who wrote a client of their own."""
    quoted = ("'" + str(word).replace("'", "'\"'\"'") + "'" for word in (template.script, template.name, *arguments))
    return f"sh -c {' '.join(quoted)}"


@contextmanager
def opened(server: Server, account: Account, name: str = "anna") -> "Iterator[Door]":
    """A person's door, while the block lasts."""
    # Below a folder that the account can enter: its key's forced command runs as the account.
    folder = make_folder("gate")
    folder.chmod(0o755)
    door = Door(server, account, folder / "etc", name)
    yield door
    door.remove()
    shutil.rmtree(folder)


@contextmanager
def under_way(runner: Runner, spec: JobSpec, folder: Path) -> Iterator[None]:
    """A job runs while the block lasts, and is stopped at its end."""
    stop = threading.Event()

    def run() -> None:
        with suppress(JobError):  # so it ends when it is stopped
            runner.run(spec, folder, print, stop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass
class Door:
    """What one person has: a key, a working folder; and what the administrator has set for it."""

    server: Server
    account: Account
    folder: Path  # the administrator's
    name: str = "anna"
    shares: "Door | None" = None  # whose working folder it is
    settings: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        self.workdir = self.shares.workdir if self.shares else self.account.home / f"lab-{self.name}"
        self.log = self.account.home / f"{self.name}.log"
        self.config = self.folder / f"{self.name}.json"
        self.configure()
        for part in ("jobs", "store", "tmp"):
            (self.workdir / ".biom3d" / part).mkdir(parents=True, exist_ok=bool(self.shares))
        self.own(self.workdir)
        self.key = make_key(self.folder / self.name)
        self.gate = install_gate(self.folder / "biom3d-gate")
        public = self.key.with_name(f"{self.name}.pub").read_text()
        forced = f"{self.gate} --name {self.name} --workdir {self.workdir} --config {self.config}"
        keys = self.account.home / ".ssh" / "authorized_keys"
        keys.parent.mkdir(exist_ok=True)
        with open(keys, "a") as file:
            file.write(f'restrict,command="{forced}" {public}')

    @property
    def root(self) -> Path:
        return self.workdir / ".biom3d"

    def configure(self, **settings: object) -> None:
        """Set what the administrator allows."""
        self.settings = {"log": str(self.log), "engine_socket": SOCKET} | settings
        self.config.write_text(json.dumps(self.settings))

    def join_engine(self) -> None:
        """Let the account use the engine, as an administrator would arrange it."""
        subprocess.run(["usermod", "-aG", Path(SOCKET).group(), self.account.name], check=True)

    @property
    def uid_gid(self) -> str:
        facts = pwd.getpwnam(self.account.name)
        return f"{facts.pw_uid}:{facts.pw_gid}"

    def own(self, path: Path) -> Path:
        """Let the account own what lies there."""
        subprocess.run(["chown", "-hR", self.account.name, path], check=True)
        return path

    def make_file(self, name: str, text: str = "mine") -> Path:
        """Make a file below the working folder."""
        path = self.workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.own(self.workdir)
        return path

    def ssh(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run OpenSSH's client with this key; words beginning with `-` are its options."""
        options = [word for word in words if word.startswith("-")]
        rest = [word for word in words if not word.startswith("-")]
        return subprocess.run([*self.client("ssh"), *options, self.target, *rest], input=stdin, capture_output=True)

    def client(self, program: str) -> list[str]:
        """Return a program of OpenSSH with its settings."""
        port = "-P" if program in ("scp", "sftp") else "-p"
        fixed = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        options = [word for one in fixed for word in ("-o", one)]
        return [program, "-F", "none", "-i", str(self.key), port, str(self.server.port), *options]

    @property
    def target(self) -> str:
        return f"{self.account.name}@{self.server.address}"

    def run(self, name: str, *arguments: object, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run one of the client's commands, whatever the arguments are."""
        return self.ssh(unchecked(BY_NAME[name], *arguments), stdin=stdin)

    def http(self, *requests: bytes) -> "list[tuple[int, dict]]":
        """Send requests to the engine through the gate, one after the other on one channel; return the answers."""
        done = self.ssh(unchecked(BY_NAME["dial_engine"], ""), stdin=b"".join(requests))
        return read_answers(done.stdout)

    def ask(self, method: str, path: str, body: object = None) -> "tuple[int, dict]":
        """Send one request; return status and answer."""
        return self.http(request(method, path, body))[0]

    def notes(self) -> list[dict]:
        """Return the lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def remove(self) -> None:
        """Remove what lies in the account's home folder."""
        shutil.rmtree(self.workdir, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        os.environ.pop("SSH_ORIGINAL_COMMAND", None)


def was_refused(done: "subprocess.CompletedProcess[bytes]") -> bool:
    """Say whether the gate said no, in one line and nothing else."""
    return done.returncode == 77 and not done.stdout and done.stderr.startswith(b"biom3d-gate: refused: ")


def request(method: str, path: str, body: object = None) -> bytes:
    """Return a request as a client writes it."""
    content = b"" if body is None else json.dumps(body).encode()
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def read_answers(stream: bytes) -> "list[tuple[int, dict]]":
    """Read HTTP answers that hold JSON, text or nothing."""
    file, answers = io.BytesIO(stream), []
    while file.tell() < len(stream):
        answer = http.client.HTTPResponse(_Sock(file))  # type: ignore[arg-type]
        answer.begin()
        content = answer.read()
        try:
            answers.append((answer.status, json.loads(content or b"{}")))
        except ValueError:
            answers.append((answer.status, {"text": content.decode(errors="replace")}))
    return answers


class _Sock:
    """What HTTPResponse wants of a socket; it must not close the file, where the next answer begins."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def makefile(self, *_: object) -> "_Kept":
        return _Kept(self._file)


class _Kept:
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def close(self) -> None:
        """Leave it open."""
