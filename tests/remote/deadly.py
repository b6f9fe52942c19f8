"""Snakemake that kills itself (SIGKILL) right after a named step in the life of one job.

python -m tests.remote.deadly JOB STEP [WORD of Snakemake ...]
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import snakemake_executor_plugin_host as plugin

from biom3d.remote import claims, lifecycle, local, ssh, venv

# What the client does for a job, in this order; each is one function.
STEPS: dict[str, tuple[Any, ...]] = {
    "join": (claims, "join"),
    "stage": (local.LocalHost, "stage"),
    "stage over SSH": (ssh.SSHHost, "stage"),
    "wait for room": (lifecycle.Life, "_wait_for_room"),
    "start": (venv.Venv, "start"),
    "follow": (lifecycle.Life, "_follow"),
    "bring": (lifecycle.Life, "_bring_outputs"),
    "note arrival": (lifecycle.Life, "_note_arrival"),
    "leave": (claims, "leave"),
    "forget": (venv.Venv, "remove"),
    "clean": (lifecycle.Life, "_clean"),
    "end": (lifecycle.Runner, "run"),
    "report": (plugin.Executor, "report_job_success"),
}


def make_deadly(job: str, step: str) -> None:
    """Replace the step by one that ends this process, once the job has begun."""
    begun: list[str] = []
    run = lifecycle.Runner.run

    def begin(self: Any, spec: Any, *args: Any) -> str:
        begun.extend([spec.name] if spec.name == job else [])
        return run(self, spec, *args)

    lifecycle.Runner.run = begin  # type: ignore[method-assign]
    owner, name = STEPS[step]
    real: Callable[..., Any] = getattr(owner, name)

    def deadly(*args: Any, **named: Any) -> Any:
        result = real(*args, **named)
        if begun or (step == "end" and args[1].name == job):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


if __name__ == "__main__":
    from snakemake.cli import main

    make_deadly(*sys.argv[1:3])
    main(sys.argv[3:])
