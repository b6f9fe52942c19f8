"""Room for jobs on a host: cores, memory and GPUs. Who asks first gets it first, and what was promised counts as taken.

Jobs look for room one after the other, but start beside each other: between the promise and the moment from which the
host itself shows the job, we remember it.
"""

import threading
import time
from collections.abc import Sequence

from biom3d.remote.job import LABEL, Resources
from biom3d.remote.runtime import Capacity, Runtime

LISTED_S = 0.5  # for so long a list of the running jobs serves all who ask; other clients may be faster in any case


class Room:
    """What the jobs of all clients have taken of one host; hold `door` from the look to the promise."""

    def __init__(self, runtime: Runtime) -> None:
        self.door = threading.Lock()
        self._runtime = runtime
        self._lock = threading.Lock()
        self._listed: list[dict[str, str]] = []
        self._listed_at = -LISTED_S
        self._promised: dict[str, dict[str, str]] = {}  # labels by job
        self._started_at: dict[str, float] = {}  # of the promised ones; a list that is older may not show them

    def others(self, is_fresh: bool = False) -> list[dict[str, str]]:
        """Return the labels of all jobs that run or are about to; `is_fresh`: as it is now."""
        if is_fresh or time.monotonic() - self._listed_at > LISTED_S:
            asked_at = time.monotonic()
            self._listed = self._runtime.running()
            self._listed_at = asked_at
            self._forget_before(asked_at)
        shown = {labels[LABEL] for labels in self._listed}
        with self._lock:
            return [*self._listed, *(labels for job, labels in self._promised.items() if job not in shown)]

    def promise(self, labels: dict[str, str]) -> None:
        """Count a job, which is about to start, as one that runs."""
        with self._lock:
            self._promised[labels[LABEL]] = labels
            self._started_at.pop(labels[LABEL], None)

    def settle(self, job_id: str) -> None:
        """Say that the job has started, or will not: from now on the host knows."""
        with self._lock:
            self._started_at[job_id] = time.monotonic()

    def promised_devices(self) -> set[str]:
        """Return the GPUs of jobs that may not yet hold their leases."""
        with self._lock:
            return {device for labels in self._promised.values() for device in labels[f"{LABEL}.gpus"].split()}

    def _forget_before(self, moment: float) -> None:
        with self._lock:
            for job in [job for job, started_at in self._started_at.items() if started_at < moment]:
                del self._started_at[job]
                self._promised.pop(job, None)


def lacking(resources: Resources, host: Capacity, others: Sequence[dict[str, str]]) -> str:
    """Say which of cores and memory the running jobs leave too little of; nothing lacks for the first job."""
    for label, wanted, there, unit in (
        ("threads", resources.threads, host.cores, "cores"),
        ("mem_mb", resources.mem_mb, host.memory_mb, "MB of memory"),
    ):
        taken = sum(int(other.get(f"{LABEL}.{label}") or 0) for other in others)
        if others and taken + wanted > there:
            return f"{wanted} {unit} wanted, {max(0, there - taken)} of {there} free"
    return ""
