"""The life of a job on any host: prepare -> stage -> start -> follow -> collect -> clean.

Every stage may be cut short at any moment, by anything. Nothing here remembers: what is done is read from the host,
where the job's folder is and what supervises the job (runtime.py). So the same job, asked for again, is adopted or its
results are taken.
"""

import json
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from biom3d.errors import ContainerError, DataError, HostError, JobError, LostConnection, TransferError
from biom3d.files import write_json
from biom3d.remote import claims, gpus, held
from biom3d.remote.claims import Keep
from biom3d.remote.containers import Containers
from biom3d.remote.ends import END_WELL, FOUND_DEAD, REMOVED, SIGKILL, SIGTERM, End, cause_of, explain_end
from biom3d.remote.engine import MB
from biom3d.remote.host import Entry, Host, Say
from biom3d.remote.job import (
    DEVICE_TAKEN,
    EXIT,
    LABEL,
    RUN,
    TIME_LIMIT,
    JobSpec,
    fit,
    identify,
    steps_script,
    supervisor_script,
)
from biom3d.remote.room import Room, lacking
from biom3d.remote.runtime import Capacity, Found, Launch, Runtime, Software

STARTS = 3  # a job killed from outside (a restarted engine) is started again, this often in all
GIVE_UP_S = 900.0  # an engine or a line that is away for longer is somebody's to repair
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STARTING_S, STARTING_POLL_S = 15.0, 0.2  # a container made and not started for longer is of a client that was killed
POLL_S = 1.0  # while a job waits for cores, memory or a GPU
FULL = ("No space left on device", "disk is full", "Disk quota exceeded")  # in the words of programs, and our steps
STOP_PAUSES_S = (0.0, 1.0, 3.0, 10.0)  # before each attempt to stop a job over a line that is lost


@dataclass(frozen=True)
class Job:
    """A job on its host: identity, what it runs with, inputs, folder there, what the host has in all."""

    spec: JobSpec
    id: str
    software: Software
    entries: tuple[Entry, ...]
    folder: PurePosixPath
    capacity: Capacity


class Runner:
    """Runs jobs on one host, each in the thread that calls.

    `records` is a folder here, on the client, that remembers which jobs have ended; `devices` limits the GPUs used.
    `runtime` supervises the jobs: containers, if nothing is said. `keep` says which folders stay on the host.
    """

    def __init__(
        self,
        host: Host,
        records: Path,
        devices: tuple[str, ...] | None = None,
        runtime: Runtime | None = None,
        keep: Keep = "failed",
    ) -> None:
        self.host = host
        self.records = records
        self.devices = devices
        self.runtime: Runtime = runtime or Containers(host)
        self.keep = keep
        self.client = claims.client_name(records)
        self.room = Room(self.runtime)

    def run(self, spec: JobSpec, workdir: Path, say: Say, stop: threading.Event) -> str:
        """Run the job and bring its outputs to `workdir`; return its id.

        Raises:
            JobError: it ran and failed, or was stopped.
            HostError, ContainerError, TransferError, DataError: it could not be run, which its log tells as well.
        """
        try:
            return self._run(spec, workdir, say, stop)
        except (HostError, ContainerError, TransferError, DataError) as error:
            add_to_log([workdir / command.log for command in spec.commands if command.log][:1], f"error: {error}")
            raise

    def _run(self, spec: JobSpec, workdir: Path, say: Say, stop: threading.Event) -> str:
        job = self._prepare(spec)
        life = Life(self, job, workdir, say, stop)
        lost_since, pause = None, FIRST_PAUSE_S
        while True:
            try:
                life.live()
                return job.id
            except LostConnection as error:
                if stop.is_set():
                    life.stop_after_all(error)
                if lost_since is None or life.heard > lost_since:  # it was back in between
                    lost_since, pause = time.monotonic(), FIRST_PAUSE_S
                if time.monotonic() - lost_since > GIVE_UP_S:
                    raise HostError(f"{error}; the job may still run: give the same command again later") from error
                say(f"connection lost, trying again ({error})")
                stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def check(self, images: Iterable[str], gpus_wanted: int) -> None:
        """Ask the host for what jobs are going to need, before the first starts; raises what `run` would."""
        self.runtime.check(images)
        if gpus_wanted:
            self.usable_devices(gpus_wanted)

    def usable_devices(self, wanted: int) -> tuple[str, ...]:
        """Return the GPUs that jobs may use, busy or not; HostError if there are fewer than `wanted`."""
        there = gpus.find_devices(self.host)
        usable = tuple(device for device in there if self.devices is None or device in self.devices)
        if len(usable) < wanted:
            raise HostError(
                f"{self.host.name}: {wanted} GPU(s) wanted, and it has {len(usable)} to use"
                f" (nvidia-smi lists {', '.join(there) or 'none'}); set gpu: 0 in config.yaml to compute on the CPU"
            )
        return usable

    def release(self, workdir: Path) -> None:
        """Let go of what the host holds for jobs of `workdir` though nothing there stands for it any more."""
        if self.host.is_here:
            return
        for one in held.unwanted(self.records, workdir, self.host.name):
            folder = self.host.root / "jobs" / one.job
            if claims.leave(self.host, folder, self.client):
                self.host.remove(folder)
                self.host.let_go({item.key for item in one.files})
            held.forget(self.records, one)

    def _prepare(self, spec: JobSpec) -> Job:
        capacity = self.runtime.capacity()
        software = self.runtime.find_software(spec.image)
        entries = self.host.identify(spec.inputs)
        # The host is everybody's: the same job of another account or in another folder is another one.
        job_id = identify(spec, f"{software.id} in {self.host.root}", entries)
        fitting = replace(spec, resources=fit(spec.resources, capacity.cores, capacity.memory_mb))
        return Job(fitting, job_id, software, entries, self.host.root / "jobs" / job_id, capacity)


