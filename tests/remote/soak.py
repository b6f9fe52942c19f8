"""A soak: three people, two machines, many jobs, faults of twelve kinds; nothing lost, nothing run twice, nothing left.

python -m tests.remote.soak [--minutes 30] [--jobs 60] [--faults 30] [--seed N]        (as root; `make soak`)
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from biom3d.errors import Biom3dError
from biom3d.events import Reporter
from biom3d.images.base import ensure_base
from biom3d.images.plan import plan_base
from biom3d.images.table import load_table
from biom3d.remote import verbs
from biom3d.remote.claims import CLAIMS
from biom3d.remote.containers import Containers
from biom3d.remote.job import EXIT
from biom3d.remote.venv import Venv
from tests.docker_engine import answering
from tests.leftovers import make_folder, remove_leftovers
from tests.remote.machine import Machine
from tests.remote.server import Account, make_key, names_in
from tests.remote.soak_people import PATIENCE, Person, Project
from tests.remote.test_gpus import copy_image

LOOK_S = 0.1
PATIENCE_S = 90.0
LONGEST_REST_S = 300.0  # from the last fault to the end of all
JOB_OVERHEAD_S = 2.0
CORES = 2  # of each machine that jobs use side by side


@dataclass
class Wish:
    """How long and how hard."""

    minutes: float = 30.0
    jobs: int = 60
    faults: int = 30
    seed: int = 1


@dataclass
class Soak:
    """The whole of it, in `folder`."""

    folder: Path
    wish: Wish
    image: str
    machines: list[Machine] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    projects: list[Project] = field(default_factory=list)
    twins: list[Project] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    arrived: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    ended: dict[str, str] = field(default_factory=dict)  # token of a run that ended well -> job

    # --- set up and clear away ---

    def set_up(self, source: object) -> None:
        """Switch machines on, let people in, give them work."""
        self.random = random.Random(self.wish.seed)
        self.accounts = [Account(), Account()]
        lab, own = self.accounts
        keys = self.folder / "keys"
        keys.mkdir()
        people = [
            Person("anna", lab, make_key(keys / "anna")),
            Person("ben", lab, make_key(keys / "ben"), is_gated=True),
            Person("carla", own, make_key(keys / "carla")),
        ]
        each = self.wish.jobs // (2 * len(people))
        spread_s = self.wish.minutes * 60 * CORES / (each * len(people)) * 0.5
        steps = max(3, round((spread_s - JOB_OVERHEAD_S) / 0.2))
        for number, has_engine in enumerate((True, False)):
            machine = Machine(self.folder / f"machine-{number + 1}", has_engine)
            self.machines.append(machine)
            if has_engine:
                copy_image(self.image, source, machine.engine())
            for person in people:
                shared = machine.disk / person.account.name
                if has_engine:
                    subprocess.run(["usermod", "-aG", machine.socket.group(), person.account.name], check=True)
                log = str(person.account.home / f"{person.name}-{machine.name}.log")
                allowed = {"engine_socket": str(machine.socket), "images": [self.image]}
                settings = allowed if has_engine else {"venv": True, "read_only": [str(machine.environment)]}
                person.let_in(machine, shared, json.dumps({"log": log, **settings}))
                folder = self.folder / f"{person.name}-{machine.name}"
                seed = self.random.randrange(2**32)
                self.projects.append(Project(folder, person, machine, self.image, shared, each, steps, seed))

    def clear_away(self) -> None:
        """Leave nothing, however it ended."""
        for project in (*self.projects, *self.twins):
            project.attempts = PATIENCE  # no more
            if project.process and project.process.poll() is None:
                project.process.kill()
            if project.thread.is_alive():
                project.thread.join()
            project.line.__exit__()
        for machine in self.machines:
            machine.remove()
        for account in self.accounts:
            account.remove()

    # --- run ---

    def run(self) -> list[str]:
        """Let people work, do the faults one after the other as the work goes on; return what is wrong."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,))
        watcher.start()
        for project in self.projects:
            project.thread.start()
        try:
            self._do_faults()
            end = time.monotonic() + LONGEST_REST_S
            for project in (*self.projects, *self.twins):
                project.thread.join(max(1.0, end - time.monotonic()))
                if project.thread.is_alive():
                    project.wrong.append(f"{project.name}: not done {LONGEST_REST_S:g} s after the last fault")
        finally:
            over.set()
            watcher.join()
        self._look()
        return self._judge()

    def _do_faults(self) -> None:
        kinds = [kind for _ in range(-(-self.wish.faults // len(FAULTS))) for kind in self._shuffled()]
        for number, kind in enumerate(kinds[: self.wish.faults]):
            due = number * self.wish.jobs * 0.6 / self.wish.faults
            while sum(project.done() for project in self.projects) < due and self._is_at_work():
                time.sleep(LOOK_S)
            end = time.monotonic() + PATIENCE_S
            while self._is_at_work() and time.monotonic() < end:
                if text := FAULTS[kind](self):
                    self.faults.append(kind)
                    print(f"{time.strftime('%H:%M:%S')} fault {len(self.faults)}: {kind}: {text}", flush=True)
                    break
                time.sleep(LOOK_S)

    def _shuffled(self) -> list[str]:
        return self.random.sample(list(FAULTS), len(FAULTS))

    def _is_at_work(self) -> bool:
        return any(project.thread.is_alive() for project in self.projects)

    def at_work(self, has_engine: bool | None = None) -> tuple[Project, str] | None:
        """Return some project and a job of it that runs now."""
        found = [
            (project, folder.name)
            for project in self.projects
            if has_engine in (None, project.machine.has_engine) and project.process and project.process.poll() is None
            for folder in self._job_folders(project.machine)
            if (folder / CLAIMS / project.claim).exists() and any(folder.glob("work/part.*")) and not _has_ended(folder)
        ]
        return self.random.choice(found) if found else None

    def on(self, machine: Machine) -> list[Project]:
        """Return all that is done on a machine."""
        return [one for one in (*self.projects, *self.twins) if one.machine is machine]

    @staticmethod
    def _job_folders(machine: Machine) -> list[Path]:
        return list(machine.disk.glob("*/.biom3d/jobs/*"))

    # --- what happens, as seen from outside ---

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        for project in (*self.projects, *self.twins):
            for path in project.folder.glob("token/*"):
                with contextlib.suppress(OSError):
                    self.arrived[project.name, path.name].add(path.read_text())
        for machine in self.machines:
            for folder in self._job_folders(machine):
                with contextlib.suppress(OSError):
                    if (folder / EXIT).read_text().strip() == "0":
                        for path in folder.glob("work/token/*"):
                            self.ended[path.read_text()] = f"{machine.name}: job {path.name} in {folder}"

    def _judge(self) -> list[str]:
        """Return what must not be."""
        every = [*self.projects, *self.twins]
        wrong = [what for project in every for what in (*project.wrong, *project.differences())]
        twice = [f"{name} {k}" for (name, k), tokens in self.arrived.items() if len(tokens) > 1]
        taken = set().union(*self.arrived.values())
        lost = [job for token, job in self.ended.items() if token not in taken]
        wrong += [f"{what}: ran again after it had ended well" for what in twice]
        wrong += [f"{what}: ended well, and its results were not taken" for what in lost]
        for project in every:
            left = [path for name in ("locks", "incomplete") for path in project.folder.glob(f".snakemake/{name}/*")]
            left += [path for path in project.folder.rglob(".tmp-*") if not path.name.endswith(".lock")]
            wrong += [f"{path}: left" for path in left]
        for machine in self.machines:
            wrong += self._left_on(machine)
        return wrong

    def _left_on(self, machine: Machine) -> list[str]:
        end = time.monotonic() + 60  # connections are being closed
        while machine.strangers() and time.monotonic() < end:
            time.sleep(LOOK_S)
        left = [f"{machine.name}: still runs: {what}" for what in machine.strangers()]
        for place in machine.disk.glob("*/.biom3d*"):
            left += [f"{place}/{part}/{name}: left" for part in ("jobs", "tmp") for name in names_in(place / part)]
            left += [f"{place}/{name}: left" for name in names_in(place) if name not in ("jobs", "tmp", "store")]
        if machine.has_engine:
            left += [f"{machine.name}: {one.name} left" for one in machine.engine().containers.list(all=True)]
        return left


def _has_ended(folder: Path) -> bool:
    return (folder / EXIT).exists()


# --- faults: each says what it did, or nothing if it could not be done now ---


def kill_client(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    project, job = found
    project.touched["kill of the client"] += 1
    assert project.process
    project.process.kill()
    return f"{project.name}, job {job[:6]}"


def press_ctrl_c(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    project, _ = found
    project.touched["Ctrl-C"] += 1
    assert project.process
    project.process.send_signal(signal.SIGINT)
    return project.name


def kill_sshd(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    touch_all(soak, found[0].machine, "kill of sshd")
    found[0].machine.restart_sshd()
    return found[0].machine.name


def cut_line(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    found[0].touched["cut of the line"] += 1
    found[0].line.cut()
    return found[0].name


def slow_line(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    found[0].touched["slow line"] += 1
    found[0].line.pause_s = 0.3
    time.sleep(3)
    found[0].line.pause_s = 0.0
    return found[0].name


def kill_container(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    project, job = found
    touch_followers(soak, project.machine, job, "kill of a container")
    return f"{project.name}, job {job[:6]}" if project.machine.kill_job(job) else ""


def restart_engine(soak: Soak) -> str:
    if not (found := soak.at_work(has_engine=True)):
        return ""
    touch_all(soak, found[0].machine, "restart of the engine")
    found[0].machine.restart_engine()
    return found[0].machine.name


def fill_disk(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    machine = found[0].machine
    touch_all(soak, machine, "full disk")
    ballast = machine.disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    time.sleep(4)
    ballast.unlink()
    return machine.name


def cancel(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    project, job_id = found
    host = project.host()
    touch_followers(soak, project.machine, job_id, "cancel")
    try:
        runtime = Containers(host) if project.machine.has_engine else Venv(host, str(project.machine.environment))
        job = verbs.find_job(verbs.list_jobs(host, runtime), job_id)
        return f"{project.name}, job {job_id[:6]}: {verbs.cancel(host, job, runtime, project.person.name, True)}"
    except Biom3dError:  # it has just ended
        return ""
    finally:
        host.close()


def start_twin(soak: Soak) -> str:
    """Let another client ask for a job that runs."""
    if not (found := soak.at_work()):
        return ""
    first, job = found
    parts = list(first.machine.disk.glob(f"*/.biom3d/jobs/{job}/work/part.*"))
    if not parts:
        return ""
    k = int(parts[0].name[5:])
    others = [p for p in soak.projects if p.machine is first.machine and p.person.account is first.person.account]
    person = soak.random.choice(others).person
    folder = soak.folder / f"twin-{len(soak.twins)}-{person.name}-{first.machine.name}"
    copied = (first.machine, first.image, first.workdir, first.jobs, first.steps, first.seed)
    twin = Project(folder, person, *copied, wanted=f"out/{k}")
    for name in [f"out/{n}" for n in range(k) if (first.folder / f"out/{n}").exists()]:
        for one in (name, name.replace("out", "token")):
            (twin.folder / one).parent.mkdir(exist_ok=True)
            shutil.copy2(first.folder / one, twin.folder / one)
    twin.touched.update(first.touched)
    soak.twins.append(twin)
    twin.thread.start()
    return f"{person.name} asks for job {job[:6]} of {first.name}, too"


def damage(soak: Soak) -> str:
    """Change a byte of what a job reads, with or without a trace, and have the job read it again."""
    if not (found := soak.at_work()):
        return ""
    project, job = found
    inputs = list(project.machine.disk.glob(f"*/.biom3d/jobs/{job}/work/part.*"))
    if not inputs:
        return ""
    digest = hashlib.sha256((project.folder / f"in/{inputs[0].name[5:]}").read_bytes()).hexdigest()
    path = project.workdir / f".biom3d/store/{digest[:2]}/{digest}"
    if not path.exists():
        return ""
    touch_followers(soak, project.machine, job, "damage")
    facts, data = path.stat(), bytearray(path.read_bytes())
    data[1000] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(facts.st_mode & 0o777)
    is_hidden = soak.random.random() < 0.5
    if is_hidden:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    project.machine.kill_job(job)
    return f"{project.name}, job {job[:6]}{', without a trace' if is_hidden else ''}"


def cut_power(soak: Soak) -> str:
    if not (found := soak.at_work()):
        return ""
    machine = found[0].machine
    touch_all(soak, machine, "power cut")
    machine.pull_the_plug()
    machine.boot()
    return machine.name


def touch_all(soak: Soak, machine: Machine, kind: str) -> None:
    for project in soak.on(machine):
        project.touched[kind] += 1


def touch_followers(soak: Soak, machine: Machine, job: str, kind: str) -> None:
    """Note a fault for all who follow the job."""
    for project in soak.on(machine):
        if any(machine.disk.glob(f"*/.biom3d/jobs/{job}/{CLAIMS}/{project.claim}")):
            project.touched[kind] += 1


FAULTS: dict[str, Callable[[Soak], str]] = {
    "kill of the client": kill_client,
    "Ctrl-C": press_ctrl_c,
    "kill of sshd": kill_sshd,
    "cut of the line": cut_line,
    "slow line": slow_line,
    "kill of a container": kill_container,
    "restart of the engine": restart_engine,
    "full disk": fill_disk,
    "cancel": cancel,
    "a second client": start_twin,
    "damage": damage,
    "power cut": cut_power,
}


def soak(wish: Wish, source: object, image: str, keep: bool = False) -> tuple[list[str], Counter[str], Path]:
    """Do it all; return what is wrong, the faults done by kind, and the folder with all that was said."""
    folder = make_folder("soak")
    folder.chmod(0o755)
    one = Soak(folder, wish, image)
    wrong = ["it did not come to its end"]
    try:
        one.set_up(source)
        wrong = one.run()
    finally:
        one.clear_away()
        if not wrong and not keep:
            shutil.rmtree(folder)
    return wrong, Counter(one.faults), folder


def main() -> int:
    """Soak, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.remote.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--jobs", type=int, default=60, help="of all people together, a multiple of 6")
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    remove_leftovers()
    client = answering()
    assert client, "no container engine answers, of which the soak takes the image"
    table = load_table()
    ensure_base(client, table, "bookworm", Reporter("images"))
    begin = time.monotonic()
    wish = Wish(args.minutes, args.jobs, args.faults, args.seed)
    wrong, faults, folder = soak(wish, client, plan_base(table, "bookworm").reference)
    minutes = (time.monotonic() - begin) / 60
    print(f"{minutes:.1f} min, seed {args.seed}, {args.jobs} jobs, {sum(faults.values())} faults: {dict(faults)}")
    print(*(wrong or ["all as it has to be"]), sep="\n")
    if wrong:
        print(f"what was said: {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
