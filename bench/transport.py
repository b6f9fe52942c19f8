"""Staging and collecting against rsync on emulated lines, as root: `python bench/transport.py --emulator PROGRAM`.

PROGRAM joins two network name spaces by a line: `PROGRAM CLIENT SERVER MBIT RTT_MS LOSS_PERCENT QUEUE_BYTES 1` makes a
device `lnk0` in both. Both sides share this machine's processors, and all files lie in memory. Clocks run from a
connection that is up to files that are whole: ours are verified by hash by then, rsync's are not. What is read here for
its hash before (1 GB/s, once) is not in the figures of the rates, and is in those of "nothing changed".
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transport_more
from line import LINES, MIB, emulated_line, put_section, run, timed
from transport_more import make_small, open_host

LONG_S = 8.0  # runs of a data set are repeated within this time
DATA = ("big file", "volumes", "small files", "masks")


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
        make_small(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(config: Path, folder: Path, repeats: int, scale: float, kinds: Sequence[str]) -> list[dict]:
    """Measure all data sets on the line that this process sees; called in the client's name space."""
    rows = []
    for kind in kinds:
        source = folder / "data" / kind.replace(" ", "-")
        size = make_data(source, kind, scale)
        runs: list[tuple[tuple[float, float], tuple[float, float]]] = []
        start = time.monotonic()
        while len(runs) < repeats and (not runs or time.monotonic() - start < LONG_S):
            runs.append((_ours(config, source, folder), _rsync(config, source, folder)))
        ours, theirs = zip(*runs, strict=True)  # in turns: both see the same machine
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
    host, target = open_host(config, folder), folder / "got"
    work = Path(host.settings.workdir)
    job = host.root / "jobs" / "a"
    entries = host.identify([("data", source)])
    put = timed(lambda: host.stage(job, entries, lambda line: None))
    get = timed(lambda: host.collect(job, [("data", target)], lambda line: None))
    host.close()
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) == sum(e.size for e in entries)
    shutil.rmtree(work)
    shutil.rmtree(target)
    return put, get


def _rsync(config: Path, source: Path, folder: Path) -> tuple[float, float]:
    there, target = folder / "there", folder / "got"
    ssh = f"ssh -F {config}"
    run(*ssh.split(), "server", "true")  # the connection stays up
    put = timed(lambda: run("rsync", "-a", "-e", ssh, f"{source}/", f"server:{there}/"))
    get = timed(lambda: run("rsync", "-a", "-e", ssh, f"server:{there}/", f"{target}/"))
    shutil.rmtree(there)
    shutil.rmtree(target)
    return put, get


def show(rows: list[Row]) -> str:
    """Return the table."""
    lines = [
        "| data | way | MB | ours, MB/s | of the line | rsync, MB/s | ours / rsync | runs |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        ours, theirs = (row.size / 1e6 / statistics.median(runs) for runs in (row.ours_s, row.rsync_s))
        limit = LINES[row.line][0] * 0.941 / 8
        lines.append(
            f"| {row.data} | {row.way} | {row.size / 1e6:.0f} | {ours:.1f} | {ours / limit:.2f} |"
            f" {theirs:.1f} | {ours / theirs:.2f} | {len(row.ours_s)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every line, and print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", type=Path, required=True, help="program that joins two name spaces")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="sizes, as a part of the usual ones")
    parser.add_argument("--lines", nargs="*", default=list(LINES)[:3], help="which lines")
    parser.add_argument("--data", nargs="*", default=list(DATA), help="which data sets")
    parser.add_argument("--more", choices=("also", "only", "not"), default="also", help="the second table")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        what, config, folder = options.inside[0], *map(Path, options.inside[1:])
        if what == "more":
            print(json.dumps(transport_more.measure(config, folder)))
        else:
            print(json.dumps(measure(config, folder, options.repeats, options.scale, options.data)))
        return
    for line in options.lines if options.more != "only" else ():
        table = show([Row(line, **cell) for cell in _inside(options, line, "rates")])
        print(table, flush=True)
        put_section(f"Staging against rsync, {line}", f"{_when()}\n\n{table}")
    if options.more != "not":
        table = transport_more.show(_inside(options, transport_more.LINE, "more"))
        print(table)
        put_section("What is not a rate", f"Line: {transport_more.LINE}; {_when()}\n\n{table}")


def _when() -> str:
    load = os.getloadavg()[0]
    return f"medians, ours and the peer in turns; load of the machine's {os.cpu_count()} cores at the end: {load:.1f}"


def _inside(options: argparse.Namespace, line: str, what: str) -> Any:
    """Run this program at the client's end of a line; return what it measures."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as name,
        emulated_line(options.emulator, line, Path(name)) as (space, config),
    ):
        words = ["ip", "netns", "exec", space, sys.executable, __file__, "--emulator", "-", "--inside", what]
        words += [str(config), name, "--repeats", str(options.repeats), "--scale", str(options.scale)]
        words += ["--data", *options.data]
        return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    main()
