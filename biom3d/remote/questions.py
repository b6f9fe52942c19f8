"""The commands of the verbs, besides those of `commands`; the same rules hold."""

import re
from pathlib import PurePosixPath

from biom3d.remote.commands import STAMP, STORE
from biom3d.remote.template import Template, made

JOB_FOLDER = re.compile(r"[0-9a-f]{24}(\.kept)?")  # as `job.identify` names them; nothing else is ever removed
MARK = "biom3d-doctor"

_SAY_MARK = made("say_mark", f"echo {MARK}")


def say_mark() -> str:
    """Print one word and nothing else, as far as the login shell lets it."""
    return _SAY_MARK.line()


_NOTHING = made("nothing", "")


def nothing() -> str:
    """Do nothing, to measure how long a command takes."""
    return _NOTHING.line()


_LIST_TOOLS = made("list_tools", 'for tool; do command -v "$tool" >/dev/null 2>&1 && echo "$tool"; done; true', "tool*")


def list_tools(tools: tuple[str, ...]) -> str:
    """Print the names of those commands that are there."""
    return _LIST_TOOLS.line(*tools)


_DISK = made("disk", "stat -f --printf '%a %S %d %c' -- \"$1\"", "root")


def disk(folder: PurePosixPath) -> str:
    """Print free blocks, the size of one, free inodes and all inodes of a file system."""
    return _DISK.line(folder)


_CLOCK = made("clock", "date +%s.%N")


def clock() -> str:
    """Print seconds since 1970."""
    return _CLOCK.line()


_SHOW_GPUS = made(
    "show_gpus", "nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader,nounits"
)


def show_gpus() -> str:
    """Print number, name, memory in MB and driver version of each NVIDIA GPU."""
    return _SHOW_GPUS.line()


_KILLS_AT_LOGOUT = made(
    "kills_at_logout",
    """
busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \\
  KillUserProcesses 2>/dev/null; true
""",
)


def kills_at_logout() -> str:
    """Print `b true` if the host ends all processes of an account with its last connection."""
    return _KILLS_AT_LOGOUT.line()


_SWALLOW = made("swallow", "exec cat >/dev/null", stdin="ignored")


def swallow() -> str:
    """Read standard input to its end."""
    return _SWALLOW.line()


_POUR = made("pour", 'exec head -c "$1" /dev/urandom', "number")


def pour(size: int) -> str:
    """Print that many bytes that nothing can compress."""
    return _POUR.line(size)


_LIST_JOB_FOLDERS = made(
    "list_job_folders",
    """
cd -- "$1/jobs" 2>/dev/null || exit 0
now=$(date +%s)
for job in *; do
  [ -d "$job" ] || continue
  new=$(find "./$job" -maxdepth 1 -printf '%T@\\n' | sort -n | tail -n 1)
  size=$(find "./$job" -type f -links 1 -printf '%s\\n' | awk '{ sum += $1 } END { print sum + 0 }')
  echo $((now - ${new%.*})) "$size" "$job"
done
""",
    "root",
)


def list_job_folders(root: PurePosixPath) -> str:
    """Print age in seconds, bytes that nobody else holds, and name of each job's folder.

    The age is that of the newest change of the folder or of something directly in it.
    """
    return _LIST_JOB_FOLDERS.line(root)


_LIST_UNUSED = made(
    "list_unused",
    f"""
cd -- "$1/{STORE}" 2>/dev/null || exit 0
find . -type f -links 1 -cmin +"$2" -printf '%s %P\\n'
""",
    "root",
    "number",
)


def list_unused(root: PurePosixPath, minutes: int) -> str:
    """Print size and name of the store's files that no job links, and that nobody linked or unlinked for so long."""
    return _LIST_UNUSED.line(root, minutes)


_DROP_UNUSED = made(
    "drop_unused",
    f"""cd -- "$1/{STORE}" && xargs -0 -r sh -c 'find "$@" -maxdepth 0 -type f -links 1 -delete' sh""",
    "root",
    stdin="keys",
)


def drop_unused(root: PurePosixPath) -> str:
    """Remove those of the named files of the store that no job has linked since."""
    return _DROP_UNUSED.line(root)


_DROP_DAMAGED = made("drop_damaged", f'cd -- "$1/{STORE}" && xargs -0 -r rm -f --', "root", stdin="keys")


def drop_damaged(root: PurePosixPath) -> str:
    """Remove the named files of the store, also those that jobs link."""
    return _DROP_DAMAGED.line(root)


_PLACE_DATASET = made(
    "place_dataset",
    'mkdir -p -- "${2%/*}" && { [ ! -e "$2" ] || exit 65; } && mv -T -- "$1" "$2"',
    "work",
    "data",
)


def place_dataset(made: PurePosixPath, dataset: PurePosixPath) -> str:
    """Rename a folder to where a data set lies; exit code 65 if something is there."""
    return _PLACE_DATASET.line(made, dataset)


