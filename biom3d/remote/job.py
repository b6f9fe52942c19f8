"""What a job is, what tells it from another, and the script that runs it: decided here, carried out elsewhere.

A job is one Snakemake job or one group of them: commands that run one after the other in one container. It has a
folder of its own on the host: `work/` is where the commands run and find their inputs, beside it lie the two scripts,
the exit code and what the job needs to know.
"""

import hashlib
import json
import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from biom3d.errors import ConfigError
from biom3d.remote.host import Entry

LABEL = "biom3d.job"  # of what runs; LABEL.name and so on say the rest
FOLDER = "/job"  # where a container sees the job's folder
WORK = "work"  # below it: the working folder of the commands
RUN, STEPS = "run.sh", "steps.sh"  # beside it: what is started, and what that runs
ENDED = "ended"  # before the number of a command that has ended well, and does not run again
EXIT = "exit"  # holds the exit code, once there is one
CANCELLED = "cancelled"  # says who did it, see claims.py
LEAST_MEMORY_MB = 64  # engines refuse less than 6, and a shell with a few tools takes more
TIME_LIMIT = 124  # exit code of coreutils' timeout
DEVICE_TAKEN = 75  # EX_TEMPFAIL: somebody else was faster
FORBIDDEN = ("/proc", "/sys", "/dev", FOLDER)  # no input of a container lies there
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Snakemake's own columns, so that its report and our tables read them: seconds, peak memory in MB, processor time.
BENCHMARK_HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"


@dataclass(frozen=True)
class Command:
    """One rule's shell command; `makes`, `benchmark` and `touch` are files that it leaves, as names in `work/`."""

    rule: str
    shell: str
    threads: int = 1
    benchmark: str | None = None
    makes: tuple[str, ...] = ()
    touch: tuple[str, ...] = ()
    log: str | None = None  # the one that people read


@dataclass(frozen=True)
class Resources:
    """What a job may use; 0 means no limit, and `gpus=0` no GPU. Memory and disk in MB, run time in minutes."""

    threads: int = 1
    mem_mb: int = 0
    runtime_min: int = 0
    disk_mb: int = 0
    gpus: int = 0


@dataclass(frozen=True)
class JobSpec:
    """A job, complete: what runs, in which image, on which files, and what must come back."""

    name: str
    commands: tuple[Command, ...]
    image: str
    inputs: tuple[tuple[str, Path], ...]  # name for the job, path here
    outputs: tuple[str, ...]  # files and folders, relative to the working folder
    logs: tuple[str, ...] = ()  # come back after a failure, too
    resources: Resources = Resources()
    stays: tuple[str, ...] = ()  # those outputs, folders all, that only later jobs read: they stay on the host
    was_cut_short: bool = False  # Snakemake did not learn how the last attempt ended, so it may have ended well


def job_name(path: str) -> str:
    """Return how a job finds the file that the workflow calls `path`: a relative or an absolute name.

    Paths that leave the working folder (`../images/a.tif`) are where the same words lead in the container.
    """
    full = posixpath.normpath(posixpath.join(FOLDER, WORK, path))
    inside = f"{FOLDER}/{WORK}/"
    if full.startswith(inside):
        return full.removeprefix(inside)
    if full == "/" or any(full == folder or full.startswith(f"{folder}/") for folder in FORBIDDEN):
        raise ConfigError(f"'{path}' cannot be an input of a container: it leads to '{full}' there; give its full path")
    return full


def output_name(path: str) -> str:
    """Return the name of an output in the working folder; ConfigError if it lies elsewhere."""
    name = job_name(path)
    if name.startswith("/") or posixpath.isabs(path):
        raise ConfigError(f"output '{path}' lies outside the working folder; jobs elsewhere can write only below it")
    return name


