"""All that we change in a running Snakemake: each change has a name, a reason and what it counts on.

Snakemake has no option for any of these. `find_surprises` says what of a new Snakemake is no longer as they expect it;
a test calls it, so that an update fails there, with a name, and not in the middle of a run.
"""

import functools
import inspect
from typing import Any

import snakemake.api  # before snakemake.workflow: they import each other
import snakemake.common
import snakemake.io
import snakemake.jobs
import snakemake.persistence
import snakemake.rules
from snakemake import __version__ as version
from snakemake.io import _IOFile
from snakemake.jobs import Job
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.enums import Quietness, RerunTrigger
from snakemake.settings.types import DAGSettings, OutputSettings
from snakemake.workflow import Workflow

OUR_FOLDERS = ("results/", "logs/", "data/pred/", "data/preprocessed/", ".biom3d/")  # where jobs write


def rerun_by_identity() -> None:
    """Let files and the parameter `identity` alone say what is old: neither the wording of a rule nor a new input.

    Here and not in profiles, so that plain `snakemake` does the same.
    """
    ours = {RerunTrigger.MTIME, RerunTrigger.PARAMS}
    Workflow.rerun_triggers = property(lambda self: ours & set(self.dag_settings.rerun_triggers))


def remember_parameters() -> None:
    """Ask `inspect` once for the parameters of a function, not 15 times a job: a tenth of the time of a dry run."""
    if not hasattr(snakemake.rules.get_function_params, "cache_info"):
        remembered = functools.cache(snakemake.rules.get_function_params)
        snakemake.rules.get_function_params = remembered
        snakemake.common.get_function_params = remembered


def ask_for_no_conda() -> None:
    """Say at once that no job has a conda environment; Snakemake makes all parameters of a job to find that."""
    Job.conda_env_spec = None


def outlive_lost_files() -> None:
    """Let a data set that goes away while the run goes on fail its jobs alone; Snakemake ends the whole run.

    It hashes small inputs after each job: without a hash it notes none, and the next run looks again. It waits for the
    inputs of a job: for what no job of ours makes the step looks itself, and says what it misses.
    """
    if not hasattr(_IOFile.checksum, "of_snakemake"):
        _IOFile.checksum = _checksum_if_readable(_IOFile.checksum)
    snakemake.jobs.wait_for_files = _wait_for_our_files


def _checksum_if_readable(checksum: Any) -> Any:
    async def guarded(self: Any, *args: Any, **named: Any) -> Any:
        try:
            return await checksum(self, *args, **named)
        except OSError:
            return None

    guarded.of_snakemake = checksum  # type: ignore[attr-defined]
    return guarded


async def _wait_for_our_files(files: Any, *args: Any, **named: Any) -> None:
    ours = [file for file in files if str(file).startswith(OUR_FOLDERS)]
    await snakemake.io.wait_for_files(ours, *args, **named)


def end_after_plan(workflow: Any) -> None:
    """End a dry run after its plan, as where it has to be quiet; of 2,000 rows it lists 30,000 lines."""
    object.__setattr__(workflow.output_settings, "quiet", {Quietness.RULES, Quietness.PROGRESS})


def look_without_lock() -> None:
    """Let a dry run not ask for Snakemake's lock, which says nothing of who has it, and outlives a killed run."""
    prepare = Workflow._prepare_dag
    Workflow._prepare_dag = lambda self, *args, **named: prepare(self, *args, **{**named, "nolock": True})


def find_surprises() -> list[str]:
    """Return what is not as the changes above (and `stopping`) expect it in this Snakemake, one line each."""
    execute, schedule = inspect.getsource(Workflow.execute), inspect.getsource(JobScheduler.schedule)
    triggers, parameters = inspect.getattr_static(Workflow, "rerun_triggers", None), snakemake.rules.get_function_params
    quiet = "quiet == {Quietness.RULES, Quietness.PROGRESS}"
    finished, prepare = inspect.getsource(snakemake.persistence), inspect.getsource(Job.prepare)
    wanted = {
        "rerun_by_identity: Workflow.rerun_triggers is a property": isinstance(triggers, property),
        "rerun_by_identity: dag_settings.rerun_triggers": "rerun_triggers" in DAGSettings.__dataclass_fields__,
        "remember_parameters: the name is known to both": parameters is snakemake.common.get_function_params,
        "ask_for_no_conda: Job.conda_env_spec": hasattr(Job, "conda_env_spec"),
        "outlive_lost_files: persistence asks inputs for checksum()": "await infile.checksum(" in finished,
        "outlive_lost_files: Job.prepare() calls wait_for_files(inputs)": "await wait_for_files(" in prepare,
        "end_after_plan: output_settings.quiet": "quiet" in OutputSettings.__dataclass_fields__,
        "end_after_plan: execute() ends where quiet is both": quiet in execute,
        "look_without_lock: execute() tells _prepare_dag by name": "nolock=not self.execution_settings.lock" in execute,
        "stopping: schedule() cancels where it is interrupted": "except (KeyboardInterrupt" in schedule,
    }
    return [f"Snakemake {version} has changed what we count on: {what}" for what, is_so in wanted.items() if not is_so]
