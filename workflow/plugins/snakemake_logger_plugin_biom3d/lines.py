"""Snakemake's events -> lines for people: `[12/54] predict new with nuclei: done in 0:04`."""

import logging
import time
from collections.abc import Iterable
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

# What Snakemake says of itself that helps nobody here. The file has it.
NOISE = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Using shell:",
    "Group jobs: inactive",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Select jobs to execute",
    "Execute ",
    "Shutting down, this might take some time",
    "Terminating processes on user request",
    "This was a dry-run",
    "Some jobs were triggered by provenance information",
    "Rules with provenance triggered jobs",
    "Removing output files of failed job",
    "Removing temporary output",
    "Removing directories created during",
    "Elapsed time:",
    "DAG of jobs will be updated",
)
# Its last words after a failure: the lines above and the table have said it.
LAST_WORDS = (
    "Exiting because a job execution failed",
    "WorkflowError:\nAt least one job did not complete successfully",
)
# An error of a shell command: its own line tells it better.
OF_A_COMMAND = ("CalledProcessError", "RuleException")
HIDDEN = frozenset(
    {
        *(LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.PROGRESS, LogEvent.JOB_STARTED),
        *(LogEvent.DEBUG_DAG, LogEvent.RULEGRAPH, LogEvent.GROUP_INFO),
    }
)
STOPPED = "stopped"
FINAL_TARGETS = ("all", "report", "unreadable")  # and what stands for a row that cannot be read: it only fails
OUR_ERRORS = ("ConfigurationError", "ExecutorError")  # names of classes, which are for us; the sentence is for all


class Teller:
    """Turns events into lines; remembers what runs, since when, and how much is done."""

    def __init__(self, with_commands: bool = False, verbose: bool = False, quiet: frozenset[str] = frozenset()) -> None:
        self._with_commands, self._verbose, self._quiet = with_commands, verbose, quiet
        self._running: dict[int, tuple[str, float]] = {}
        self._targets: set[int] = set()
        self._done = self._total = 0

    def tell(self, record: LogRecord) -> str | None:
        """Return what to print; None for nothing."""
        event = getattr(record, "event", None)
        if "all" in self._quiet and record.levelno < logging.ERROR:
            return None
        tellers = {
            LogEvent.RUN_INFO: self._plan,
            LogEvent.JOB_INFO: self._start,
            LogEvent.JOB_FINISHED: self._end,
            LogEvent.JOB_ERROR: self._failure,
            LogEvent.GROUP_ERROR: self._group_failure,
            LogEvent.SHELLCMD: self._command,
            LogEvent.ERROR: self._error,
        }
        if event in tellers:
            return tellers[event](record)
        return None if event in HIDDEN and not self._verbose else self._message(record)

    def _message(self, record: LogRecord) -> str | None:
        text = str(record.msg) if record.msg is not None else ""
        is_noise = text.startswith(LAST_WORDS) or (record.levelno < logging.WARNING and text.startswith(NOISE))
        if not text.strip() or text == "None" or (is_noise and not self._verbose):
            return None
        if text.startswith("Complete log(s): "):
            return f"full log: {text.removeprefix('Complete log(s): ')}"
        return text

    def _plan(self, record: LogRecord) -> str | None:
        """Snakemake counts the jobs twice in a dry run; the plan comes with the first."""
        stats: dict[str, int] = getattr(record, "stats", {})
        first, self._total = not self._total, _total(stats)
        plan = getattr(record, "plan", None)
        text = _counts(stats) if plan is None else plan
        return (text or None) if first else None

    def _start(self, record: Any) -> str | None:
        words = record.rule_msg or f"{record.rule_name} {' '.join(map(str, dict(record.wildcards).values()))}".strip()
        self._running[record.jobid] = (words, time.monotonic())
        if record.rule_name in FINAL_TARGETS:
            self._targets.add(record.jobid)
            return None
        if "rules" in self._quiet:
            return None
        reason = f"  ({_short(record.reason)})" if self._with_commands else ""
        return f"{self._counter()} {words}{reason}"

    def _end(self, record: Any) -> str | None:
        words, start = self._running.pop(record.job_id, ("", 0.0))
        if not words or record.job_id in self._targets:
            return None
        self._done += 1
        if "progress" in self._quiet:
            return None
        return f"{self._counter()} {words}: done in {_duration(time.monotonic() - start)}"

    def _failure(self, record: Any) -> str:
        words, _ = self._running.pop(record.jobid, (record.rule_name, 0.0))
        reason = _reason(record.log, record.rule_msg)
        return f"{words}: {reason}" if reason.startswith(STOPPED) else f"FAILED {words}: {reason}"

    def _group_failure(self, record: Any) -> str:
        logs = [log for job in record.job_error_info for log in job["log"]]
        names = ", ".join(job["rule_name"] for job in record.job_error_info)
        return f"FAILED {names}: {_reason(logs, record.msg)}"

    def _command(self, record: Any) -> str | None:
        return f"    {record.shellcmd}" if self._with_commands and record.shellcmd else None

    def _error(self, record: Any) -> str | None:
        text = str(record.msg)
        is_told = getattr(record, "exception", "") in OF_A_COMMAND and "CalledProcessError" in text
        if (is_told or text.startswith(LAST_WORDS)) and not self._verbose:
            return None
        name, _, rest = text.partition(":\n")
        return rest if name in OUR_ERRORS and rest and not self._verbose else text

    def _counter(self) -> str:
        width = len(str(self._total))
        return f"[{self._done:>{width}}/{self._total}]"


def _reason(logs: Iterable[str], message: Any) -> str:
    """Return why a job failed: what its executor says, else the first problem in its log, and where the log is."""
    if message and str(message) != "None":
        return str(message)
    log = next((str(log).split(" (", 1)[0] for log in logs if str(log).split(" (", 1)[0].endswith(".log")), "")
    try:
        from biom3d_workflow.reasons import in_our_words, read_end
    except ImportError:  # another workflow than ours
        return f"log: {log}" if log else "no log"
    end = read_end(log)
    text = (
        f"{STOPPED}; goes on {end.progress or 'from what is done'}" if end.kind == "stopped" else in_our_words(end.text)
    )
    return f"{text}; log: {log}" if log else text


def _counts(stats: dict[str, int]) -> str:
    parts = [f"{count} {rule}" for rule, count in stats.items() if rule not in ("total", *FINAL_TARGETS)]
    count = _total(stats)
    return f"{count} job{'' if count == 1 else 's'}: {', '.join(parts)}"


def _total(stats: dict[str, int]) -> int:
    """Return how many jobs there are; a final target is none."""
    return stats.get("total", 0) - sum(stats.get(rule, 0) for rule in FINAL_TARGETS)


def _short(reason: str) -> str:
    return reason if len(reason) <= 100 else f"{reason[:97]}..."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
