"""What the gate of a server costs: `python bench/gate.py`, as root, on this machine alone.

An sshd of its own and two keys of one account: one opens a shell, the other the gate as `biom3d server authorize` puts
it there. Each figure is a median of pairs, gated and not, in turns: a command on a connection that is up (it asks for
the free space of the disk), and two jobs in images that are there, from being given to us until container and folder
are gone: one that does nothing, and one of the smallest that people run, which makes two volumes of 16³ voxels (synth).
"""

import argparse
import getpass
import json
import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs import BASE
from line import SSHD, end, free_port, put_section, run, timed, wait

from biom3d.remote.job import Command, JobSpec
from biom3d.remote.lifecycle import Runner
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
from biom3d.server.gatekeeper import install_gate

SOCKET = "/var/run/docker.sock"
COMMANDS, JOBS = 30, 15
SMALL = "python -m biom3d.synth --count 2 --shape 16 16 16 made"
STEPS = "biom3d-workflow/cpu"
Pairs = dict[bool, Callable[[], object]]  # with the gate (True) and without


@contextmanager
def served(folder: Path, images: list[str]) -> Iterator[dict[bool, SSHHost]]:
    """Yield the host without (False) and with the gate (True)."""
    port = free_port()
    for name in ("host_key", "open", "gated"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    workdir = folder / "work"
    workdir.mkdir()
    settings = {"log": str(folder / "gate.log"), "engine_socket": SOCKET, "images": images}
    (folder / "gate.json").write_text(json.dumps(settings))
    gate = install_gate(folder)
    forced = f"{gate} --name anna --workdir {workdir} --config {folder / 'gate.json'}"
    keys = {name: (folder / f"{name}.pub").read_text() for name in ("open", "gated")}
    (folder / "keys").write_text(f'{keys["open"]}restrict,command="{forced}" {keys["gated"]}')
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nMaxStartups 100\nSetEnv SHLVL=1\n"  # no ~/.bashrc
    )
    (folder / "known_hosts").write_text("server " + (folder / "host_key.pub").read_text())
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-f", str(folder / "sshd_config")])
    hosts: dict[bool, SSHHost] = {}
    try:
        wait(lambda: f"127.0.0.1:{port} " in run("ss", "-ltn"))
        for is_gated, key in ((False, "open"), (True, "gated")):
            config = folder / f"config-{key}"
            config.write_text(
                f"Host server\n HostName 127.0.0.1\n Port {port}\n HostKeyAlias server\n User {getpass.getuser()}\n"
                f" IdentityFile {folder}/{key}\n UserKnownHostsFile {folder}/known_hosts\n IdentityAgent none\n"
            )
            given = SSHSettings("server", config=config, workdir=str(workdir))
            hosts[is_gated] = SSHHost(given, cache=folder / "cache")
        yield hosts
    finally:
        for host in hosts.values():
            host.close()
        end(server)


def median_pair(works: Pairs, repeats: int) -> dict[bool, float]:
    """Return the median time of each, taken in turns after one that does not count."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for work in works.values():
        work()
    for _ in range(repeats):
        for is_gated, work in works.items():
            times[is_gated].append(timed(work))
    return {is_gated: statistics.median(seconds) for is_gated, seconds in times.items()}


def make_job(host: SSHHost, image: str, folder: Path, shell: str, made: tuple[str, ...]) -> Callable[[], object]:
    """Return what runs a job that nobody has run before."""
    runner, count = Runner(host, folder / "records"), iter(range(10**6))

    def work() -> None:
        command = Command("small", f"{shell} # {id(runner)} {next(count)}", makes=made)
        spec = JobSpec("small", (command,), image, inputs=(), outputs=made)
        runner.run(spec, folder, lambda line: None, threading.Event())

    return work


def find_image(repository: str) -> str:
    """Return the newest image of that name that jobs can run in."""
    lines = run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", repository).split()
    found = [line for line in lines if ":dependencies" not in line]
    if not found:
        raise SystemExit(
            f"there is no image {repository}; make it: biom3d images build {repository.rpartition('/')[2]}"
        )
    return found[0]


def row(what: str, repeats: int, most: str, unit: float, seconds: dict[bool, float]) -> str:
    """Return a row of the table; `most` is of a time, or of the ratio where it ends in `x`."""
    gated, direct = seconds[True], seconds[False]
    digits = 0 if unit > 1 else 2
    times = f"{gated * unit:.{digits}f} | {direct * unit:.{digits}f} | {gated / direct:.2f}"
    return f"| {what}, median of {repeats} pairs | {most} | {times} |"


def measure() -> str:
    """Return the table."""
    # By their ids: a name may be given to another image while this runs.
    base, steps = (run("docker", "inspect", "--format", "{{.Id}}", find_image(name)).strip() for name in (BASE, STEPS))
    lines = ["| | at most | with the gate | without | ratio |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name, served(Path(name), [base, steps]) as hosts:
        asks: Pairs = {is_gated: host.free_bytes for is_gated, host in hosts.items()}
        lines.append(row("a command, ms", COMMANDS, "60 ms", 1e3, median_pair(asks, COMMANDS)))
        for what, most, image, shell, made in (
            ("a job that does nothing, s", "-", base, "true", ()),
            ("a small job, s", "1.15 x", steps, SMALL, ("made",)),
        ):
            works: Pairs = {
                is_gated: make_job(host, image, Path(name), shell, made) for is_gated, host in hosts.items()
            }
            lines.append(row(what, JOBS, most, 1.0, median_pair(works, JOBS)))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print and keep the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    before = os.getloadavg()[0]
    table = measure()
    print(table)
    facts = f"{os.cpu_count()} cores, shared with the server; load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    put_section("The gate", f"{(__doc__ or '').partition(chr(10) * 2)[2].strip()}\n{facts}\n\n{table}")


if __name__ == "__main__":
    main()
