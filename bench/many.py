"""50,000 small files to a host, as root, on this machine alone: `biom3d remote send` beside `rsync -a`.

An sshd of its own; both programs connect anew, look at all files, send and end; their start is included. In turns, each
into a folder that is not there. Ours hashes every file here and once more on the host. Nothing is removed in
between: ext4 is slow to make files where many were removed within the last minute.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from gate import served
from line import put_section, timed

FOLDERS = 100


def make_files(folder: Path, count: int, size: int) -> None:
    """Make files of random bytes, spread over folders."""
    random = np.random.default_rng(7)
    for number in range(count):
        path = folder / f"{number % FOLDERS}" / f"image_{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(size))


def measure(folder: Path, count: int, size: int, repeats: int) -> str:
    """Return the table."""
    make_files(folder / "images", count, size)
    ours: dict[str, list[float]] = {"first": [], "again": []}
    rsync: dict[str, list[float]] = {"first": [], "again": []}
    with served(folder, []):
        profile = folder / "profile" / "profile.yaml"
        profile.parent.mkdir()
        for number in range(repeats):
            work, home = folder / f"work{number}", folder / f"home{number}"
            profile.write_text(
                f"executor: host\nhost-address: server\nhost-config: {folder}/config-open\nhost-workdir: there:{work}\n"
            )
            send = [sys.executable, "-m", "biom3d.remote", "send", str(profile.parent), "many"]
            send += ["--images", str(folder / "images")]
            copy = ["rsync", "-a", "-e", f"ssh -F {folder}/config-open", f"{folder}/images", f"server:{work}.rsync/"]
            for way in ours:
                ours[way].append(timed(partial(run_quietly, send, home)))
                rsync[way].append(timed(partial(run_quietly, copy, home)))
    lines = ["| | at most | ours, s | rsync -a, s | ours / rsync |", "|---|---|---|---|---|"]
    for way, most in (("first", "1.0"), ("again", "-")):
        mine, peer = statistics.median(ours[way]), statistics.median(rsync[way])
        what = f"{count:,} files of {size} bytes, {way}"
        lines.append(f"| {what} | {most} | {mine:.1f} | {peer:.1f} | {mine / peer:.2f} |")
    return "\n".join(lines) + "\n"


def run_quietly(words: list[str], cache: Path) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": str(cache)})
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")


def main() -> None:
    """Measure, and print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=660)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        table = measure(Path(name), options.count, options.size, options.repeats)
    print(table)
    facts = f"{os.cpu_count()} cores for both ends; load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    put_section("Many files", f"{(__doc__ or '').partition(chr(10) * 2)[2].strip()}\n{facts}\n\n{table}")


if __name__ == "__main__":
    main()
