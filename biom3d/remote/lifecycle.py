"""The life of a job on any host: prepare -> stage -> start -> follow -> collect -> clean.

Every stage may be cut short at any moment, by anything. Nothing here remembers: what is done is read from the host,
where the container and the job's folder are. So the same job, asked for again, is adopted or its results are taken.
"""

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from biom3d.errors import HostError, JobError, LostConnection
from biom3d.files import write_json
from biom3d.remote import gpus
from biom3d.remote.container import (
    LABEL,
    SIGKILL,
    SIGTERM,
    End,
    Place,
    container_name,
    explain_end,
    plan_container,
    read_end,
)
from biom3d.remote.engine import MB, Facts, image_id, read_facts, translated
from biom3d.remote.follow import REMOVED, Follower
from biom3d.remote.host import Entry, Host, Say
from biom3d.remote.job import (
    DEVICE_TAKEN,
    EXIT,
    JobSpec,
    Resources,
    fit,
    identify,
    steps_script,
    supervisor_script,
)

if TYPE_CHECKING:
    from docker.models.containers import Container

STARTS = 3  # a job killed from outside (a restarted engine) is started again, this often in all
GIVE_UP_S = 900.0  # an engine or a line that is away for longer is somebody's to repair
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
POLL_S = 1.0  # while a job waits for cores, memory or a GPU


END_WELL = End(0, is_out_of_memory=False)
CONFLICT = 409  # HTTP: the name is taken


@dataclass(frozen=True)
class Job:
    """A job on its host: identity, id of its image, inputs, folder there."""

    spec: JobSpec
    id: str
    image: str
    entries: tuple[Entry, ...]
    folder: PurePosixPath
    facts: Facts

    @property
    def container(self) -> str:
        """The name of its container."""
        return container_name(self.id)


class Runner:
    """Runs jobs on one host, each in the thread that calls.

    `records` is a folder here, on the client, that remembers which jobs have ended; `devices` limits the GPUs used.
    """

    def __init__(self, host: Host, records: Path, devices: tuple[str, ...] | None = None) -> None:
        self.host = host
        self.records = records
        self.devices = devices
        self.starting = threading.Lock()  # jobs of one client look for room one after the other

    def run(self, spec: JobSpec, workdir: Path, say: Say, stop: threading.Event) -> str:
        """Run the job and bring its outputs to `workdir`; return its id.

        Raises:
            JobError: it ran and failed, or was stopped.
            HostError, ContainerError, TransferError, DataError: it could not be run.
        """
        job = self._prepare(spec)
        life = Life(self, job, workdir, say, stop)
        lost_since, pause = None, FIRST_PAUSE_S
        while True:
            try:
                life.live()
                return job.id
            except LostConnection as error:
                if stop.is_set():
                    raise
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > GIVE_UP_S:
                    raise HostError(f"{error}; the job may still run: give the same command again later") from error
                say(f"connection lost, trying again ({error})")
                stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _prepare(self, spec: JobSpec) -> Job:
        facts = read_facts(self.host.engine(), self.host.name)
        image = image_id(self.host.engine(), self.host.name, spec.image)
        entries = self.host.identify(spec.inputs)
        job_id = identify(spec, image, entries)
        fitting = replace(spec, resources=fit(spec.resources, facts.cores, facts.memory_mb))
        return Job(fitting, job_id, image, entries, self.host.root / "jobs" / job_id, facts)


