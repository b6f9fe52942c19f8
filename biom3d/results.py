"""`python -m biom3d.results`: what lies among the results of a project that no row or model makes any more."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biom3d.cli import run_step, step_parser
from biom3d.config import read_yaml
from biom3d.errors import ConfigError, DataError
from biom3d.files import system_error
from biom3d.sources import find_sources

if TYPE_CHECKING:
    from biom3d.events import Reporter

DESCRIPTION = """List what rows and models that were removed or renamed have left behind; in the folder of a project.

  biom3d results --orphans          # what it is, with sizes
  biom3d results --orphans --yes    # move it to trash/DATE; nothing is deleted"""
UNITS = ("B", "kB", "MB", "GB", "TB")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = step_parser("results", DESCRIPTION)
    parser.add_argument("--orphans", action="store_true", help="list what no row or model makes any more")
    parser.add_argument("--yes", action="store_true", help="move it to a trash folder of the project")
    parser.add_argument(
        "--configfile", default="config/config.yaml", metavar="FILE", help="configuration (default: config/config.yaml)"
    )
    return parser


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """List the leftovers, or move them."""
    if not args.orphans:
        raise ConfigError("give --orphans: what no row or model makes any more")
    leftovers, lock, renamed, identity = map(_workflow, ("leftovers", "lock", "renamed", "identity"))
    project = _project(args.configfile)
    found = leftovers.find(project)
    for old, name in renamed.find(project, identity.Identities(project, {}).of):
        found = [path for path in found if not leftovers.is_of(path, old)]
        report.info(
            f"what there is of '{old}' belongs to row '{name}', which has its files: the next run takes it along"
        )
    sizes = {path: leftovers.size_of(path) for path in found}
    for path, size in sizes.items():
        print(f"{size_text(size):>9}  {path}")
    total = f"{len(found)} left over, {size_text(sum(sizes.values()))}"
    if not found:
        report.info("nothing is left over")
    elif not args.yes:
        report.info(f"{total}; to move it to a trash folder: biom3d results --orphans --yes")
    else:
        try:
            held = lock.hold(Path.cwd())
            folder = leftovers.throw_away(found)
            lock.let_go(held)
        except lock.HeldError as error:
            raise DataError(str(error)) from None
        except OSError as error:
            raise system_error(error) from error
        report.info(f"{total}; moved to '{folder}'. Remove that folder when you are sure")


def size_text(size: float) -> str:
    """Return a number of bytes in the unit that fits."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _project(configfile: str) -> Any:
    """Return the checked request of this folder, as the workflow understands it."""
    if not Path(configfile).is_file():
        raise DataError(f"'{configfile}' not found; run this in the folder of a project, or give --configfile FILE")
    load = _workflow("project").load_project
    project = load(read_yaml(Path(configfile)), [configfile], {}, look_at_files=False)
    errors = [problem for problem in project.problems if not problem.is_warning]
    if errors:
        raise ConfigError(_workflow("problems").report_text(errors))
    return project


def _workflow(name: str) -> Any:
    """Return a module of the workflow's library, which is no part of this package."""
    library = str(find_sources() / "workflow" / "lib")
    if library not in sys.path:
        sys.path.append(library)
    return importlib.import_module(f"biom3d_workflow.{name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_step("results", build_parser(), execute, argv)


if __name__ == "__main__":
    raise SystemExit(main())