def identify(spec: JobSpec, image_id: str, entries: Sequence[Entry]) -> str:
    """Return the job's identity: equal commands, image, input contents and outputs give equal ids.

    Resources are not part of it, so a job that ran out of memory goes on in its folder with more of it.
    """
    facts = {
        "commands": [asdict(command) for command in spec.commands],
        "image": image_id,
        "inputs": [(entry.name, entry.key) for entry in entries],
        "outputs": [*spec.outputs, *spec.logs],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def content_hash(entries: Sequence[Entry]) -> str:
    """Return what tells one data set from another: SHA-256 of names and contents, whatever is done with them."""
    facts = sorted((entry.name, entry.key) for entry in entries)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fit(resources: Resources, cores: int, memory_mb: int) -> Resources:
    """Return the resources cut down to what the host has: eight threads wanted on two cores become two."""
    return replace(
        resources,
        threads=max(1, min(resources.threads, cores)),
        mem_mb=max(LEAST_MEMORY_MB, min(resources.mem_mb, memory_mb)) if resources.mem_mb else 0,
    )


def supervisor_script(resources: Resources) -> str:
    """Return `run.sh`: it limits the time, passes on a request to stop, and writes down how the job ended.

    The exit code is a file, so that it is known also when the container is gone; the process that waits for it may
    have died long ago.
    """
    seconds = resources.runtime_min * 60
    # `timeout` also passes a request to stop to all processes of the steps; 0 is no limit.
    return f"""\
#!/usr/bin/env bash
# Made by biom3d.remote.job. Runs steps.sh and keeps its exit code.
cd "$(dirname "$0")" || exit 1
rm -f {EXIT} {CANCELLED}
echo "        " >{EXIT}.new  # room for the exit code, for a disk that will be full
mkdir -p tmp home
export TMPDIR="$PWD/tmp" HOME="$PWD/home"
for device in $BIOM3D_LEASES; do
  exec {{lease}}<"${{BIOM3D_LEASE_FOLDER:-/leases}}/$device" && flock --nonblock "$lease" || exit {DEVICE_TAKEN}
done
timeout -k 30 {seconds} bash steps.sh & steps=$!
trap 'kill -TERM "$steps" 2>/dev/null' TERM INT HUP
wait "$steps"; code=$?
while kill -0 "$steps" 2>/dev/null; do wait "$steps"; code=$?; done
rm -rf tmp home
echo "$code" 1<>{EXIT}.new && truncate -s $((${{#code}} + 1)) {EXIT}.new
mv {EXIT}.new {EXIT}
exit "$code"
"""


def steps_script(commands: Sequence[Command]) -> str:
    """Return `steps.sh`: the commands one after the other, each as Snakemake would run it, each timed.

    Started again, it goes on with the first that has not ended well.
    """
    steps = (_step(number, command) for number, command in enumerate(commands, 1))
    return "\n".join([STEPS_HEAD, *steps]) + "\n"


# Field 6 of /proc/PID/stat is the session, 4 after the name, which may hold anything.
MEMBERS = """\
members() { # prints /proc/PID/status of the job's processes
  if [ -n "$BIOM3D_CONTAINER" ]; then echo /proc/[0-9]*/status; return; fi
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v session="$BIOM3D_SESSION" '{
    pid = $1; sub(/.*\\) /, ""); if (split($0, field, " ") > 3 && field[4] == session) print "/proc/" pid "/status"
  }'
}"""
STEPS_HEAD = f"""\
# Made by biom3d.remote.job. The commands of the job, in their order; the first that fails ends it. Started again, those
# that have ended well are passed over.
cd {WORK} || exit 1
trap : TERM
TIMEFORMAT='%R %U %S'
{MEMBERS}
# The memory of the job's processes, once a second: all in the container, or all of the session.
watch_memory() {{
  peak=0
  while sleep 1; do
    now=$(cat $(members) 2>/dev/null | awk '/^VmRSS/ {{kb += $2}} END {{print kb + 0}}')
    if [ "$now" -gt "$peak" ]; then peak=$now; echo "$peak" >"$1"; fi
  done
}}
run() {{ # command, benchmark file or nothing
  watcher=
  if [ -n "$2" ] && [ -n "$BIOM3D_CONTAINER$BIOM3D_SESSION" ]; then watch_memory "$TMPDIR/peak" & watcher=$!; fi
  # With the trap, a request to stop is left to the step: it saves what it has, and only then this shell ends.
  {{ time bash -c "trap : TERM; set -euo pipefail; $1" 2>&3 3>&-; }} 3>&2 2>"$TMPDIR/time"
  code=$?
  if [ -n "$watcher" ]; then kill "$watcher" 2>/dev/null; wait "$watcher" 2>/dev/null; fi
  if [ "$code" = 0 ] && [ -n "$2" ]; then write_benchmark >"$2"; fi
  rm -f "$TMPDIR/peak" "$TMPDIR/time"
  return "$code"
}}
# What a command that did not end well left under a final name is work under way again: steps go on in NAME.partial.
take_up() {{ # names
  for made; do
    [ -d "$made" ] || continue
    if [ -e "$made.partial" ]; then rm -rf -- "$made"; else mv -T -- "$made" "$made.partial" || return; fi
  done
}}
write_benchmark() {{
  read -r seconds user system <"$TMPDIR/time"
  whole=${{seconds%.*}}
  clock=$(printf '%d:%02d:%02d' $((whole / 3600)) $((whole / 60 % 60)) $((whole % 60)))
  rss=-
  if [ -s "$TMPDIR/peak" ]; then rss=$(($(cat "$TMPDIR/peak") / 1024)).00; fi
  milli() {{ echo $((10#${{1%.*}} * 1000 + 10#${{1#*.}})); }}
  cpu=$(($(milli "$user") + $(milli "$system")))
  echo '{BENCHMARK_HEADER}'
  dashes=$(printf -- '-\\t%.0s' 1 2 3 4 5 6)
  printf '%s\\t%s\\t%s\\t%s%d.%02d\\n' "$seconds" "$clock" "$rss" "$dashes" $((cpu / 1000)) $((cpu % 1000 / 10))
}}
"""


def _step(number: int, command: Command) -> str:
    made = [*command.makes, *([command.benchmark] if command.benchmark else [])]
    folders = sorted({posixpath.dirname(name) for name in made} - {""})
    note = f"../{ENDED}-{number}"
    lines = [f"# {command.rule}", f"if [ ! -e {note} ]; then"]
    lines += [f"take_up {shlex.join(command.makes)} || exit"] if command.makes else []
    lines += [f"mkdir -p -- {shlex.join(folders)} || exit"] if folders else []
    lines += [f"export {name}={command.threads}" for name in THREAD_VARIABLES]
    lines += [f"run {shlex.quote(command.shell)} {shlex.quote(command.benchmark or '')} || exit"]
    lines += [f"touch -- {shlex.join(command.touch)} || exit"] if command.touch else []
    lines += [f": >{note} || exit", "fi"]
    return "\n".join(lines)
