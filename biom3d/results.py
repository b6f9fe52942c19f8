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

DESCRIPTION = """Results that no row or model makes any more, and models that were replaced; in the folder of a project.

  biom3d results --orphans            # what rows and models that were removed have left, with sizes
  biom3d results --orphans --paths    # every file and folder of it
  biom3d results --orphans --yes      # move it to trash/DATE; nothing is deleted
  biom3d results --replaced           # trained models that were replaced: when, epochs, Dice
  biom3d results --bring_back NAME    # lay one into models/NAME, for `path:` of a model in config.yaml"""
UNITS = ("B", "kB", "MB", "GB", "TB")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = step_parser("results", DESCRIPTION)
    parser.add_argument("--orphans", action="store_true", help="list what no row or model makes any more")
    parser.add_argument("--paths", action="store_true", help="list every file and folder, not one line for each owner")
    parser.add_argument("--replaced", action="store_true", help="list trained models that were replaced and are kept")
    parser.add_argument("--bring_back", metavar="NAME", help="a name of that list: make it a model beside the others")
    parser.add_argument("--yes", action="store_true", help="move it to a trash folder of the project")
    parser.add_argument(
        "--configfile", default="config/config.yaml", metavar="FILE", help="configuration (default: config/config.yaml)"
    )
    return parser


def execute(args: argparse.Namespace, report: "Reporter") -> None:
    """List leftovers and replaced models, move the former or bring one of the latter back."""
    if args.bring_back:
        _bring_back(args, report)
    elif args.replaced:
        _list_replaced(report)
    elif args.orphans:
        _list_orphans(args, report)
    else:
        raise ConfigError("give --orphans (what no row or model makes any more), --replaced or --bring_back NAME")


def _list_replaced(report: "Reporter") -> None:
    versions = _workflow("versions").find()
    for version in versions:
        print(version.line)
    if not versions:
        report.info("no trained model was replaced")
        return
    report.info(
        "an option put back in config.yaml brings its model back in the next run, without training; to use one beside"
        f" the new one: biom3d results --bring_back {versions[0].name}"
    )


def _bring_back(args: argparse.Namespace, report: "Reporter") -> None:
    versions, identity = _workflow("versions"), _workflow("identity")
    known = {version.name: version for version in versions.find()}
    version = known.get(args.bring_back)
    if version is None:
        names = ", ".join(known) or "none is kept"
        raise DataError(f"there is no replaced model '{args.bring_back}' (there are: {names})")
    if versions.is_asked_for(version, identity.Identities(_project(args.configfile), {}).of):
        report.info(f"{args.configfile} asks for '{version.name}' already: the next `biom3d run` brings it back")
        return
    try:
        folder = versions.lay_out(version)
    except OSError as error:
        raise system_error(error) from error
    report.info(
        f"'{folder}' holds {version.line}; to segment with it, in {args.configfile}:"
        f" models: {{{version.name}: {{path: {folder}}}}}, and its name in column predict of the table"
    )


def _list_orphans(args: argparse.Namespace, report: "Reporter") -> None:
    leftovers, lock, renamed, identity = map(_workflow, ("leftovers", "lock", "renamed", "identity"))
    project = _project(args.configfile)
    found = leftovers.find(project)
    for old, name in renamed.find(project, identity.Identities(project, {}).of):
        found = [path for path in found if not leftovers.is_of(path, old)]
        report.info(
            f"what there is of '{old}' belongs to row '{name}', which has its files: the next run takes it along"
        )
    off = _workflow("table").switched_off(_workflow("project").table_name(read_yaml(Path(args.configfile))))
    sizes = {path: leftovers.size_of(path) for path in found}
    switched_off = {path for path in found if any(leftovers.is_of(path, name) for name in off)}
    shown: dict[str, int] = {}
    for path, size in sizes.items():
        owner = str(path) if args.paths else leftovers.owner(path, project)
        owner += "  (switched off with # in the table: stays)" if path in switched_off else ""
        shown[owner] = shown.get(owner, 0) + size
    for owner, size in sorted(shown.items(), key=lambda shown: shown[0]):
        print(f"{size_text(size):>9}  {owner}")
    if (hidden := Path(".biom3d")).is_dir():
        report.info(f"replaced models and notes in '{hidden}': {size_text(leftovers.size_of(hidden))}")
    found = [path for path in found if path not in switched_off]
    total = f"{len(found)} left over, {size_text(sum(sizes[path] for path in found))}"
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