class Life:
    """One job on its way. `live` may be called again after any failure: it reads from the host what is done."""

    def __init__(self, runner: Runner, job: Job, workdir: Path, say: Say, stop: threading.Event) -> None:
        self._runner, self._host, self._runtime, self._job = runner, runner.host, runner.runtime, job
        self._workdir, self._say, self._stop = workdir, say, stop
        self._follower = runner.runtime.follow(job.id, say)
        self._starts = 0
        self._has_run = False
        self._starter = ""  # of what runs, if that is somebody else
        self._free_bytes = 0  # of the host's disk, when we joined the job
        self.heard = 0.0  # when the host last answered

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
                self._join_folder()
            try:
                self._start()
            except ContainerError as error:
                if not self._has_run and end is None:
                    raise
                # It has run here before, so this will pass: an engine that is being restarted refuses for a while.
                raise LostConnection(str(error)) from error
            self._has_run = True
            end = self._follow()
            if end.code == DEVICE_TAKEN and self._job.spec.resources.gpus:
                end = None
            else:
                self._starts += 1
        self._collect(end)

    def stop_after_all(self, error: Exception) -> NoReturn:
        """Stop the job, whose line was lost while it was asked to stop; say so plainly if that cannot be done.

        Raises:
            JobError: always.
        """
        for pause in STOP_PAUSES_S:
            time.sleep(pause)
            try:
                if self._starter:
                    raise self._error(f"goes on, for {self._starter} started it")
                self._runtime.source(self._job.id).stop()
                self._runtime.remove(self._job.id)
                claims.leave(self._host, self._job.folder, self._runner.client)
            except (HostError, ContainerError) as now:
                self._say(f"connection lost while it stops, trying again ({now})")
                error = now
            else:
                raise self._error("stopped; the same command goes on")
        raise self._error(
            f"may still run, for it could not be stopped ({error}); the same command goes on with it, and"
            f" 'biom3d remote cancel PROFILE {self._job.id[:12]}' stops it"
        )

    def _was_killed(self, end: End) -> bool:
        """Say whether somebody else ended the job: a person, a restarted engine, the system; not a limit, not we."""
        is_signal = end.code in (SIGKILL, SIGTERM) and not end.is_out_of_memory and not self._stop.is_set()
        return is_signal and not claims.who_cancelled(self._host, self._job.folder)

    def _take_up(self) -> End | None:
        """Return the end of the job if it runs already or has ended well; None if it is to be started."""
        code = self._join_folder()
        found = self._find()
        if found is None:
            # What ran may have been removed since; the exit code beside the results stays.
            return END_WELL if code == END_WELL.code else None
        if found.is_running:
            self._join(found)
            return self._follow()
        if found.end is not None and found.end.code == END_WELL.code:
            self._say("has ended meanwhile; taking its results")
            return found.end
        self._runtime.remove(self._job.id)
        return None

    def _find(self) -> Found | None:
        """Return what the host knows of the job; what another client has made and not yet started gets its time."""
        found, until, is_told = self._runtime.find(self._job.id), time.monotonic() + STARTING_S, False
        while found is not None and found.is_prepared and time.monotonic() < until and not self._stop.is_set():
            if not is_told:
                self._say("another client is about to start it, waiting a moment")
                is_told = True
            self._stop.wait(STARTING_POLL_S)
            found = self._runtime.find(self._job.id)
        self.heard = time.monotonic()
        return found

    def _join_folder(self) -> int | None:
        """Say on the host that we follow the job; return its exit code, if it has one."""
        joined = claims.join(self._host, self._job.folder, self._runner.client)
        self._free_bytes = joined.free_bytes
        return joined.code

    def _follow(self) -> End:
        """Return the end of the job; what it wrote down itself counts, if nobody else knows."""
        end = self._follower.wait(self._stop, may_stop=not self._starter)
        if end is None:
            claims.leave(self._host, self._job.folder, self._runner.client)
            raise self._error(
                f"goes on, for {self._starter} started it; 'biom3d remote cancel PROFILE {self._job.id[:12]} --others'"
                " stops it"
            )
        self._starter = ""
        if end == REMOVED or end.code == FOUND_DEAD:
            code = self._read_exit()
            return REMOVED if code is None else End(code)
        return end

    def _start(self) -> None:
        """Bring what the job needs, wait until the host has room for it, and start it."""
        job = self._job
        self._check_disk()
        try:
            mounts = self._host.stage(job.folder, job.entries, self._say)
        except (DataError, TransferError):
            claims.leave(self._host, job.folder, self._runner.client)
            raise
        scripts = steps_script(job.spec.commands), supervisor_script(job.spec.resources)
        self._host.write_scripts(job.folder, *(script.encode() for script in scripts))
        launch = self._wait_for_room(Launch(job.spec, job.id, job.software, job.folder, job.entries, mounts, ()))
        try:
            found = self._find()
            if found is not None:
                if found.is_running or found.end == END_WELL:  # another client was faster with the same job
                    self._join(found)
                    return
                self._runtime.remove(job.id)
            if not self._runtime.start(launch):
                self._join(self._runtime.find(job.id))
                return
        finally:
            self._runner.room.settle(job.id)
        used = f" on GPU {', '.join(launch.devices)}" if launch.devices else ""
        self._say(f"started in {job.software.text}{used}")

    def _join(self, found: Found | None) -> None:
        """Go on with what another client has started."""
        self._starter = found.starter if found and found.is_running else ""
        self._say(f"runs already{self._by_whom()}; going on with it")

    def _wait_for_room(self, launch: Launch) -> Launch:
        """Wait until cores, memory and GPUs are free for the job, and have them promised; return it with its GPUs."""
        told, room, is_fresh = "", self._runner.room, False
        with room.door:
            while not self._stop.is_set():
                others = room.others(is_fresh)
                devices, lack = self._look_for_room(others)
                if not lack:
                    launch = replace(launch, devices=devices)
                    room.promise(launch.labels)
                    return launch
                if is_fresh:
                    who = ", ".join(other.get(f"{LABEL}.name", "?") for other in others) or "somebody else"
                    if lack != told:
                        self._say(f"waiting: {lack}, held by {who}")
                        told = lack
                    self._stop.wait(POLL_S)
                is_fresh = True
        raise self._error("stopped while it waited")

    def _look_for_room(self, others: Sequence[dict[str, str]]) -> tuple[tuple[str, ...], str]:
        """Return the GPUs to use, and what these jobs leave too little of."""
        resources = self._job.spec.resources
        lack = lacking(resources, self._job.capacity, others)
        if lack or not resources.gpus:
            return (), lack
        usable = self._runner.usable_devices(resources.gpus)
        promised = self._runner.room.promised_devices()
        free = tuple(device for device in gpus.find_free(self._host, usable) if device not in promised)
        if len(free) < resources.gpus:
            return (), f"{resources.gpus} GPU(s) wanted, {len(free)} of {len(usable)} free"
        return free[: resources.gpus], ""

    def _collect(self, end: End) -> None:
        """Bring outputs and logs back, then clean up; a failed job brings its logs and keeps its folder to go on in."""
        job = self._job
        if end.code != 0:
            self._bring(job.spec.logs)
            raise self._fail(end)
        missing = self._bring_outputs()
        if missing and self._host.read(job.folder / RUN) is None:
            raise LostConnection(f"{self._host.name}: somebody removed the folder of the job while it was read")
        if not missing:
            self._note_arrival()
        self._clean()
        if missing:
            raise self._error(f"ended well but did not make {', '.join(repr(name) for name in missing)}")

    def _fail(self, end: End) -> JobError:
        """Leave what a failed job goes on with, and return what is to be told of it."""
        job = self._job
        canceller = claims.who_cancelled(self._host, job.folder)
        self._runtime.remove(job.id)
        is_last = claims.leave(self._host, job.folder, self._runner.client)
        if self._stop.is_set():
            return self._error("stopped; the same command goes on")
        if is_last and self._runner.keep == "none":
            self._host.remove(job.folder)
        if canceller:
            add_to_log(self._begun_logs()[-1:], f"stopped with 'biom3d remote cancel' by {canceller}")
            return self._error(f"cancelled with 'biom3d remote cancel' by {canceller}; the same command goes on")
        self._note_cause(end)
        error = explain_end(job.spec, self._host.name, end, self._follower.last_lines)
        return self._damage(end, str(error)) or self._full_disk(str(error)) or error

    def _damage(self, end: End, what: str) -> JobError | None:
        """Return what to tell where the job failed on inputs that are whole here and damaged on the host."""
        if end.is_out_of_memory or end.code in (TIME_LIMIT, SIGKILL, SIGTERM):
            return None
        damaged: list[Entry] = []
        with suppress(HostError, TransferError):
            damaged = self._host.find_damaged(self._job.entries)
        if not damaged:
            return None
        names = ", ".join(f"'{entry.name}'" for entry in damaged[:3]) + (" and more" if len(damaged) > 3 else "")
        return self._not_its_fault(
            f"{names} was damaged on the host after it was sent, and is whole here: see to its disk. The same command"
            " sends it again and goes on.",
            what,
        )

    def _full_disk(self, what: str) -> JobError | None:
        """Return what to tell where the job met a full disk: whose it is, the job cannot know."""
        if self._host.is_here or not any(sign in self._follower.last_lines for sign in FULL):
            return None
        return self._not_its_fault(
            f"the disk that is full is that of {self._host.name} ({self._host.root}); free some space there ('biom3d"
            " remote clean' shows what could go), and run the same command again.",
            what,
        )

    def _not_its_fault(self, cause: str, what: str) -> JobError:
        add_to_log(self._begun_logs()[-1:], f"error: {cause}")
        return self._error(f"{cause}\nWhat the job said: {what}")

    def _note_cause(self, end: End) -> None:
        """Add to the log of the step that was at work what it could not say itself: that it was killed, and why."""
        if end.is_out_of_memory or end.code in (TIME_LIMIT, SIGKILL, SIGTERM):
            add_to_log(self._begun_logs()[-1:], f"error: {cause_of(self._job.spec, end)}")

    def _begun_logs(self) -> list[Path]:
        logs = [self._workdir / command.log for command in self._job.spec.commands if command.log]
        return [log for log in logs if log.is_file()]

    def _clean(self) -> None:
        with ThreadPoolExecutor(1) as beside:
            keeping = beside.submit(self._host.keep, self._job.folder)
            self._runtime.remove(self._job.id)  # whoever else follows it finds exit code and results in the folder
            keeping.result()
        if self._job.spec.stays and not self._host.is_here:
            return  # the folder is held until `Runner.release`
        is_kept = self._runner.keep == "all"
        is_last = claims.leave(self._host, self._job.folder, self._runner.client, is_removed=not is_kept)
        if is_last and is_kept:
            claims.set_aside(self._host, self._job.folder)
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

    def _by_whom(self) -> str:
        return f", started by {self._starter}" if self._starter else ""

    def _bring_outputs(self) -> tuple[str, ...]:
        """Bring logs and outputs, and have held what stays on the host; return the outputs that are not there."""
        spec = self._job.spec
        stays = () if self._host.is_here else spec.stays
        names = (*spec.logs, *(name for name in spec.outputs if name not in stays))
        missing = tuple(name for name in self._bring(names) if name not in spec.logs)
        if not stays:
            return missing
        kept = self._host.hold(self._job.folder, [(name, self._workdir / name) for name in stays])
        for one in kept:
            held.note(self._runner.records, one)
            self._say(f"'{one.name}' stays on {self._host.name}, where it is used")
        return (*missing, *(name for name in stays if name not in {one.name for one in kept}))

    def _bring(self, names: Sequence[str]) -> tuple[str, ...]:
        return self._host.collect(self._job.folder, [(name, self._workdir / name) for name in names], self._say)

    def _error(self, what: str) -> JobError:
        return JobError(f"job '{self._job.spec.name}' on {self._host.name}: {what}")

    def _check_disk(self) -> None:
        free_mb = self._free_bytes // MB
        wanted_mb = self._job.spec.resources.disk_mb
        if free_mb < wanted_mb:
            raise HostError(
                f"{self._host.name}: {free_mb} MB free in {self._host.root}, and job '{self._job.spec.name}' may need"
                f" {wanted_mb} MB (its disk_mb); free some space"
            )

    def _read_exit(self) -> int | None:
        text = self._host.read(self._job.folder / EXIT)
        return int(text) if text and text.strip().isdigit() else None


def add_to_log(logs: Iterable[Path], what: str) -> None:
    """Add to the logs of steps what these could not say themselves: the table at the end of a run reads it there."""
    for path in logs:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as log:
                log.write(f"job: {' '.join(what.split())}\n")


def _signature(path: Path) -> list[int] | None:
    """Return what changes when a file or folder is replaced; None if it is not there."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return [facts.st_dev, facts.st_ino, facts.st_ctime_ns]
