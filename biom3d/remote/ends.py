"""How a job ended, and what that means for the people who wait for it."""

from dataclasses import dataclass

from biom3d.errors import JobError
from biom3d.remote.job import DEVICE_TAKEN, TIME_LIMIT, JobSpec

SIGKILL, SIGTERM = 137, 143  # exit codes: 128 + signal
FOUND_DEAD = 255  # what Docker says of a container that is dead after its own start: the host lost its power, say
CANNOT_START = (125, 126, 127)
GRACE_S = 40  # from the request to stop to the kill; a training writes its checkpoint in between
LAST_LINES = 10


@dataclass(frozen=True)
class End:
    """How a job ended."""

    code: int
    is_out_of_memory: bool = False


END_WELL = End(0)
REMOVED = End(SIGKILL)  # nobody knows: what ran was killed or removed from outside


def explain_end(spec: JobSpec, host: str, end: End, last_lines: str) -> JobError:
    """Return what a failed job's end means, and what to do."""
    return JobError(f"job '{spec.name}' on {host}: {cause_of(spec, end)}{_tail(last_lines)}{_log(spec)}")


def cause_of(spec: JobSpec, end: End) -> str:
    """Return what ended a failed job, and what to do about it."""
    resources = spec.resources
    if end.is_out_of_memory:
        return (
            f"out of memory: it may use {resources.mem_mb} MB; give it more, for example"
            f" --set-resources {spec.commands[-1].rule}:mem_mb={2 * resources.mem_mb}, or make its work smaller"
        )
    if end.code == TIME_LIMIT and resources.runtime_min:
        return (
            f"stopped after {resources.runtime_min} min, its time limit; give it more with"
            f" --set-resources {spec.commands[-1].rule}:runtime=MINUTES"
        )
    if end.code == SIGKILL:
        return (
            "killed from outside (by a person, the engine or the system; Podman and a host without containers may also"
            f" say so of a job that needs more than its {resources.mem_mb} MB of memory); the same command goes on"
        )
    if end.code == SIGTERM:
        return "stopped from outside; the same command goes on"
    if end.code in CANNOT_START:
        return f"exit {end.code}: bash or the command is not in its image or environment"
    if end.code == DEVICE_TAKEN:
        return "its GPU was taken by another job meanwhile"
    return f"exit {end.code}"


def _tail(last_lines: str) -> str:
    lines = last_lines.strip().splitlines()[-LAST_LINES:]
    return "".join(["; last lines:\n", *(f"  {line}\n" for line in lines)]) if lines else "; "


def _log(spec: JobSpec) -> str:
    return f"log: {', '.join(spec.logs)}" if spec.logs else "it keeps no log"
