"""A real Slurm for tests: a controller and two nodes on this machine, in a network of their own with loopback only."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.leftovers import make_folder

ROOT = Path(__file__).parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "ip")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PATIENCE_S = 60
# The nodes say that they have more than this machine, so that our rules' 8 threads and 16 GB are granted.
CONFIG = """
ClusterName=tests
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory,CR_LLN
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=10
NodeName=n1 NodeHostname={name} NodeAddr=127.0.0.1 Port=17001 CPUs=32 RealMemory=64000 Gres=gpu:2
NodeName=n2 NodeHostname={name} NodeAddr=127.0.0.1 Port=17002 CPUs=32 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=other Nodes=n2 MaxTime=INFINITE State=UP
"""


def install_plugin(folder: Path) -> Path:
    """Install what `make slurm` adds into a folder for PYTHONPATH: in .venv it would slow down all other tests."""
    options = ["--quiet", "--require-hashes", "--no-deps", "--requirement", str(ROOT / "requirements/slurm.lock")]
    subprocess.run([sys.executable, "-m", "pip", "install", "--target", str(folder), *options], check=True)
    return folder


class Cluster:
    """What a user has on a login node: an environment in which `sbatch` works."""

    def __init__(self, folder: Path, network: str, plugin: Path) -> None:
        self.folder, self.network = folder, network
        self.environ = {**os.environ, "PATH": PATH, "PYTHONPATH": str(plugin)}

    def start(self, *words: str | Path, **options) -> "subprocess.Popen[str]":
        """Start a command in the cluster's network."""
        command = ["ip", "netns", "exec", self.network, *map(str, words)]
        environ = self.environ | options.pop("environ", {})
        return subprocess.Popen(command, env=environ, text=True, **options)

    def run(self, *words: str | Path, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the cluster's network."""
        process = self.start(*words, environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, *said)

    def jobs(self, *options: str, form: str = "%i") -> list[str]:
        """Return a line for each job in the queue."""
        done = self.run("squeue", "--noheader", "--format", form, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def empty(self, *options: str) -> None:
        """End all jobs, or those of which `squeue` tells with these options, and wait until they have gone."""
        if jobs := self.jobs(*options):
            self.run("scancel", *jobs)
        end = time.monotonic() + PATIENCE_S
        while self.jobs(*options):
            assert time.monotonic() < end, "a job of Slurm does not end"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """Say whether both nodes are ready."""
        nodes = self.run("sinfo", "--noheader", "--Node", "--partition", "main", "--format", "%T")
        return nodes.stdout.split() == ["idle", "idle"]


@contextmanager
def running_slurm(plugin: Path) -> Iterator[Cluster]:
    """Run munged, slurmctld and two slurmd while the block lasts; `plugin` is what `install_plugin` returns."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(
            f"the tests of Slurm start one as root and need {', '.join(PROGRAMS)}; missing here: "
            f"{', '.join(missing) or 'root'}; run requirements/system.sh as root"
        )
    with ExitStack() as stack:
        folder = make_folder("slurm")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = Cluster(folder, _make_network(stack, folder), plugin)
        _write_config(folder)
        _start(stack, cluster, "munged", "--foreground", "--force", *_munge_options(folder))
        _wait_for((folder / "munge.socket").exists, cluster)
        _start(stack, cluster, "slurmctld", "-D")
        for node in ("n1", "n2"):
            _start(stack, cluster, "slurmd", "-D", "-N", node)
        _wait_for(cluster.is_ready, cluster)
        stack.callback(cluster.empty)
        yield cluster


def _make_network(stack: ExitStack, folder: Path) -> str:
    """Make a network in which /etc/slurm is `folder`/etc: the plugin takes SLURM_CONF from what it starts."""
    name = f"b3dslurm-{uuid.uuid4().hex[:8]}"
    etc = Path("/etc/netns", name)
    etc.mkdir(parents=True)
    stack.callback(shutil.rmtree, etc)
    (folder / "etc").mkdir()
    (etc / "slurm").symlink_to(folder / "etc")
    subprocess.run(["ip", "netns", "add", name], check=True)
    stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    # Slurm asks the C library for an address of this host, and that does not count those of 127.0.0.0.
    subprocess.run(["ip", "-n", name, "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
    return name


def _write_config(folder: Path) -> None:
    folder.chmod(0o755)  # munge wants its socket where everybody gets to
    key = folder / "munge.key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(1024))
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    (folder / "etc/slurm.conf").write_text(CONFIG.format(folder=folder, name=socket.gethostname()))
    for name in ("gpu0", "gpu1"):
        (folder / name).touch()  # Slurm counts device files, it does not open them
    (folder / "etc/gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu[0-1]\n")
    # Control groups are not used, but slurmd looks for them unless it is told which kind they would be.
    (folder / "etc/cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def _munge_options(folder: Path) -> list[str]:
    names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    return [f"--{option}={folder / name}" for option, name in (names | {"seed-file": "munge.seed"}).items()]


def _start(stack: ExitStack, cluster: Cluster, *words: str | Path) -> None:
    with open(cluster.folder / "daemons.log", "a") as output:
        process = cluster.start(*words, stdout=output, stderr=output)
    stack.callback(process.wait, timeout=PATIENCE_S)
    stack.callback(process.terminate)


def _wait_for(is_so, cluster: Cluster) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            logs = [f"{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(cluster.folder.glob("*.log"))]
            pytest.fail("Slurm did not start; its logs end with\n" + "\n".join(logs))
        time.sleep(0.1)