class Life:
    """One job on its way. `live` may be called again after any failure: it reads from the host what is done."""

    def __init__(self, runner: Runner, job: Job, workdir: Path, say: Say, stop: threading.Event) -> None:
        self._runner, self._host, self._job = runner, runner.host, job
        self._workdir, self._say, self._stop = workdir, say, stop
        self._follower = Follower(runner.host, job.container, say)
        self._starts = 0

    def live(self) -> None:
        """Bring the job to its end, from wherever it is."""
        if self._job.spec.was_cut_short and self._has_arrived():
            self._say("had ended; its results are here")
            self._clean()
            return
        end = self._take_up()
        while end is None or (self._was_killed(end) and self._starts < STARTS):
            if self._stop.is_set():
                raise self._error("stopped before it began")
            if end is not None:
                self._say("killed from outside; starts again")
            self._start()
            end = self._follow()
            if end.code == DEVICE_TAKEN and self._job.spec.resources.gpus:
                end = None
            else:
                self._starts += 1
        self._collect(end)

    def _was_killed(self, end: End) -> bool:
        """Say whether somebody else ended the job: a person, a restarted engine, the system; not a limit, not we."""
        return end.code in (SIGKILL, SIGTERM) and not end.is_out_of_memory and not self._stop.is_set()

    def _take_up(self) -> End | None:
        """Return the end of the job if it runs already or has ended well; None if it is to be started."""
        container = self._find()
        if container is None:
            # A container may have been removed since; the exit code beside the results stays.
            return END_WELL if self._read_exit() == END_WELL.code else None
        with translated(self._host.name, f"for the state of {self._job.container}"):
            end = read_end(container)
        if end is None and container.attrs["State"]["Status"] != "created":
            self._say("runs already; going on with it")
            return self._follow()
        if end is not None and end.code == END_WELL.code:
            self._say("has ended meanwhile; taking its results")
            return end
        self._remove_container()
        return None

    def _follow(self) -> End:
        """Return the end of the job; what it wrote down itself counts, if its container was removed meanwhile."""
        end = self._follower.wait(self._stop)
        return END_WELL if end == REMOVED and self._read_exit() == END_WELL.code else end

    def _start(self) -> None:
        """Bring what the job needs, wait until the host has room for it, and start its container."""
        job = self._job
        self._check_disk()
        mounts = self._host.stage(job.folder, job.entries, self._say)
        self._host.write(job.folder / "steps.sh", steps_script(job.spec.commands).encode())
        self._host.write(job.folder / "run.sh", supervisor_script(job.spec.resources).encode())
        with self._runner.starting:
            devices = self._wait_for_room()
            if self._is_running():  # another client was faster with the same job
                return
            self._remove_container()
            place = Place(job.facts, self._host.user(), devices, gpus.LEASES)
            arguments = plan_container(job.spec, job.id, job.image, job.folder, mounts, place)
            with translated(self._host.name, f"to start a container of image '{job.spec.image}'"):
                _create_or_adopt(self._host.engine().containers, arguments, job.container)
        used = f" on GPU {', '.join(devices)}" if devices else ""
        self._say(f"started in {job.spec.image}{used}")

    def _wait_for_room(self) -> tuple[str, ...]:
        """Wait until cores, memory and GPUs are free for the job; return the GPUs to use."""
        told = ""
        resources = self._job.spec.resources
        while not self._stop.is_set():
            others = self._running()
            lack = lacking(resources, self._job.facts, others)
            devices: tuple[str, ...] = ()
            if not lack and resources.gpus:
                devices, lack = self._choose_devices(resources.gpus)
            if not lack:
                return devices
            who = ", ".join(other[f"{LABEL}.name"] for other in others) or "somebody else"
            if lack != told:
                self._say(f"waiting: {lack}, held by {who}")
                told = lack
            self._stop.wait(POLL_S)
        raise self._error("stopped while it waited")

    def _choose_devices(self, wanted: int) -> tuple[tuple[str, ...], str]:
        """Return `wanted` free devices, or what is lacking."""
        devices = gpus.find_devices(self._host)
        chosen = self._runner.devices
        usable = tuple(device for device in devices if chosen is None or device in chosen)
        if len(usable) < wanted:
            raise HostError(
                f"{self._host.name}: {wanted} GPU(s) wanted, and it has {len(usable)} to use"
                f" (nvidia-smi lists {', '.join(devices) or 'none'}); set gpu: 0 in config.yaml to compute on the CPU"
            )
        free = gpus.find_free(self._host, usable)
        if len(free) < wanted:
            return (), f"{wanted} GPU(s) wanted, {len(free)} of {len(usable)} free"
        return free[:wanted], ""

    def _collect(self, end: End) -> None:
        """Bring outputs and logs back, then clean up; a failed job brings its logs and keeps its folder to go on in."""
        job = self._job
        self._bring(job.spec.logs)
        if end.code != 0:
            self._remove_container()
            if self._stop.is_set():
                raise self._error("stopped; the same command goes on")
            raise explain_end(job.spec, self._host.name, end, self._follower.last_lines)
        missing = self._bring(job.spec.outputs)
        if not missing:
            self._note_arrival()
        self._clean()
        if missing:
            raise self._error(f"ended well but did not make {', '.join(repr(name) for name in missing)}")

    def _clean(self) -> None:
        self._remove_container()
        self._host.remove(self._job.folder)

    def _note_arrival(self) -> None:
        """Remember that all outputs are here: we may die before Snakemake learns it."""
        write_json(self._record(), {name: _signature(self._workdir / name) for name in self._job.spec.outputs})

    def _has_arrived(self) -> bool:
        """Say whether all outputs came from an earlier run of this very job, and nobody touched them since."""
        try:
            noted = json.loads(self._record().read_text())
        except (FileNotFoundError, ValueError):
            return False
        names = self._job.spec.outputs
        return all(noted.get(name) == _signature(self._workdir / name) is not None for name in names)

    def _record(self) -> Path:
        return self._runner.records / f"{self._job.id}.json"

    def _bring(self, names: Sequence[str]) -> tuple[str, ...]:
        return self._host.collect(self._job.folder, [(name, self._workdir / name) for name in names], self._say)

    def _error(self, what: str) -> JobError:
        return JobError(f"job '{self._job.spec.name}' on {self._host.name}: {what}")

    def _check_disk(self) -> None:
        free_mb = self._host.free_bytes() // MB
        wanted_mb = self._job.spec.resources.disk_mb
        if free_mb < wanted_mb:
            raise HostError(
                f"{self._host.name}: {free_mb} MB free in {self._host.root}, and job '{self._job.spec.name}' may need"
                f" {wanted_mb} MB (its disk_mb); free some space"
            )

    def _read_exit(self) -> int | None:
        text = self._host.read(self._job.folder / EXIT)
        return int(text) if text and text.strip().isdigit() else None

    def _running(self) -> list[dict[str, str]]:
        """Return the labels of all jobs that run on the host, also those of other clients."""
        with translated(self._host.name, "which containers run"):
            containers = self._host.engine().containers.list(filters={"label": LABEL}, ignore_removed=True)
            return [container.labels for container in containers]

    def _find(self) -> "Container | None":
        import docker.errors

        with translated(self._host.name, f"for container {self._job.container}"):
            try:
                return self._host.engine().containers.get(self._job.container)
            except docker.errors.NotFound:
                return None

    def _is_running(self) -> bool:
        container = self._find()
        return container is not None and container.status == "running"

    def _remove_container(self) -> None:
        import docker.errors

        container = self._find()
        if container is not None:
            what = f"to remove container {self._job.container}"
            with translated(self._host.name, what), suppress(docker.errors.NotFound):
                container.remove(force=True)


def _signature(path: Path) -> list[int] | None:
    """Return what changes when a file or folder is replaced; None if it is not there."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return [facts.st_dev, facts.st_ino, facts.st_ctime_ns]


def lacking(resources: Resources, facts: Facts, others: Sequence[dict[str, str]]) -> str:
    """Say which of cores and memory the running jobs leave too little of; nothing lacks for the first job."""
    for label, wanted, there, unit in (
        ("threads", resources.threads, facts.cores, "cores"),
        ("mem_mb", resources.mem_mb, facts.memory_mb, "MB of memory"),
    ):
        taken = sum(int(other.get(f"{LABEL}.{label}") or 0) for other in others)
        if others and taken + wanted > there:
            return f"{wanted} {unit} wanted, {max(0, there - taken)} of {there} free"
    return ""


def _create_or_adopt(containers: Any, arguments: dict[str, Any], name: str) -> None:
    """Start the container, or leave it to the client that was faster with the same job."""
    import docker.errors

    try:
        containers.run(**arguments)
    except docker.errors.APIError as error:
        if error.status_code == CONFLICT:
            return
        with suppress(docker.errors.APIError):  # created, but it could not start
            containers.get(name).remove(force=True)
        raise
