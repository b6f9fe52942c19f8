"""How far running jobs are, from the events that their steps write: read in the job's folder on the host."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from biom3d.errors import DataError, HostError, LostConnection
from biom3d.events import duration_text
from biom3d.remote.host import Host, Say
from biom3d.remote.job import WORK
from biom3d.remote.runtime import Seen
from biom3d.remote.site import shown
from biom3d.remote.template import made

EVENTS = "logs/steps"  # below the working folder: where the workflow's steps write them, a file each
POLL_S = 2.0  # between looks at a file that grows
TRIES = 20  # of the same look, each with the patience of the connection itself
NOT_THERE = 66
LAST = 20  # events that are looked at for the one that says how far the step is
WIDEST = 4000  # bytes of them

# The newest file is that of the step at work. Files with several names are of earlier jobs: inputs, kept outputs.
_FIND = f"find ./{WORK}/{EVENTS} -type f -name '*.jsonl' -links 1 -printf '%T@ %i %p\\n' 2>/dev/null"
_NEWEST = f"{_FIND} | sort -n | tail -n 1"
_LAST_EVENTS = made(
    "last_events",
    f"""
cd -- "$1/jobs" 2>/dev/null || exit 0
shift
for job; do (
  cd -- "$job" 2>/dev/null && file=$({_NEWEST}) && [ -n "$file" ] || exit
  tail -c {WIDEST} -- "${{file#* * }}" | tail -n {LAST} | sed "s/^/$job /"
  echo
) 2>/dev/null; done
""",
    "root",
    "job-id*",
)
_READ_EVENTS = made(
    "read_events",
    f"""
cd -- "$1" 2>/dev/null || exit {NOT_THERE}
file=$({_NEWEST})
[ -n "$file" ] || exit {NOT_THERE}
file=${{file#* }} from=1
[ "${{file%% *}}" != "$2" ] || from=$3
echo "${{file%% *}} $from"
exec tail -c +"$from" -- "${{file#* }}"
""",
    "job",
    "number",
    "number",
)
TEMPLATES = (_LAST_EVENTS, _READ_EVENTS)


def find_progress(host: Host, jobs: Iterable[Seen]) -> dict[str, str]:
    """Return for our jobs that run how far they are, where their steps say it; nothing if the host cannot tell."""
    ours = [job.id for job in jobs if job.is_ours and job.state == "running"]
    if not ours:
        return {}
    done = host.run(_LAST_EVENTS.line(host.root, *ours), repeat=True)
    events: dict[str, list[dict[str, Any]]] = {}
    for line in done.out.decode(errors="replace").splitlines():
        job, _, text = line.partition(" ")
        if job in ours:
            events.setdefault(job, []).extend(_parse([text]))
    return {job: text for job, found in events.items() if (text := describe(found))}


def describe(events: Sequence[dict[str, Any]]) -> str:
    """Say how far a step is by its last events: `train: epoch 5 of 14, 0:35 left`."""
    for event in reversed(events):
        number = event.get("epoch", event.get("index"))
        if isinstance(number, int) and isinstance(event.get("of"), int):
            left = event.get("eta_s")
            time_left = f", {duration_text(left)} left" if isinstance(left, int | float) and 0 <= left < 1e9 else ""
            return _plain(f"{event.get('step', '?')}: {event.get('event', '')} {number} of {event['of']}{time_left}")
    return _plain(str(events[-1].get("step", ""))) if events else ""


def _plain(text: str) -> str:
    """A job writes what it likes, and a terminal obeys what is not printable."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _parse(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # cut off, or still being written
            continue
        if isinstance(event, dict):
            yield event


def print_events(host: Host, job: Seen, is_followed: bool, say: Say, is_running: Callable[[], bool]) -> None:
    """Print the events of the step at work, one JSON object a line; followed, go on until the job has ended.

    Raises:
        DataError: no step of it has written any.
    """
    tail = _Tail(host, host.root / "jobs" / job.id)
    if not is_followed:
        if not tail.read(say):
            raise DataError(
                f"{host.name}: no step of job '{job.name}' writes events there; of a job that has ended they are in"
                f" {EVENTS}/ here"
            )
        return
    pause = threading.Event()
    while True:
        goes_on = is_running()
        tail.read(say)  # once more after its end
        if not goes_on:
            return
        pause.wait(POLL_S)


class _Tail:
    """The lines of the newest events file of a job, each once, whole."""

    def __init__(self, host: Host, folder: PurePosixPath) -> None:
        self._host, self._folder = host, folder
        self._inode, self._from = 0, 1

    def read(self, say: Say) -> bool:
        """Say the lines that are new; return whether there is a file."""
        for attempt in range(TRIES):
            try:
                done = self._host.run(_READ_EVENTS.line(self._folder, self._inode, self._from), repeat=True)
                break
            except LostConnection as error:
                if attempt == TRIES - 1:
                    raise
                say(f"[{error}; trying again]")
        if done.code == NOT_THERE:
            return False
        if done.code:
            raise HostError(f"{self._host.name}: the events cannot be read ({shown(done.err)})")
        head, _, content = done.out.partition(b"\n")
        inode, start = (int(word) for word in head.split())
        whole, end, _ = content.rpartition(b"\n")
        self._inode, self._from = inode, start + len(whole) + len(end)
        for line in whole.split(b"\n") if end else ():
            say(_plain(line.decode(errors="replace")))
        return True
