"""What is not a rate: nothing to do, content that is there, memory, a client that is killed. Used by transport.py."""

import shutil
import statistics
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from line import MIB, run, timed, wait

from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings

LINE = "1 Gbit/s, 20 ms"
GIB = 2**30
SETTLE_S = 2.5  # a file younger than that is read again by us, as it may still change
SENT = Path("/sys/class/net/lnk0/statistics/tx_bytes")
# A client of its own, so that its memory can be measured and it can be killed: way, configuration, folder there, data.
CLIENT = """
import sys
from pathlib import Path
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
way, config, work, data = sys.argv[1:]
host = SSHHost(SSHSettings("server", config=Path(config), workdir=work), cache=Path(f"{work}.cache"))
job = host.root / "jobs" / "a"
if way == "put":
    host.stage(job, host.identify([("data", Path(data))]), lambda line: None)
else:
    host.collect(job, [("data", Path(data))], lambda line: None)
host.close()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # getrusage counts the parent in
print(int(peak.split()[1]) // 1024)
"""


def measure(config: Path, folder: Path) -> list[tuple[str, str, str, str]]:
    """Measure what is not a rate: what, asked, ours, rsync."""
    return [
        _nothing_changed(config, folder),
        _shared(config, folder),
        *_memory_and_kill(config, folder),
    ]


def make_small(folder: Path) -> None:
    """Make 5,000 files of 4 KiB in 50 folders."""
    random = np.random.default_rng(7)
    for number in range(5000):
        path = folder / f"{number % 50}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(4096))


def _nothing_changed(config: Path, folder: Path) -> tuple[str, str, str, str]:
    source = folder / "data"
    make_small(source)
    host = open_host(config, folder)
    job = host.root / "jobs"
    host.stage(job / "a", host.identify([("data", source)]), lambda line: None)
    threading.Event().wait(SETTLE_S)
    host.identify([("data", source)])  # the first time that they may be remembered

    def again(name: str) -> Callable[[], object]:
        return lambda: host.stage(job / name, host.identify([("data", source)]), lambda line: None)

    ours = statistics.median(timed(again(name)) for name in "bcd")
    host.close()
    sync = ["rsync", "-a", "-e", f"ssh -F {config}", f"{source}/", f"server:{folder}/there/"]
    run(*sync)
    theirs = statistics.median(timed(lambda: run(*sync)) for _ in range(3))
    shutil.rmtree(source)
    return "nothing changed, 5,000 files, s", "1", f"{ours:.2f}", f"{theirs:.2f}"


def _shared(config: Path, folder: Path) -> tuple[str, str, str, str]:
    """Send a data set of which 90 % is there under other names."""
    first, second, random = folder / "first", folder / "second", np.random.default_rng(7)
    for number in range(200):
        content = random.bytes(MIB // 2)
        for place, name in ((first, f"{number}"), (second, f"other-{number}")):
            place.mkdir(exist_ok=True)
            (place / name).write_bytes(content if place == first or number % 10 else random.bytes(MIB // 2))
    host = open_host(config, folder)
    for name, source in (("first", first), ("second", second)):
        entries = host.identify([("data", source)])
        before = _sent()
        host.stage(host.root / "jobs" / name, entries, lambda line: None)
        ours = _sent() - before
    host.close()
    ssh = f"ssh -F {config}"
    run("rsync", "-a", "-e", ssh, f"{first}/", f"server:{folder}/there/shared/")
    before = _sent()
    run("rsync", "-a", "-e", ssh, f"{second}/", f"server:{folder}/there/shared/")
    size = 200 * MIB / 2
    what = "a second data set with 90 % of the content of the first, bytes sent / its bytes"
    return what, "0.12", f"{ours / size:.3f}", f"{(_sent() - before) / size:.3f}"


def _memory_and_kill(config: Path, folder: Path) -> list[tuple[str, str, str, str]]:
    """Send 1 GiB whole, fetch it, and send another one with a client that is killed at half."""
    rows = []
    source, target = folder / "1GiB", folder / "back"
    _fill(source, 1)
    before = _sent()
    memory = {"sent": _client("put", config, folder / "whole", source)}
    whole = _sent() - before
    memory["fetched"] = _client("get", config, folder / "whole", target)
    for way, peak in memory.items():
        rows.append((f"memory of the client, 1 GiB {way}, MB", "200", peak, "-"))
    target.unlink()
    shutil.rmtree(folder / "whole")
    before = _sent()
    killed = subprocess.Popen([sys.executable, "-c", CLIENT, "put", config, folder / "cut", source])
    wait(lambda: _sent() - before > whole // 2, 60)
    killed.kill()
    killed.wait()
    _client("put", config, folder / "cut", source)
    again = (_sent() - before) / whole - 1
    rows.append(("1 GiB, client killed at half and started again, sent twice", "0.05", f"{again:.3f}", "-"))
    source.unlink()
    return rows


def _fill(path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    with open(path, "wb") as file:
        for _ in range(GIB // (64 * MIB)):
            file.write(random.bytes(64 * MIB))


def _client(way: str, config: Path, work: Path, data: Path) -> str:
    """Run a client; return its greatest memory in MB."""
    return run(sys.executable, "-c", CLIENT, way, str(config), str(work), str(data)).strip()


def open_host(config: Path, folder: Path) -> SSHHost:
    work = folder / f"w{uuid.uuid4().hex[:6]}"
    return SSHHost(SSHSettings("server", config=config, workdir=str(work)), cache=folder / f"{work.name}.cache")


def _sent() -> int:
    """Return the bytes that this side has put on the line."""
    return int(SENT.read_text())


def show(rows: Sequence[tuple[str, str, str, str]]) -> str:
    """Return the second table."""
    lines = ["| | at most | ours | rsync -a |", "|---" * 4 + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
