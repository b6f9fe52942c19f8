"""The command lines that the verbs run on a host, besides those of `commands`; the same rules hold."""

import re
from pathlib import PurePosixPath

from biom3d.remote.commands import START, STORE, quote

JOB_FOLDER = re.compile(r"[0-9a-f]{24}")  # as `job.identify` names them; nothing else is ever removed
MARK = "biom3d-doctor"


def say_mark() -> str:
    """Print one word and nothing else, as far as the login shell lets it."""
    return f"echo {MARK}"


def list_tools(tools: tuple[str, ...]) -> str:
    """Print the names of those commands that are there."""
    names = " ".join(map(quote, tools))
    return f"{START}for tool in {names}; do command -v $tool >/dev/null 2>&1 && echo $tool; done; true"


def disk(folder: PurePosixPath) -> str:
    """Print free blocks, the size of one, free inodes and all inodes of a file system."""
    return f"{START}stat -f --printf '%a %S %d %c' -- {quote(folder)}"


def clock() -> str:
    """Print seconds since 1970."""
    return f"{START}date +%s.%N"


def show_gpus() -> str:
    """Print number, name, memory in MB and driver version of each NVIDIA GPU."""
    fields = "index,name,memory.total,driver_version"
    return f"{START}nvidia-smi --query-gpu={fields} --format=csv,noheader,nounits"


def swallow() -> str:
    """Read standard input to its end."""
    return f"{START}exec cat >/dev/null"


def pour(size: int) -> str:
    """Print that many bytes that nothing can compress."""
    return f"{START}exec head -c {int(size)} /dev/urandom"


def list_job_folders(root: PurePosixPath) -> str:
    """Print age in seconds, bytes that nobody else holds, and name of each job's folder.

    The age is that of the newest change of the folder or of something directly in it.
    """
    newest = "find \"$job\" -maxdepth 1 -printf '%T@\\n' | sort -n | tail -n 1"
    size = "find \"$job\" -type f -links 1 -printf '%s\\n' | awk '{ sum += $1 } END { print sum + 0 }'"
    return (
        f"{START}cd {quote(root)}/jobs 2>/dev/null || exit 0; now=$(date +%s);"
        ' for job in *; do [ -d "$job" ] || continue;'
        f' new=$({newest}); echo $((now - ${{new%.*}})) $({size}) "$job"; done'
    )


def list_unused(root: PurePosixPath, minutes: int) -> str:
    """Print size and name of the store's files that no job links, and that nobody linked or unlinked for so long."""
    return (
        f"{START}cd {quote(root / STORE)} 2>/dev/null || exit 0;"
        f" find . -type f -links 1 -cmin +{int(minutes)} -printf '%s %P\\n'"
    )


def drop_unused(root: PurePosixPath) -> str:
    """Remove those of the named files of the store that no job has linked since."""
    inner = 'find "$@" -maxdepth 0 -type f -links 1 -delete'
    return f"{START}cd {quote(root / STORE)} && xargs -0 -r sh -c {quote(inner)} sh"


def place_dataset(made: PurePosixPath, dataset: PurePosixPath) -> str:
    """Rename a folder to where a data set lies; exit code 65 if something is there."""
    target = quote(dataset)
    is_free = f"{{ [ ! -e {target} ] || exit 65; }}"
    return f"{START}mkdir -p -- {quote(dataset.parent)} && {is_free} && mv -T -- {quote(made)} {target}"


def link_workdir(folder: PurePosixPath, workdir: PurePosixPath) -> str:
    """Make a job's folder whose `work` is the working folder of all, so that files from there can be collected."""
    return f"{START}mkdir -p -- {quote(folder)} && ln -s -- {quote(workdir)} {quote(folder / 'work')}"


def exists(path: PurePosixPath) -> str:
    """Exit with 0 if something is there."""
    return f"{START}[ -e {quote(path)} ]"


def list_folders(parent: PurePosixPath, kinds: tuple[str, ...]) -> str:
    """Print for each folder below `parent`: its bytes, the number of files below each of `kinds`, and its name."""
    counts = " ".join(f'$(find -L ./"$one"/{kind} -type f 2>/dev/null | wc -l)' for kind in kinds)
    return (
        f'{START}cd -- {quote(parent)} 2>/dev/null || exit 0; for one in *; do [ -d "$one" ] || continue;'
        f" printf '%s ' $(du -sb -- \"$one\" | cut -f 1) {counts}; printf '%s\\n' \"$one\"; done"
    )
