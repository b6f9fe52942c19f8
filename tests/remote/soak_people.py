"""People who use machines through everything that goes wrong: each gives the same command until all is done.

What their jobs must give is computed here; what people read is checked line by line against what really happened.
"""

import hashlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from biom3d.remote.claims import client_name
from biom3d.remote.profile import LOCAL_FOLDER
from biom3d.remote.ssh import SSHHost
from biom3d.remote.ssh_config import SSHSettings
from tests.remote.conftest import Client
from tests.remote.machine import Machine
from tests.remote.proxy import FaultProxy
from tests.remote.server import Account
from tests.server.gated import install_gate

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # times that a person gives the same command
AT_ONCE = 3
SIZE = 200_000  # bytes of an input
# Goes on where it was; sees that its input is what was sent; its token tells one run that ended well from another.
JOB = """\
set -e -o pipefail
k=$1 digest=$2 steps=$3 previous=$4
have=$(sha256sum <in/$k) && [ "${have%% *}" = "$digest" ] || { echo "in/$k is not what it was"; exit 3; }
mkdir -p out token part.$k
for step in $(seq "$steps"); do
  [ ! -e part.$k/$step ] || continue
  echo "step $step of $steps"
  sleep 0.2
  echo "$step $digest" >half
  mv half part.$k/$step
done
for step in $(seq "$steps"); do cat part.$k/$step; done | cat - $previous | sha256sum >out/$k
cat /proc/sys/kernel/random/uuid >token/$k
"""
SNAKEFILE = """\
import hashlib, pathlib
def digest(wildcards):
    return hashlib.sha256(pathlib.Path(f"in/{{wildcards.k}}").read_bytes()).hexdigest()
def previous(wildcards):
    return [f"out/{{int(wildcards.k) - {at_once}}}"] if int(wildcards.k) >= {at_once} else []
rule all:
    input: expand("out/{{k}}", k=range({jobs}))
rule job:
    input: "job.sh", "in/{{k}}", previous=previous
    output: "out/{{k}}", "token/{{k}}"
    params: digest=digest
    resources: mem_mb=100
    shell: "bash job.sh {{wildcards.k}} {{params.digest}} {steps} {{input.previous}}"
"""
# What a run may end with, if that was done to it; and what may be said only if it was.
EXPLAINED = {
    "Ctrl-C": "stopp",
    "cancel": "cancelled with 'biom3d remote cancel' by",
    # Where its log is on that disk, and it is free again, nobody can know any more.
    "full disk": r"disk (there|that) is full|No space left on device|MB free in|exit 1; it keeps no log|no message",
    "damage": "was damaged on the host after it was sent, and is whole here",
}
KILLING = {"kill of a container", "restart of the engine", "power cut", "damage"}
CUTTING = {"cut of the line", "slow line", "kill of sshd", "power cut", "restart of the engine"}
SAID_ONLY_IF = {
    r"connection lost": CUTTING,
    r"killed from outside": KILLING,
    r"cancelled with": {"cancel"},
    r"disk there is full|disk that is full|No space left on device|MB free in": {"full disk"},
    r"was damaged on the host": {"damage"},
    r"is not what it was": {"damage"},
    r"out of memory|time limit": set(),
}
NEVER = ("Traceback", "Exception in thread", "Exception ignored", "most recent call")


@dataclass
class Person:
    """Somebody with a key; `is_gated`: it opens nothing but the gate."""

    name: str
    account: Account
    key: Path
    is_gated: bool = False

    def let_in(self, machine: Machine, workdir: Path, gate_settings: str) -> None:
        """Let the key in to a machine, as its administrator."""
        if not workdir.exists():
            workdir.mkdir()
            shutil.chown(workdir, self.account.name, self.account.name)
        forced = ""
        if self.is_gated:
            config = machine.folder / f"{self.name}.json"
            config.write_text(gate_settings)
            gate = install_gate(machine.folder / "biom3d-gate")
            forced = f'restrict,command="{gate} --name {self.name} --workdir {workdir} --config {config}" '
        with open(machine.keys / self.account.name, "a") as file:
            file.write(forced + self.key.with_name(f"{self.key.name}.pub").read_text())


