"""Staging and collecting against rsync on emulated lines, as root: `python bench/transport.py --emulator PROGRAM`.

PROGRAM joins two network name spaces by a line: `PROGRAM CLIENT SERVER MBIT RTT_MS LOSS_PERCENT QUEUE_BYTES 1` makes a
device `lnk0` in both. Both sides share this machine's processors, and all files lie in memory. Clocks run from a
connection that is up to files that are whole: ours are verified by hash by then, rsync's are not.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biom3d.files import write_text
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings

OUT = Path(__file__).parent / "transport.md"
MIB = 2**20
SSHD = "/usr/sbin/sshd"
ADDRESS = "10.198.0.2"
# Line -> Mbit/s, round trip in ms, queue in bytes. The payload limit of TCP is 0.941 of the line.
LINES = {
    "1 Gbit/s, 1 ms": (1000, 1, 1_500_000),
    "100 Mbit/s, 20 ms": (100, 20, 1_500_000),
    "1 Gbit/s, 30 ms": (1000, 30, 3_750_000),
}
DATA = ("big file", "volumes", "small files", "masks")
START_LIMIT_S = 10


@dataclass(frozen=True)
class Row:
    """One cell of the table: seconds of every run."""

    line: str
    data: str
    way: str
    size: int
    ours_s: list[float]
    rsync_s: list[float]


def make_data(folder: Path, kind: str, scale: float) -> int:
    """Make one data set; return its bytes."""
    random = np.random.default_rng(7)
    folder.mkdir(parents=True)
    if kind == "big file":
        (folder / "big").write_bytes(random.bytes(int(256 * scale) * MIB))
    elif kind == "volumes":  # 16 bits of smooth signal with shot noise: zstd -1 makes it about 2.4 times smaller
        for number in range(max(2, int(10 * scale))):
            signal = 100 + 80 * np.sin(np.linspace(0, 40, 25 * MIB // 2) + number)
            (folder / f"{number}.tif").write_bytes(random.poisson(signal).astype("uint16").tobytes())
    elif kind == "masks":
        for number in range(max(2, int(20 * scale))):
            labels = np.zeros(12 * MIB, "uint8")
            for start in random.integers(0, labels.size - 60_000, 40):
                labels[start : start + 50_000] = number + 1
            (folder / f"{number}.tif").write_bytes(labels.tobytes())
    else:
        for number in range(5000):
            path = folder / f"{number % 50}" / f"{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(random.bytes(4096))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def emulated_line(emulator: Path, line: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the client's name space and an ssh configuration in which `server` is at the other end of the line."""
    spaces = [f"b3dbench{os.getpid()}{side}" for side in "cs"]
    rate, rtt, queue = LINES[line]
    with contextlib.ExitStack() as stack:
        for space in spaces:
            _run("ip", "netns", "add", space)
            stack.callback(subprocess.run, ["ip", "netns", "del", space])
            _run("ip", "-n", space, "link", "set", "lo", "up")
        words = [str(emulator), *spaces, str(rate), str(rtt), "0", str(queue), "1"]
        link = subprocess.Popen(["nice", "-n", "-18", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(_end, link)
        _wait(lambda: all(_has_device(space) for space in spaces))
        for space, address in zip(spaces, ("10.198.0.1", ADDRESS), strict=True):
            _run("ip", "-n", space, "addr", "add", f"{address}/30", "dev", "lnk0")
            _run("ip", "-n", space, "link", "set", "lnk0", "up", "mtu", "1500", "gso_max_size", "16384")
        config = _configure(folder)
        server = subprocess.Popen(["ip", "netns", "exec", spaces[1], SSHD, "-D", "-f", str(folder / "sshd_config")])
        stack.callback(_end, server)
        _wait(lambda: _run("ip", "netns", "exec", spaces[1], "ss", "-ltn").count(":22 ") > 0)
        yield spaces[0], config


def _configure(folder: Path) -> Path:
    """Write keys and configurations of both sides; return the client's."""
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host_key", "key"):
        if not (folder / name).exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
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


def measure(config: Path, folder: Path, repeats: int, scale: float) -> list[dict]:
    """Measure all data sets on the line that this process sees; called in the client's name space."""
    rows = []
    for kind in DATA:
        source = folder / "data" / kind.replace(" ", "-")
        size = make_data(source, kind, scale)
        ours = [_ours(config, source, folder) for _ in range(repeats)]
        theirs = [_rsync(config, source, folder) for _ in range(repeats)]
        for place, way in enumerate(("put", "get")):
            rows.append(
                {
                    "data": kind,
                    "way": way,
                    "size": size,
                    "ours_s": [run[place] for run in ours],
                    "rsync_s": [run[place] for run in theirs],
                }
            )
        shutil.rmtree(source)
    return rows


def _ours(config: Path, source: Path, folder: Path) -> tuple[float, float]:
    work, target = folder / f"w{uuid.uuid4().hex[:6]}", folder / "got"
    host = SSHHost(SSHSettings("server", config=config, workdir=str(work)), cache=folder / f"{work.name}.cache")
    job = host.root / "jobs" / "a"
    entries = host.identify([("data", source)])
    put = _timed(lambda: host.stage(job, entries, lambda line: None))
    get = _timed(lambda: host.collect(job, [("data", target)], lambda line: None))
    host.close()
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) == sum(e.size for e in entries)
    shutil.rmtree(work)
    shutil.rmtree(target)
    return put, get


def _rsync(config: Path, source: Path, folder: Path) -> tuple[float, float]:
    there, target = folder / "there", folder / "got"
    ssh = f"ssh -F {config}"
    _run(*ssh.split(), "server", "true")  # the connection stays up
    put = _timed(lambda: _run("rsync", "-a", "-e", ssh, f"{source}/", f"server:{there}/"))
    get = _timed(lambda: _run("rsync", "-a", "-e", ssh, f"server:{there}/", f"{target}/"))
    shutil.rmtree(there)
    shutil.rmtree(target)
    return put, get


def show(rows: list[Row]) -> str:
    """Return the table."""
    lines = [
        "| line | data | way | MB | ours, MB/s | of the line | rsync, MB/s | ours / rsync | runs |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        ours, theirs = (row.size / 1e6 / statistics.median(runs) for runs in (row.ours_s, row.rsync_s))
        limit = LINES[row.line][0] * 0.941 / 8
        lines.append(
            f"| {row.line} | {row.data} | {row.way} | {row.size / 1e6:.0f} | {ours:.1f} | {ours / limit:.2f} |"
            f" {theirs:.1f} | {ours / theirs:.2f} | {len(row.ours_s)} |"
        )
    return "\n".join(lines) + "\n"


def _timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()


def _has_device(space: str) -> bool:
    return subprocess.run(["ip", "-n", space, "link", "show", "lnk0"], capture_output=True).returncode == 0


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + START_LIMIT_S
    pause = threading.Event()
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit("the emulated line did not come up")
        pause.wait(0.05)


def main() -> None:
    """Measure every line, and print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", type=Path, required=True, help="program that joins two name spaces")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="sizes, as a part of the usual ones")
    parser.add_argument("--lines", nargs="*", default=list(LINES), help="which lines")
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(*options.inside, options.repeats, options.scale)))
        return
    rows: list[Row] = []
    for line in options.lines:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as name,
            emulated_line(options.emulator, line, Path(name)) as it,
        ):
            space, config = it
            words = [
                "ip",
                "netns",
                "exec",
                space,
                sys.executable,
                __file__,
                "--emulator",
                "-",
                "--inside",
                str(config),
                name,
            ]
            words += ["--repeats", str(options.repeats), "--scale", str(options.scale)]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
            rows += [Row(line, **cell) for cell in json.loads(done.stdout)]
            print(show(rows[-8:]), flush=True)
    write_text(OUT, f"# Staging against rsync\n\n{__doc__}\n{show(rows)}")


if __name__ == "__main__":
    main()
