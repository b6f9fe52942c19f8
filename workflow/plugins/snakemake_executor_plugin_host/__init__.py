"""Snakemake executor: jobs run on this machine (`host: local`) or on a host reached by SSH, in containers or without.

A shim: it translates Snakemake jobs into `biom3d.remote.job.JobSpec`, has `biom3d.remote` run them, and translates
what happens back. Snakemake imports this package at every start, so its top level imports interface packages only.
No postponed annotations here: Snakemake reads the types of the settings.
"""

import asyncio
import threading
import traceback
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_host.lead import lead_on

LOOK_EVERY_S = 0.2  # how soon Snakemake learns that a job has ended; looking costs nothing


lead_on()  # here, because Snakemake imports this before it looks for the profile, and ends where there is none


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Each is an option `--host-NAME` and a profile key `host-NAME`."""

    address: Optional[str] = field(
        default="local",
        metadata={"help": "Where jobs run: 'local' (this machine, without SSH), a name of ~/.ssh/config, an address"},
    )
    port: Optional[int] = field(
        default=None,
        metadata={"help": "Port of the SSH server (default: that of ~/.ssh/config, else 22)"},
    )
    user: Optional[str] = field(
        default=None,
        metadata={"help": "Account on the host (default: that of ~/.ssh/config, else yours here)"},
    )
    key_file: Optional[str] = field(
        default=None,
        metadata={"help": "Private key (default: those of ~/.ssh/config, the agent, ~/.ssh/id_*)"},
    )
    jump: Optional[str] = field(
        default=None,
        metadata={"help": "Hosts on the way, from here to there: user@host:port,user@host (default: ~/.ssh/config's)"},
    )
    config: Optional[str] = field(
        default=None,
        metadata={"help": "Read instead of ~/.ssh/config"},
    )
    workdir: Optional[str] = field(
        default=None,
        metadata={"help": "Folder on the host, absolute or below your home there (default: biom3d)"},
    )
    parallel: Optional[int] = field(
        default=None,
        metadata={"help": "Connections that carry big transfers (default: 4)"},
    )
    bandwidth_mb_s: Optional[float] = field(
        default=None,
        metadata={"help": "Limit of the transfers in MB/s, each way (default: none)"},
    )
    check_store: Optional[bool] = field(
        default=False,
        metadata={"help": "Hash again what the host has before it is used: finds damage of its disk, takes time"},
    )
    image: Optional[str] = field(
        default=None,
        metadata={"help": "Image for rules without a `container:` of their own"},
    )
    gpus: Optional[str] = field(
        default=None,
        metadata={"help": "GPUs that jobs may use, as nvidia-smi counts them, separated by commas (default: all)"},
    )
    engine_socket: Optional[str] = field(
        default=None,
        metadata={"help": "Socket of the container engine, such as Podman's (default: DOCKER_HOST, then Docker's own)"},
    )
    runtime: Optional[str] = field(
        default=None,
        metadata={"help": "What runs jobs there: docker, podman, or venv: a Python environment (default: docker)"},
    )
    venv: Optional[str] = field(
        default=None,
        metadata={"help": "Folder of that environment (default: env in the folder on the host; here: this Python's)"},
    )
    keep: Optional[str] = field(
        default=None,
        metadata={"help": "Folders of jobs that stay on the host: none, failed or all (default: failed)"},
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=False,
    pass_default_storage_provider_args=False,
    pass_default_resources_args=False,
    auto_deploy_default_storage_provider=False,
    can_transfer_local_files=True,
)


class ExecutorError(WorkflowError):
    """What cannot be run, for people."""

    # Snakemake would print the line of *this* file below the message.
    __traceback__ = property(lambda self: None, lambda self, value: None)


class Executor(RemoteExecutor):
    """Runs each job in a thread of its own, which lives as long as the job does."""

    def __post_init__(self) -> None:
        from snakemake_executor_plugin_host.translate import lock, make_runner, usual_image

        self._stop = threading.Event()
        self._threads: list[_Running] = []
        self._is_checked = False
        try:
            self._lock = lock(Path.cwd())
            self._image = usual_image(self.workflow.executor_settings)
            self._runner = make_runner(self.workflow.executor_settings, Path.cwd())
        except Exception as error:
            raise as_workflow_error(error) from None

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Start jobs; before the first, see that the place has what all of them need.

        Snakemake removes what a failed job was to make anew: a missing image must not cost a trained model.
        """
        from biom3d.remote.forecast import foretell
        from snakemake_executor_plugin_host.translate import first_inputs, needed

        if not self._is_checked:
            to_come = list(self.workflow.dag.needrun_jobs())
            try:
                self._runner.check(*needed(to_come, self._image))
                foretell(self._runner.host, first_inputs(to_come), self.logger.info)
            except Exception as error:
                raise as_workflow_error(error) from None
            self._is_checked = True
        self._release()
        super().run_jobs(jobs)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Translate the job and start its thread."""
        from snakemake_executor_plugin_host.translate import translate_job

        try:
            spec = translate_job(job, self._image)
        except Exception as error:
            raise as_workflow_error(error) from None
        running = _Running(self._runner, spec, self._stop, self.logger)
        self._threads.append(running)
        running.start()
        self.report_job_submission(SubmittedJobInfo(job, aux={"running": running}))

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report what has ended; yield what runs."""
        for info in active_jobs:
            running = (info.aux or {})["running"]
            if running.is_alive():
                yield info
            elif running.error is None:
                self.report_job_success(info)
            else:
                self.report_job_error(info, msg=str(running.error))

    async def sleep(self) -> None:
        """Wait between two looks; Snakemake's own pause is meant for clusters that must be asked."""
        await asyncio.sleep(LOOK_EVERY_S)

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Ask all jobs to stop, and wait until they have."""
        self._stop.set()
        if any(running.is_alive() for running in self._threads):
            self.logger.info("stopping the running jobs; the same command goes on later")
        try:
            for running in self._threads:
                running.join()
        except KeyboardInterrupt:  # pressed again
            for running in self._threads:
                running.is_left = True
            self.logger.info("not waiting: what has not stopped yet may run on; the same command goes on with it")

    def shutdown(self) -> None:
        """End the connection."""
        super().shutdown()
        self._release()
        self._runner.host.close()
        self._lock.close()

    def _release(self) -> None:
        """Have the host let go of what Snakemake has removed here; what cannot be done now is done the next time."""
        from biom3d.errors import Biom3dError

        with suppress(Biom3dError, OSError):
            self._runner.release(Path.cwd())

    def print_job_error(self, job_info: SubmittedJobInfo, msg: Optional[str] = None, **kwargs: Any) -> None:
        """Print what happened; Snakemake's own version points to a cluster's log, which there is not."""
        if job_info.job.is_group():  # of which Snakemake prints all its jobs, and not the message
            self.logger.error(msg)
        else:
            job_info.job.log_error(msg, **kwargs)


class _Running(threading.Thread):
    """One job on its way; `error` is what it ended with, if it failed."""

    def __init__(self, runner: Any, spec: Any, stop: threading.Event, logger: Any) -> None:
        super().__init__(name=spec.name, daemon=True)
        self.error: Optional[BaseException] = None
        self.is_left = False  # nobody waits for it, and its connection is closed under it
        self._runner, self._spec, self._stop_event, self._logger = runner, spec, stop, logger

    def run(self) -> None:
        """Run the job from beginning to end."""
        try:
            self._runner.run(self._spec, Path.cwd(), self._say, self._stop_event)
        except Exception as error:
            self.error = as_workflow_error(error)
            if self.error is error and not self.is_left:  # a mistake of ours
                self._logger.error("".join(traceback.format_exception(error)))

    def _say(self, line: str) -> None:
        self._logger.info(f"[{self._spec.name}] {line}")


def as_workflow_error(error: Exception) -> Exception:
    """Return what is not our mistake as Snakemake's error, which it prints without a traceback; the rest as it is."""
    from biom3d.errors import Biom3dError
    from biom3d.files import system_error

    if isinstance(error, OSError):
        error = system_error(error)
    return ExecutorError(str(error)) if isinstance(error, Biom3dError) else error
