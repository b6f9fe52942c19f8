"""Jobs in the list of a host's processes: what supervises a job carries its labels as an argument.

So jobs of all accounts and of all runtimes are seen without asking anybody, nothing has to be noted that could be
wrong later, and an engine is not needed. Inside of a container that hides its processes the engine knows them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from biom3d.errors import HostError
from biom3d.remote.host import Host
from biom3d.remote.job import LABEL
from biom3d.remote.template import made

PREFIX = f"{LABEL}="
_LIST_MARKED = made(
    "list_marked",
    f"""
for file in $(grep -lzs '^{PREFIX.replace(".", "[.]")}{{' /proc/[0-9]*/cmdline); do
  uid=$(stat -c %u "${{file%/cmdline}}" 2>/dev/null) || continue
  since=0 words=
  while IFS= read -r word; do
    case $word in since=*) since=${{word#since=}};; {PREFIX}*) words=$word;; esac
  done <<END
$(tr '\\0' '\\n' <"$file" 2>/dev/null)
END
  [ -z "$words" ] || printf '%s %s %s\\n' "$uid" "$since" "$words"
done; true
""",
)
TEMPLATES = (_LIST_MARKED,)


@dataclass(frozen=True)
class Marked:
    """A process that supervises a job: `since` in seconds since 1970 by the host's clock, 0 if it does not say."""

    uid: str
    since: int
    labels: dict[str, str]


def mark(labels: Mapping[str, str]) -> str:
    """Return the argument that says what a process supervises; one line of ASCII."""
    return PREFIX + json.dumps(labels)


def list_marked() -> str:
    """Print uid, time of start where it is said, and mark of each process that supervises a job."""
    return _LIST_MARKED.line()


def find_marked(host: Host) -> list[Marked]:
    """Return the jobs that run on the host, each once, as the list of processes shows them."""
    done = host.run(list_marked(), repeat=True)
    if done.code:
        raise HostError(f"{host.name}: the list of its processes cannot be read; is /proc there?")
    return read_marked(done.out.decode(errors="replace"))


def read_marked(text: str) -> list[Marked]:
    """Read what `list_marked` prints; who writes nonsense into his arguments is passed over."""
    found: dict[str, Marked] = {}
    for line in text.splitlines():
        uid, _, rest = line.partition(" ")
        since, _, words = rest.partition(" ")
        try:
            labels = {str(key): str(value) for key, value in dict(json.loads(words.removeprefix(PREFIX))).items()}
            int(labels[f"{LABEL}.threads"]), int(labels[f"{LABEL}.mem_mb"])
            labels.setdefault(f"{LABEL}.name", "?")
            # A shell that prepares something for another shows the same arguments.
            found.setdefault(labels[LABEL], Marked(uid, int(since), labels))
        except (ValueError, TypeError, KeyError):
            continue
    return list(found.values())
