"""The command lines and the script with which jobs run in an environment of a host; the rules of `commands` hold.

In a job's folder: `pid` (process, its time of start, boot of the host, name of the host), `log`, `exit`, and `memory`
if the job took more than it may. A process is ours only if all of these agree: a number that was given to another one
since is never taken for the job. All processes of a job have its id in their environment.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from biom3d.remote.job import CANCELLED, EXIT, MEMBERS, RUN
from biom3d.remote.template import Template, made

PID, LOG, MEMORY, LAUNCH, LABELS = "pid", "log", "memory", "launch.sh", "labels"
STARTING = "starting"  # locked by whoever starts the job
TAKEN, ELSEWHERE = "taken", "elsewhere"
FULL_WAIT_S = (0.05, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.5, 0.5, 0.5)  # between looks at a log: how soon a line is seen

# Reads `pid`; says whether that very process runs. Zombies have ended: nobody else may be there to notice.
_STATE = f"""\
alive() {{
  read -r pid start boot node <{PID} || return
  [ "$node" = "$(uname -n)" ] || {{ elsewhere=$node; return 0; }}
  [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && stat=$(cat "/proc/$pid/stat") || return
  set -- ${{stat##*) }}
  [ "${{20}}" = "$start" ] && [ "$1" != Z ]
}} 2>/dev/null
elsewhere=
"""
# Kills all processes of a job, also those that have left its session; more than once, for they may fork.
_KILL_ALL = """\
kill_all() { # job
  for try in 1 2 3 4 5 6 7 8 9; do
    left=$(grep -lzsx "BIOM3D_JOB=$1" /proc/[0-9]*/environ); [ -n "$left" ] || break
    for file in $left; do file=${file%/environ}; kill -KILL "${file#/proc/}" 2>/dev/null; done
    sleep 0.05
  done
}
"""
_ECHO_END = (
    f'code=$(cat {EXIT} 2>/dev/null); used=$(cat {MEMORY} 2>/dev/null); echo ended "${{code:--}}" "${{used:--}}"'
)
_SAY_RUNNING = f'echo "${{elsewhere:+{ELSEWHERE} }}${{elsewhere:-running}}"'


def launch_script() -> str:
    """Return `launch.sh`: the process that supervises a job notes who it is, enters the environment, becomes run.sh."""
    return f"""\
#!/usr/bin/env bash
# Made by biom3d.remote.venv_lines. Enters the environment and becomes {RUN}.
cd "$(dirname "$0")" || exit 1
export BIOM3D_SESSION=$$
read -r stat </proc/$$/stat && read -r boot </proc/sys/kernel/random/boot_id || exit 1
field=(${{stat##*) }})
echo "$$ ${{field[19]}} $boot $(uname -n)" >{PID}.new && mv {PID}.new {PID} || exit 1
{MEMBERS}
# Ends the steps when their own memory exceeds the limit; files that they map and what they share are not counted.
guard() {{ # kB
  while sleep 0.5 && kill -0 $BIOM3D_SESSION 2>/dev/null; do
    used=$(cat $(members) 2>/dev/null | awk '/^RssAnon/ {{kb += $2}} END {{print kb + 0}}')
    [ "$used" -gt "$1" ] || continue
    echo "$used" >{MEMORY}
    for status in $(members); do
      process=${{status#/proc/}} process=${{process%/status}}
      [ "$process" = $BIOM3D_SESSION ] || [ "$process" = "$BASHPID" ] || kill -KILL "$process" 2>/dev/null
    done
  done
}}
if [ "$BIOM3D_MEMORY_KB" -gt 0 ]; then guard "$BIOM3D_MEMORY_KB" & fi
if [ -f "$BIOM3D_ENV/pyvenv.cfg" ]; then . "$BIOM3D_ENV/bin/activate"; else PATH="$BIOM3D_ENV/bin:$PATH"; fi || exit 1
exec bash "$PWD/{RUN}" "$@"
"""


def start_job(
    folder: PurePosixPath, job_id: str, environment: PurePosixPath, mark: str, variables: Sequence[tuple[str, str]]
) -> str:
    """Start `launch.sh` in a session of its own, detached; print `taken` if the job runs or has ended well.

    Its processes get `variables` and little else of what the connection's have. What is left of an earlier attempt is
    killed first. One client at a time. Standard input is `launch_script`.
    """
    return _START_JOB.line(folder, job_id, environment, mark, *(f"{name}={value}" for name, value in variables))


# CUDA counts devices as nvidia-smi does.
_START_JOB = made(
    "venv_start_job",
    f"""
cd -- "$1" || exit
exec 8>{STARTING}; flock 8
{_STATE}{_KILL_ALL}
if alive; then echo "${{elsewhere:+{ELSEWHERE} }}${{elsewhere:-{TAKEN}}}"; exit 0; fi
if [ "$(cat {EXIT} 2>/dev/null)" = 0 ]; then echo {TAKEN}; exit 0; fi
kill_all "$2"
rm -f {PID} {EXIT} {MEMORY} {CANCELLED} || exit
: >{LOG} && cat >{LAUNCH} && printf '%s\n' "$4" >{LABELS} || exit
folder=$1 job=$2 environment=$3 mark=$4
shift 4
set -- ${{PATH+"PATH=$PATH"}} ${{USER+"USER=$USER"}} ${{LOGNAME+"LOGNAME=$LOGNAME"}} ${{TZ+"TZ=$TZ"}} \
  ${{LD_LIBRARY_PATH+"LD_LIBRARY_PATH=$LD_LIBRARY_PATH"}} "BIOM3D_JOB=$job" "BIOM3D_ENV=$environment" \
  LANG=C.UTF-8 PYTHONNOUSERSITE=1 CUDA_DEVICE_ORDER=PCI_BUS_ID "$@"
nohup env -i "$@" setsid bash "$folder/{LAUNCH}" "$mark" since="$(date +%s)" </dev/null >>{LOG} 2>&1 8>&- & new=$!
while [ ! -e {PID} ] && kill -0 $new 2>/dev/null; do sleep 0.02; done
[ -e {PID} ] || {{ cat {LOG} >&2; exit 1; }}
""",
    "job",
    "job-id",
    "environment",
    "mark",
    "variable*",
    stdin="bytes",
)


def find_job(folder: PurePosixPath) -> str:
    """Print `none`, `running`, `elsewhere HOST` or `ended CODE MEMORY`, the last two `-` where they are not known."""
    return _FIND_JOB.line(folder)


_FIND_JOB = made(
    "venv_find_job",
    f"""
cd -- "$1" 2>/dev/null && [ -e {PID} ] || {{ echo none; exit 0; }}
{_STATE}
if alive; then {_SAY_RUNNING}; else {_ECHO_END}; fi
""",
    "job",
)


def read_log(folder: PurePosixPath, attempt: str, offset: int, limit: int) -> str:
    """Wait a moment for more than `offset` bytes of the log of an attempt (the line in `pid`), or for the job's end.

    Prints what `find_job` prints, then a line with size, offset and attempt, then at most `limit` bytes from there. Of
    another attempt than the one named, the log is read from its beginning.
    """
    return _READ_LOG.line(folder, attempt, offset, limit)


_READ_LOG = made(
    "venv_read_log",
    f"""
cd -- "$1" 2>/dev/null && [ -e {PID} ] || {{ echo none; exit 0; }}
{_STATE}
attempt=$(cat {PID}) offset=$3 limit=$4
[ "$attempt" = "$2" ] || offset=0
for pause in {" ".join(map(str, (*FULL_WAIT_S, 0)))}; do
  said=running; alive || said=$({_ECHO_END})
  size=$(stat -c %s {LOG} 2>/dev/null || echo 0)
  [ "$size" -le "$offset" ] && [ "$said" = running ] && [ -z "$elsewhere" ] || break
  sleep $pause
done
echo "${{elsewhere:+{ELSEWHERE} }}${{elsewhere:-$said}}"
echo "$size $offset $attempt"
tail -c +$((offset + 1)) {LOG} 2>/dev/null | head -c "$limit"
""",
    "job",
    "attempt",
    "number",
    "number",
)


def stop_job(folder: PurePosixPath, job_id: str, grace_s: int) -> str:
    """Ask a job to end and wait for it; kill what still runs after so many seconds. No job there is fine."""
    return _STOP_JOB.line(folder, job_id, grace_s * 10)


_STOP_JOB = made(
    "venv_stop_job",
    f"""
cd -- "$1" 2>/dev/null || exit 0
job=$2 left=$3
{_STATE}{_KILL_ALL}
alive && [ -z "$elsewhere" ] && kill -TERM "$pid"
while [ "$left" -gt 0 ] && alive && [ -z "$elsewhere" ]; do sleep 0.1; left=$((left - 1)); done
kill_all "$job"; true
""",
    "job",
    "job-id",
    "number",
)


def drop_job(folder: PurePosixPath, job_id: str) -> str:
    """Kill what a job that has ended left behind, and forget its process; one that runs is left alone."""
    return _DROP_JOB.line(folder, job_id)


_DROP_JOB = made(
    "venv_drop_job",
    f"""
cd -- "$1" 2>/dev/null || exit 0
exec 8>{STARTING}; flock 8
{_STATE}{_KILL_ALL}
alive && exit 0
kill_all "$2"
rm -f {PID} {MEMORY}
""",
    "job",
    "job-id",
)


def print_log(folder: PurePosixPath, limit: int) -> str:
    """Print the last bytes of a job's log."""
    return _PRINT_LOG.line(folder, limit)


_PRINT_LOG = made("venv_print_log", f'tail -c "$2" -- "$1/{LOG}" 2>/dev/null; true', "job", "number")


def list_ended(root: PurePosixPath) -> str:
    """Print code, memory, time of the end and labels of each job of ours that was started and does not run."""
    return _LIST_ENDED.line(root)


_LIST_ENDED = made(
    "venv_list_ended",
    f"""
cd -- "$1/jobs" 2>/dev/null || exit 0
jobs=$1/jobs
{_STATE}
for job in *; do
  case $job in *.*) continue;; esac
  cd -- "$jobs/$job" 2>/dev/null && [ -e {PID} ] || continue
  elsewhere=; alive && continue
  newest={EXIT}; [ -e {EXIT} ] || newest={LOG}
  {_ECHO_END} "$(stat -c %Y $newest 2>/dev/null || echo 0)" "$(cat {LABELS} 2>/dev/null)"
done; true
""",
    "root",
)


def describe(environment: str) -> str:
    """Print cores, memory in kB, the full path of the environment, and what the program on standard input says there.

    Exit code 65 if there is no environment. `environment` is absolute, or below the home folder.
    """
    return _DESCRIBE.line(environment.removeprefix("~/"))


_DESCRIBE = made(
    "venv_describe",
    """
nproc && awk '/^MemTotal/ { print $2 }' /proc/meminfo || exit
cd && cd -- "$1" 2>/dev/null && [ -x bin/python ] || exit 65
pwd; exec bin/python -I -
""",
    "environment",
    stdin="bytes",
)


def link_inputs(work: PurePosixPath) -> str:
    """Unpack a tar stream (gzip) that holds symbolic links only: names of a job -> files of the host."""
    return _LINK_INPUTS.line(work)


_LINK_INPUTS = made("venv_link_inputs", 'cd -- "$1" && exec tar -xzf - --no-same-owner', "work", stdin="bytes")

TEMPLATES = tuple(thing for thing in vars().values() if isinstance(thing, Template))
