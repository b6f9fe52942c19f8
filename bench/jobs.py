"""Small jobs on a host against `ssh host docker run`, as root: `python bench/jobs.py --emulator PROGRAM`.

A job that does nothing, in an image that is there: from the moment it is given to us until its end is known here and
its folder and container are gone. The peer is `ssh host docker run --rm IMAGE true` on the same line, in turns with
ours: with a connection of its own, as one types it, and on one that is up already, as ours is. The line and the name
spaces are those of transport.py; the host's engine is this machine's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from line import emulated_line, put_section, timed

from biom3d.remote.containers import Containers
from biom3d.remote.job import Command, JobSpec
from biom3d.remote.lifecycle import Runner
from biom3d.remote.runtime import Capacity
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings

LINE = "100 Mbit/s, 20 ms"
AT_ONCE = 20
LOG_LINES = 20
BASE = "biom3d-workflow/base"
TALK = f"for i in $(seq {LOG_LINES}); do date +%s.%N; sleep 0.1; done"


class Roomy(Containers):
    """An engine whose host is said to be bigger: else jobs wait for its cores, and it is its size that is measured."""

    def __init__(self, host: SSHHost, cores: int) -> None:
        super().__init__(host)
        self._cores = cores

    def capacity(self) -> Capacity:
        """Return what is said of the host."""
        return replace(super().capacity(), cores=self._cores)


@dataclass
class Bench:
    """A client at one end of the line, its runner, and the ssh command of the peer."""

    runner: Runner
    image: str
    config: Path
    folder: Path
    count: int = 0

    def run(self, shell: str = "true", say: Callable[[str], None] = lambda line: None) -> None:
        """Run one job that nobody has run before."""
        self.count += 1
        spec = JobSpec("noop", (Command("noop", f"{shell} # {self.count}"),), self.image, inputs=(), outputs=())
        self.runner.run(spec, self.folder, say, threading.Event())

    def run_peer(self, *options: str) -> None:
        """Run one container as one would by hand."""
        words = ["ssh", "-F", str(self.config), *options, "server", f"docker run --rm --network none {self.image} true"]
        subprocess.run(words, check=True, capture_output=True)


def measure(bench: Bench, repeats: int) -> dict[str, float]:
    """Return seconds by what was done."""
    bench.run()
    bench.run_peer()
    one, cold, warm = [], [], []
    for _ in range(repeats):
        one.append(timed(bench.run))
        cold.append(timed(lambda: bench.run_peer("-o", "ControlPath=none")))
        warm.append(timed(bench.run_peer))
    at_once = [timed(lambda: together(bench.run)) for _ in range(max(1, repeats // 5))]
    peers_at_once = [timed(lambda: together(bench.run_peer)) for _ in range(max(1, repeats // 5))]
    late: list[float] = []
    bench.run(TALK, lambda line: late.append(time.time() - float(line)) if line.startswith("1") else None)
    assert len(late) == LOG_LINES, late
    given = {"one": one, "cold": cold, "warm": warm, "at_once": at_once, "peers_at_once": peers_at_once}
    return {name: statistics.median(seconds) for name, seconds in given.items()} | {"line": max(late)}


def together(work: Callable[[], None]) -> None:
    """Do it AT_ONCE times at once."""
    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def show(seconds: dict[str, float]) -> str:
    """Return the table."""
    one, cold, warm = (seconds[name] for name in ("one", "cold", "warm"))
    rows = [
        ("one job, s / `ssh host docker run` that connects", "1.3", f"{one:.2f} / {cold:.2f} = {one / cold:.2f}"),
        ("one job, s / the same on a connection that is up", "-", f"{one:.2f} / {warm:.2f} = {one / warm:.2f}"),
        (
            f"{AT_ONCE} jobs at once, s / one",
            "3",
            f"{seconds['at_once']:.2f} / {one:.2f} = {seconds['at_once'] / one:.2f}",
        ),
        (
            f"{AT_ONCE} `docker run` at once over one connection, s / one",
            "-",
            f"{seconds['peers_at_once']:.2f} / {warm:.2f} = {seconds['peers_at_once'] / warm:.2f}",
        ),
        (
            f"{AT_ONCE} jobs at once, s / {AT_ONCE} `docker run` at once",
            "-",
            f"{seconds['at_once']:.2f} / {seconds['peers_at_once']:.2f} ="
            f" {seconds['at_once'] / seconds['peers_at_once']:.2f}",
        ),
        (
            f"a line of the log, from its writing to the screen, s, the latest of {LOG_LINES}",
            "2",
            f"{seconds['line']:.2f}",
        ),
    ]
    lines = ["| | at most | measured |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def find_image() -> str:
    """Return the image with the least in it that jobs can run in."""
    words = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", BASE]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    if not found:
        raise SystemExit("there is no base image; make one: biom3d images build base")
    return found[0]


def inside(config: Path, folder: Path, image: str, repeats: int, cores: int) -> dict[str, float]:
    """Measure at the client's end of the line."""
    host = SSHHost(SSHSettings("server", config=config, workdir=str(folder / "work")), cache=folder / "cache")
    runner = Runner(host, folder / "records", runtime=Roomy(host, cores) if cores else None)
    try:
        return measure(Bench(runner, image, config, folder), repeats)
    finally:
        host.close()


def main() -> None:
    """Measure, and print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", type=Path, required=True, help="program that joins two name spaces")
    parser.add_argument("--image", help=f"with bash and coreutils; without it one called {BASE}")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--line", default=LINE, help="which line")
    parser.add_argument("--cores", type=int, default=AT_ONCE, help="that jobs are told the host has; 0: as it is")
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    image = options.image or find_image()
    if options.inside:
        config, folder = options.inside
        print(json.dumps(inside(config, folder, image, options.repeats, options.cores)))
        return
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as name,
        emulated_line(options.emulator, options.line, Path(name)) as (space, config),
    ):
        words = [
            "ip",
            "netns",
            "exec",
            space,
            sys.executable,
            __file__,
            "--emulator",
            "-",
            "--image",
            image,
            "--inside",
        ]
        words += [str(config), name, "--repeats", str(options.repeats), "--cores", str(options.cores)]
        table = show(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout))
    print(table)
    told = f", jobs were told {options.cores}" if options.cores else ""
    facts = f"{options.line}; {os.cpu_count()} cores in all{told}; load at the end {os.getloadavg()[0]:.1f}"
    put_section("Small jobs", f"{(__doc__ or '').partition(chr(10) * 2)[2].strip()}\n{facts}\n\n{table}")


if __name__ == "__main__":
    main()
