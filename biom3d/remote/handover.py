"""A host that one part of a program has connected to and the next one goes on with: a password is asked for once.

In one process a workflow first asks what lies on the server, and later its executor runs jobs there; Snakemake is in
between, and hands nothing on. So the connection waits here, by its settings.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from biom3d.remote.host import Host
from biom3d.remote.profile import open_host

_waiting: dict[str, Host] = {}


@contextmanager
def lend(settings: Any, folder: Path) -> Iterator[Host]:
    """Open a host; afterwards it waits for `take`, connected. After an error it is closed."""
    host = take(settings, folder)
    try:
        yield host
    except BaseException:
        host.close()
        raise
    _waiting[_name(settings)] = host


def take(settings: Any, folder: Path) -> Host:
    """Return the host of these settings that waits, or a new one; the caller closes it."""
    return _waiting.pop(_name(settings), None) or open_host(settings, folder)


def _name(settings: Any) -> str:
    return repr(sorted(dataclasses.asdict(settings).items(), key=lambda item: item[0]))
