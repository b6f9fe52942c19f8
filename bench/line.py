"""What the benchmarks of hosts share: an emulated line between two name spaces, a clock, the page with the tables."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from biom3d.files import write_text

MIB = 2**20
OUT = Path(__file__).parent / "transport.md"
SSHD = "/usr/sbin/sshd"
ADDRESS = "10.198.0.2"
# Line -> Mbit/s, round trip in ms, queue in bytes. The payload limit of TCP is 0.941 of the line.
LINES = {
    "1 Gbit/s, 1 ms": (1000, 1, 1_500_000),
    "100 Mbit/s, 20 ms": (100, 20, 1_500_000),
    "1 Gbit/s, 30 ms": (1000, 30, 3_750_000),
    "1 Gbit/s, 20 ms": (1000, 20, 2_500_000),
}
START_LIMIT_S = 10


@contextlib.contextmanager
def emulated_line(emulator: Path, line: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the client's name space and an ssh configuration in which `server` is at the other end of the line."""
    spaces = [f"b3dbench{os.getpid()}{side}" for side in "cs"]
    rate, rtt, queue = LINES[line]
    with contextlib.ExitStack() as stack:
        for space in spaces:
            run("ip", "netns", "add", space)
            stack.callback(subprocess.run, ["ip", "netns", "del", space])
            stack.callback(end_all, space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        words = [str(emulator), *spaces, str(rate), str(rtt), "0", str(queue), "1"]
        link = subprocess.Popen(["nice", "-n", "-18", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(end, link)
        wait(lambda: all(_has_device(space) for space in spaces))
        for space, address in zip(spaces, ("10.198.0.1", ADDRESS), strict=True):
            run("ip", "-n", space, "addr", "add", f"{address}/30", "dev", "lnk0")
            run("ip", "-n", space, "link", "set", "lnk0", "up", "mtu", "1500", "gso_max_size", "16384")
        config = _configure(folder)
        server = subprocess.Popen(["ip", "netns", "exec", spaces[1], SSHD, "-D", "-f", str(folder / "sshd_config")])
        stack.callback(end, server)
        wait(lambda: run("ip", "netns", "exec", spaces[1], "ss", "-ltn").count(":22 ") > 0)
        yield spaces[0], config


def _configure(folder: Path) -> Path:
    """Write keys and configurations of both sides; return the client's."""
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host_key", "key"):
        if not (folder / name).exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "sshd_config").write_text(
        f"ListenAddress {ADDRESS}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/key.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nMaxStartups 100\nSetEnv SHLVL=1\n"  # no ~/.bashrc: its cost is not ours
    )
    (folder / "known_hosts").write_text("server " + (folder / "host_key.pub").read_text())
    config = folder / "config"
    config.write_text(
        f"Host server\n HostName {ADDRESS}\n HostKeyAlias server\n User root\n IdentityFile {folder}/key\n"
        f" UserKnownHostsFile {folder}/known_hosts\n IdentityAgent none\n Ciphers aes128-gcm@openssh.com\n"
        f" ControlMaster auto\n ControlPath {folder}/control\n ControlPersist 60\n"
    )
    return config


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that it takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def run(*words: str) -> str:
    """Run a command that has to succeed; return what it prints."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that we started."""
    process.terminate()
    process.wait()


def end_all(space: str) -> None:
    """End what still runs in a name space of ours: sessions of sshd outlive their server."""
    for pid in run("ip", "netns", "pids", space).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _has_device(space: str) -> bool:
    return subprocess.run(["ip", "-n", space, "link", "show", "lnk0"], capture_output=True).returncode == 0


def wait(is_so: Callable[[], bool], limit_s: float = START_LIMIT_S) -> None:
    """Wait until a fact is true."""
    end = time.monotonic() + limit_s
    pause = threading.Event()
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"something did not happen within {limit_s:g} s")
        pause.wait(0.05)


def put_section(title: str, text: str) -> None:
    """Write a section of the page anew; the others stay."""
    old = OUT.read_text() if OUT.exists() else "# Staging and small jobs, measured\n"
    head, *sections = old.split("\n## ")
    new = f"{title}\n\n{text.strip()}\n"
    places = [number for number, section in enumerate(sections) if section.startswith(f"{title}\n")]
    sections = [new if number in places else section for number, section in enumerate(sections)]
    sections += [] if places else [new]
    write_text(OUT, "\n## ".join(part.rstrip("\n") + "\n" for part in (head, *sections)))
