"""A server of its own on this machine: process and mount name space, sshd, engine or environment, a small disk.

Who kills its first process pulls the plug: all that runs there is gone at once. It goes with who made it, too.
"""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import docker
import docker.errors

from tests.docker_engine import answering
from tests.remote.server import Server, children, end_sessions, run, wait_for

OWN = {"sh", "sleep", "sshd", "dockerd", "containerd", "unshare", "nsenter"}  # programs that belong to a machine
DISK_MB = 96


class Machine:
    """`has_engine`: jobs run in containers of an engine of its own, else in a Python environment."""

    def __init__(self, folder: Path, has_engine: bool) -> None:
        self.folder, self.has_engine = folder, has_engine
        self.name = folder.name
        self.disk, self.keys = folder / "disk", folder / "keys"
        self.socket, self.environment = folder / "engine.sock", folder / "env"
        for path in (folder, self.disk, self.keys):
            path.mkdir(mode=0o755)
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", self.disk)
        if not has_engine:
            (self.environment / "bin").mkdir(parents=True)
            (self.environment / "bin/python").symlink_to("/usr/bin/python3")  # which every account may run
        self.server: Server | None = None
        self._engine: subprocess.Popen[bytes] | None = None
        self.boot()

    def boot(self) -> None:
        """Switch it on."""
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        first = ["sh", "-c", "while :; do sleep 1; done"]
        self._outer = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *spaces, *first])
        wait_for(lambda: children(self._outer.pid), f"the first process of {self.name}")
        self.first = children(self._outer.pid)[0]
        wait_for(lambda: _space_of(self.first) != _space_of(os.getpid()), "its name space")
        if self.server is None:
            options = f"AuthorizedKeysFile {self.keys}/%u\nPermitUserRC no"
            self.server = Server(self.folder / "sshd", options=options, inside=self._inside)
        else:
            self.server.inside = self._inside
            self.server.start()
        if self.has_engine:
            self.start_engine()

    @property
    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self.first), "--pid", "--mount", "--")

    def pull_the_plug(self) -> None:
        """Kill all that runs there."""
        os.kill(self.first, signal.SIGKILL)
        self._outer.wait()
        for process in (self.server and self.server.process, self._engine):
            if process:
                process.wait()
        self._engine = None

    def restart_sshd(self) -> None:
        """Kill the server of logins and all open ones; start it again."""
        assert self.server
        end_sessions(self.server)
        self.server.stop()
        self.server.start()

    def start_engine(self) -> None:
        """Start the engine, and wait until it answers."""
        places = [f"--{name}={self.folder / path}" for name, path in (("data-root", "images"), ("exec-root", "exec"))]
        (self.folder / "dockerd.pid").unlink(missing_ok=True)
        words = ["unshare", "--net", "dockerd", "--host", f"unix://{self.socket}", "--bridge=none", "--iptables=false"]
        words += [*places, "--pidfile", str(self.folder / "dockerd.pid")]
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        with open(self.folder / "dockerd.log", "ab") as log:
            self._engine = subprocess.Popen(
                [*self._inside, *words], stdout=log, stderr=log, env={**os.environ, "PATH": path}
            )
        wait_for(lambda: answering(f"unix://{self.socket}"), f"the engine of {self.name}")

    def restart_engine(self) -> None:
        """Stop the engine as an update does, which ends all containers; start it again."""
        assert self._engine
        for process in children(self._engine.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        self._engine.wait()
        self.start_engine()

    def engine(self) -> docker.DockerClient:
        """Return a client of its engine."""
        return docker.DockerClient(f"unix://{self.socket}", timeout=120)

    def kill_job(self, job_id: str) -> bool:
        """Kill what supervises a job, as an administrator in a hurry would; say whether there was something."""
        if self.has_engine:
            with suppress(docker.errors.APIError):
                self.engine().containers.get(f"biom3d-{job_id}").kill()
                return True
            return False
        for pid in self.processes():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if f'"biom3d.job": "{job_id}"' in " ".join(words) and "/run.sh" in " ".join(words):
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def processes(self) -> list[int]:
        """Return what runs there, by our numbers."""
        space, found = _space_of(self.first), []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                found += [int(path.name)] if _space_of(int(path.name)) == space else []
        return found

    def strangers(self) -> list[str]:
        """Return the programs that run there and do not belong to a machine at rest."""
        found = []
        for pid in self.processes():
            with suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                is_session = name.startswith("sshd") and "listener" not in words and " -D " not in words
                found += [f"{name}: {words}"] if name not in OWN or is_session else []
        return found

    def remove(self) -> None:
        """Switch it off, and remove all of it."""
        with suppress(ProcessLookupError):
            self.pull_the_plug()
        subprocess.run(["umount", "-l", self.disk], check=False)


def _space_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())