_REPLACE_DATASET = made(
    "replace_dataset",
    'mkdir -p -- "${2%/*}" && { [ ! -e "$2" ] || mv -T -- "$2" "${1%/work}/old"; } && mv -T -- "$1" "$2"',
    "work",
    "data",
)


def replace_dataset(made: PurePosixPath, dataset: PurePosixPath) -> str:
    """Rename a folder to where a data set lies, whose former content becomes `old` in the job's folder."""
    return _REPLACE_DATASET.line(made, dataset)


_REMOVE_DATASET = made(
    "remove_dataset",
    """
[ -f "$2/.biom3d-content" ] || exit 66
name=${2#"${1%/*}/"}
for job in "$1"/jobs/*; do
  [ ! -e "$job/work/$name" ] || [ -e "$job/exit" ] || { echo "${job##*/}"; exit 67; }
done
mkdir -p -- "$1/tmp" && mv -T -- "$2" "$1/tmp/$3" || exit
du -sb -- "$1/tmp/$3" | cut -f 1
rm -rf -- "$1/tmp/$3"
""",
    "root",
    "data",
    "temporary",
)


def remove_dataset(root: PurePosixPath, dataset: PurePosixPath, temporary: str) -> str:
    """Remove a data set that was sent, and print its bytes; exit code 66 if it was not, 67 and a job that uses it."""
    return _REMOVE_DATASET.line(root, dataset, temporary)


_LINK_WORKDIR = made("link_workdir", 'mkdir -p -- "$1" && ln -s -- "$2" "$1/work"', "job", "whole")


def link_workdir(folder: PurePosixPath, workdir: PurePosixPath) -> str:
    """Make a job's folder whose `work` is the working folder of all, so that files from there can be collected."""
    return _LINK_WORKDIR.line(folder, workdir)


_EXISTS = made("exists", '[ -e "$1" ]', "tree")


def exists(path: PurePosixPath) -> str:
    """Exit with 0 if something is there."""
    return _EXISTS.line(path)


_LIST_FOLDERS = made(
    "list_folders",
    """
cd -- "$1" 2>/dev/null || exit 0
shift
for one in *; do
  [ -d "$one" ] || continue
  printf '%s ' "$(du -sb -- "$one" | cut -f 1)"
  for kind; do printf '%s ' "$(find -L "./$one/$kind" -type f 2>/dev/null | wc -l)"; done
  printf '%s\\n' "$one"
done
""",
    "tree",
    "kind*",
)


def list_folders(parent: PurePosixPath, kinds: tuple[str, ...]) -> str:
    """Print for each folder below `parent`: its bytes, the number of files below each of `kinds`, and its name."""
    return _LIST_FOLDERS.line(parent, *kinds)


_LIST_STATES = made(
    "list_states",
    """
cd -- "$1" && [ -e "./$2" ] || exit 66
[ ! -d "./$2" ] || touch -ch -- "./$2" 2>/dev/null
date +%s
exec find -H "./$2" -printf '%y %D %i %s %T@ %C@ %P\\0'
""",
    "whole",
    "name",
)


def list_states(workdir: PurePosixPath, path: str) -> str:
    """Print the time, then kind, device, inode, size, both times of change and name of all that lies at `path`.

    Each record is ended by a zero byte; exit code 66 if nothing is there. Whoever wants to use a data set asks this,
    so a folder's own time of change is set to now: `biom3d server clean` counts from there.
    """
    return _LIST_STATES.line(workdir, path)


_FIND_STORED = made(
    "find_stored",
    f"""
cd -- "$1" && {{ cat; echo -; find {STORE} -type f -links +1 -printf '%D %i %T@ %f\\n'; }} | awk '
  $1 == "-" {{ listed = 1; next }} !listed {{ wanted[$1 " " $2]; next }}
  ($1 " " $2) in wanted && int($3) == {STAMP} {{ print $1, $2, $4 }}'
""",
    "root",
    stdin="ignored",
)


def find_stored(root: PurePosixPath) -> str:
    """Print device, inode and hash of those files of the store that have one of the inodes read from standard input."""
    return _FIND_STORED.line(root)


_MAKE_PLACES = made(
    "make_places",
    """
cd -- "$1" 2>/dev/null || { mkdir -p -- "$1" && cd -- "$1"; } || exit
folders=$2
shift 2
for name; do
  if [ "$folders" -gt 0 ]; then mkdir -p -- "./$name" || exit
  else case $name in */*) mkdir -p -- "./${name%/*}" || exit;; esac; touch -- "./$name" || exit; fi
  folders=$((folders - 1))
done
""",
    "work",
    "number",
    "name*",
)


def make_places(work: PurePosixPath, folders: tuple[str, ...], files: tuple[str, ...]) -> str:
    """Make folders and empty files in a job's folder, for mounts to come over them."""
    return _MAKE_PLACES.line(work, len(folders), *folders, *files)


TEMPLATES = tuple(thing for thing in vars().values() if isinstance(thing, Template))
