"""What a run is going to send, said before its first job: files, bytes, and how much of that the host has already."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from biom3d.errors import DataError
from biom3d.remote.host import Entry, Host, Say
from biom3d.remote.local import LocalHost
from biom3d.remote.progress import size_text


def foretell(host: Host, inputs: Iterable[tuple[str, Path]], say: Say) -> None:
    """Say what `inputs` (name for the jobs, path here) are in all; nothing for this machine, where nothing is sent.

    Reads and hashes what was not read before, which the jobs would do else. Without a word where an input cannot be
    read: the job that wants it fails, and says why.
    """
    if isinstance(host, LocalHost):
        return
    from biom3d.remote.ssh import SSHHost

    assert isinstance(host, SSHHost)
    entries: tuple[Entry, ...] = ()
    with suppress(DataError):
        entries = host.identify((name, path) for name, path in inputs if path.exists())
    if entries:
        say(forecast_text(entries, {entry.key for entry in host.lacking(entries)}))


def forecast_text(entries: Sequence[Entry], lacking: Iterable[str]) -> str:
    """Return the line: `input: 305 files in 3 folders, 12.4 GB, 11.9 GB already there`."""
    sizes = {entry.key: entry.size for entry in entries}
    total = sum(sizes.values())
    there = total - sum(sizes[key] for key in lacking)
    folders = {PurePosixPath(entry.name).parent for entry in entries}
    files = f"{len(entries)} file{'' if len(entries) == 1 else 's'}"
    where = f"{len(folders)} folder{'' if len(folders) == 1 else 's'}"
    return f"input: {files} in {where}, {size_text(total)}, {size_text(there)} already there"