@dataclass
class Project:
    """What one person has computed on one machine."""

    folder: Path
    person: Person
    machine: Machine
    image: str
    workdir: Path
    jobs: int
    steps: int
    seed: int
    wanted: str = "all"
    touched: Counter[str] = field(default_factory=Counter)  # by which faults, in this attempt
    wrong: list[str] = field(default_factory=list)  # what must not be
    attempts: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        assert self.machine.server
        for name in ("in", "client"):
            (self.folder / name).mkdir(parents=True)
        numbers = random.Random(self.seed)
        for k in range(self.jobs):
            (self.folder / f"in/{k}").write_bytes(numbers.randbytes(SIZE))
        (self.folder / "job.sh").write_text(JOB)
        text = SNAKEFILE.format(jobs=self.jobs, steps=self.steps, at_once=AT_ONCE)
        (self.folder / "Snakefile").write_text(text)
        shutil.copy(self.person.key, self.folder / "client/key")
        self.client = Client(self.folder / "client", self.machine.server, self.person.account)
        self.line = FaultProxy(self.machine.server.address, self.machine.server.port)
        self.thread = threading.Thread(target=self._insist, name=str(self.folder))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def claim(self) -> str:
        """What this client is called on machines."""
        return client_name(self.folder / LOCAL_FOLDER / "ended")

    def results(self) -> list[str]:
        """Return what the jobs have to give, whatever happens."""
        made: list[str] = []
        for k in range(self.jobs):
            digest = hashlib.sha256((self.folder / f"in/{k}").read_bytes()).hexdigest()
            text = "".join(f"{step + 1} {digest}\n" for step in range(self.steps))
            text += made[k - AT_ONCE] if k >= AT_ONCE else ""
            made.append(hashlib.sha256(text.encode()).hexdigest() + "  -\n")
        return made

    def differences(self) -> list[str]:
        """Return the results that are not what an undisturbed run gives."""
        wanted = self.results()
        names = [f"out/{k}" for k in range(self.jobs)] if self.wanted == "all" else [self.wanted]
        here = {name: self.folder / name for name in names}
        return [
            f"{self.name}: {name} is not what it has to be"
            for name, path in here.items()
            if not path.is_file() or path.read_text() != wanted[int(name[4:])]
        ]

    def done(self) -> int:
        """Return how many results are here."""
        return sum((self.folder / f"out/{k}").exists() for k in range(self.jobs))

    def host(self) -> SSHHost:
        """Return the person's own way to the machine, for the verbs."""
        socket = str(self.machine.socket) if self.machine.has_engine else None
        settings = SSHSettings(
            "server",
            key_file=self.folder / "client/key",
            config=self.client.config,
            workdir=str(self.workdir),
            engine_socket=socket,
        )
        return SSHHost(settings, None, cache=self.folder / "client/hashes.sqlite")

    def words(self) -> list[str]:
        """Return the person's command."""
        settings = {"address": "server", "config": self.client.config, "key-file": self.folder / "client/key"}
        settings |= {"port": self.line.port, "workdir": self.workdir}
        if self.machine.has_engine:
            settings |= {"engine-socket": self.machine.socket, "image": self.image}
        else:
            settings |= {"runtime": "venv", "venv": self.machine.environment}
        line = [sys.executable, "-m", "snakemake", "--executor", "host", "--jobs", str(AT_ONCE), "--nolock"]
        line += [word for name, value in settings.items() for word in (f"--host-{name}", str(value))]
        return [*line, "--keep-going", "--rerun-incomplete", "--directory", str(self.folder), "--snakefile"]

    def _insist(self) -> None:
        while self.attempts < PATIENCE and not self.wrong:
            if self._try() == 0:
                return
        if self.wrong:
            return
        self.wrong.append(f"{self.name}: not done after {PATIENCE} times the same command")

    def _try(self) -> int:
        """Give the command once; check what it said."""
        lasting = self.touched["damage"]  # until a job reads what is damaged
        self.touched.clear()
        self.touched.update({"damage": lasting} if lasting else {})
        self.attempts += 1
        log = self.folder / f"said-{self.attempts}.log"
        with open(log, "wb") as output:
            words = [*self.words(), str(self.folder / "Snakefile"), self.wanted]
            self.process = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            code = self.process.wait()
        text = log.read_text(errors="replace")
        self.wrong += [f"{log}: {what}" for what in untruths(text, code, self.touched)]
        return code


def untruths(text: str, code: int, touched: Counter[str]) -> list[str]:
    """Return what is wrong with what a run said and how it ended, after what was done to it."""
    wrong = [f"says '{word}'" for word in NEVER if word in text]
    for pattern, causes in SAID_ONLY_IF.items():
        found = re.search(pattern, text)
        if found and not causes & touched.keys():
            wrong.append(f"says '{found[0]}' after {dict(touched) or 'nothing'}")
    reasons = [kind for kind, pattern in EXPLAINED.items() if touched[kind] and re.search(pattern, text)]
    is_killed_often = sum(touched[kind] for kind in KILLING) >= 3 and "killed from outside" in text
    if code == -signal.SIGKILL:
        wrong += [] if touched["kill of the client"] else ["was killed"]
    elif code and not reasons and not is_killed_often:
        wrong.append(f"ended with {code} after {dict(touched) or 'nothing'}, and gives no reason for it")
    for job in set(re.findall(r"^\[(job \d+)\]", text, re.M)):
        own = [line for line in text.splitlines() if line.startswith(f"[{job}] ")]
        over = next(
            (n for n, line in enumerate(own) if "has ended meanwhile" in line or "had ended;" in line), len(own)
        )
        if any("] started in" in line for line in own[over:]):
            wrong.append(f"{job} started after it had ended")
    return wrong
