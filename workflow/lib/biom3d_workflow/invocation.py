"""Where jobs are going to run, from Snakemake's command line: whether that place has data of its own.

Snakemake reads the rules before it tells them which executor it has; so the words are read again, by its own parser.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

STARTERS = ("snakemake", "__main__.py")
EXECUTOR, THIS_MACHINE = "host", (None, "local")
VENV = "venv"  # a runtime of the executor without containers, as in biom3d.remote.runtime (a test compares)
UNKNOWN: Final = "unknown"  # nothing is going to run, or another program decides where: what was noted before counts
# Options of Snakemake with which nothing runs, and no server needs to be there.
LOOKS = (
    *("lint", "report", "unlock", "containerize", "archive", "print_compilation", "cleanup_metadata"),
    *("list_rules", "list_target_rules", "summary", "detailed_summary", "dag", "d3dag", "rulegraph", "filegraph"),
    *("list_changes", "list_input_changes", "list_params_changes", "list_untracked"),
    *("delete_all_output", "delete_temp_output"),
)
# Those of them that remove something: results, notes, locks.
CHANGES = ("unlock", "cleanup_metadata", "delete_all_output", "delete_temp_output")


def read_options(argv: Sequence[str], parse: Callable[[Sequence[str]], Any]) -> Any:
    """Return the options of Snakemake's command line, profiles included; None where another program started it.

    `parse` makes options of words.
    """
    if Path(argv[0]).name not in STARTERS:
        return None
    with contextlib.redirect_stderr(io.StringIO()):  # it names the profiles, as it has done before
        return parse(argv[1:])


def changes(options: Any) -> bool:
    """Say whether Snakemake runs nothing, but removes something: nobody may work meanwhile."""
    return any(getattr(options, name, None) for name in CHANGES)


def find_server(options: Any, settings_of: Callable[[Any], Any]) -> Any:
    """Return the executor's settings for the host that jobs run on; None if that has no data of its own; or UNKNOWN.

    `settings_of` makes settings of options.
    """
    if options is None or looks_only(options):
        return UNKNOWN
    settings = settings_of(options) if options.executor == EXECUTOR else None
    return None if settings is None or settings.address in THIS_MACHINE else settings


def looks_only(options: Any) -> bool:
    """Say whether nothing is going to run, nor to be told what would (a dry run tells)."""
    return any(getattr(options, name, None) for name in LOOKS) and not options.report_after_run


def has_containers(options: Any, settings_of: Callable[[Any], Any]) -> bool:
    """Say whether the steps run in containers."""
    if options is None or options.executor != EXECUTOR:
        return False
    return bool(settings_of(options).runtime != VENV)
