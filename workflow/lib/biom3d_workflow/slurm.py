"""What people have to be told of Slurm: that it is not there, that it still works here, why it ended a job."""

import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

EXECUTOR = "slurm"
LOGS = Path(".snakemake/slurm_logs")  # the plugin's: RULE/WILDCARDS/JOB.log; it removes those of good jobs
OURS = "rule_"  # how the plugin begins a job's comment
STOP_WITHIN_S = 60
MORE = "give rule '{rule}' more %s (set-resources in the profile)"
# What Slurm writes into the log of a job that it ends -> what to say. The first that fits counts.
ENDS = {
    r"DUE TO TIME LIMIT": f"its time was over; {MORE % 'runtime'}",
    r"(?i)oom.kill|exceeded .*memory limit": f"no memory was left; {MORE % 'mem_mb'}",
    r"DUE TO PREEMPTION": "it had to make room for another job; run again",
    r"DUE TO NODE FAIL": "its node failed; run again",
    r"\*\*\* (JOB|STEP) \S+ ON .* CANCELLED AT": "somebody cancelled it; run again",
}


class SlurmError(Exception):
    """What Slurm's commands answer when they do not work."""


def find_obstacle(folder: Path) -> str | None:
    """Say why no jobs can be started from this folder now, and what to do; None if they can.

    Jobs of a Snakemake that was killed go on: another one's must not write the same files.
    """
    if shutil.which("sbatch") is None:
        return (
            "profile slurm: there is no 'sbatch' on this machine; run Snakemake on a login node of the cluster, "
            "or here with: snakemake --workflow-profile local"
        )
    try:
        jobs = list_jobs(folder)
    except SlurmError as error:
        return f"profile slurm: {error}; ask the cluster's administrator, or run again later"
    if not jobs:
        return None
    return (
        f"Slurm still has jobs of an earlier run in '{folder}': wait until `squeue` shows them no more, "
        f"or stop them: scancel {' '.join(jobs)}   then run the same command again"
    )


def list_jobs(folder: Path) -> list[str]:
    """Return the ids of our jobs that wait or run and were submitted from this folder.

    Raises:
        SlurmError: Slurm does not answer.
    """
    lines = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i\t%k\t%Z").splitlines()
    rows = [line.split("\t") for line in lines]
    return [row[0] for row in rows if len(row) == 3 and row[1].startswith(OURS) and row[2] == str(folder)]


def stop_rest(folder: Path, say: Callable[[str], None]) -> None:
    """Cancel our jobs of this folder that are still in the queue, and wait until they have gone.

    The plugin forgets a job that it submits, or asks for, in the moment of Ctrl-C.
    """
    try:
        if jobs := list_jobs(folder):
            say(f"stopping Slurm's jobs {' '.join(jobs)}")
            _slurm("scancel", *jobs)
        end = time.monotonic() + STOP_WITHIN_S
        while (jobs := list_jobs(folder)) and time.monotonic() < end:
            time.sleep(0.5)
        if jobs:
            say(f"Slurm's jobs {' '.join(jobs)} have not ended yet; look with squeue before you run again")
    except SlurmError as error:
        say(f"jobs may still be in Slurm's queue ({error}); look with squeue before you run again")


def list_logs() -> frozenset[Path]:
    """Return the logs of jobs that are there: those of failed jobs, and of what runs."""
    return frozenset(LOGS.rglob("*.log"))


def explain_end(step: str, before: Collection[Path]) -> str:
    """Say why Slurm ended the job of a step, such as 'train m/fold_0'; '' if it did not.

    `before`: logs of earlier runs.
    """
    rule, _, subject = step.partition(" ")
    wildcards = "" if subject == "all" else subject.replace("/fold_", "/").replace("/", "_")
    logs = [log for log in (LOGS / f"rule_{rule}" / wildcards).glob("*.log") if log not in before]
    for log in sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)[:1]:
        text = log.read_text(encoding="utf-8", errors="replace")
        for pattern, meaning in ENDS.items():
            if re.search(pattern, text):
                return f"Slurm ended job {log.stem}: {meaning.format(rule=rule)}"
    return ""


def _slurm(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SlurmError(f"'{words[0]}' cannot be started: {error.strerror}") from None
    if done.returncode:
        raise SlurmError(f"'{words[0]}' fails: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}")
    return done.stdout
