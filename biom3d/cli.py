"""The `biom3d` command and what every step's command line shares: arguments -> one call -> exit code.

Exit codes of the step contract: 0 done, 2 something in your input or options, 1 anything else. Results are printed on
stdout, progress and errors on stderr. A reader of stdout that goes (`| head`) ends a step without a word.
Importing this module loads no torch, no image library: `--help` answers at once.
"""

import argparse
import difflib
import importlib
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from biom3d import __version__
from biom3d.errors import Biom3dError
from biom3d.events import Reporter
from biom3d.files import system_error
from biom3d.neighbour import find_other, warning
from biom3d.surroundings import describe

COMMANDS = {
    "init": ("biom3d.init", "make the folder of a project, with a configuration and a table of its own"),
    "run": ("biom3d.run", "segment all data sets of the table: the whole workflow, with a plain front"),
    "check": ("biom3d.check", "look at a data set and say what is wrong with it, before any work"),
    "plan": ("biom3d.plan", "show or explain how a model will be configured for a data set"),
    "preprocess": ("biom3d.preprocess", "normalise a data set and plan the training"),
    "train": ("biom3d.train", "train a model on preprocessed data, resume it, or fine-tune another"),
    "preprocess_train": ("biom3d.preprocess_train", "preprocess, then train, in one go"),
    "pred": ("biom3d.pred", "segment images with a trained model (or several)"),
    "eval": ("biom3d.eval", "compare predictions with the truth: Dice, IoU, HD95"),
    "quality": ("biom3d.quality", "say which predictions may be bad, without truth, the most suspicious first"),
    "export": ("biom3d.export", "write results as OME-TIFF and OME-Zarr; pack a model as one file"),
    "report": ("biom3d.report", "draw learning curves and overlays, collect metrics"),
    "results": ("biom3d.results", "list what no row or model of a project makes any more, and move it away"),
    "synth": ("biom3d.synth", "make synthetic 3D cells with exact truth, for tests and tutorials"),
    "demo": ("biom3d.demo", "fetch the real demo data set"),
    "images": ("biom3d.images.__main__", "build, verify and lock the images that steps run in"),
    "remote": ("biom3d.remote.__main__", "run jobs on a host over SSH: add it, check it, see what runs and lies there"),
    "server": ("biom3d.server.__main__", "set up a server that runs jobs of others, and say who may use it"),
}

# How long idle OpenMP threads spin before they sleep. Two predictions at once on 2 cores took 143 s each with the
# default (they spin away each other's time), 12 s with this; one alone 3.8 and 3.3 s.
SPIN_COUNT = "3000"
ONE_WISH_S = 1.0
_asked = [-ONE_WISH_S]  # when a signal last told us to stop
READER_GONE = 128 + signal.SIGPIPE  # as of a program that the signal ends
OTHER_WORDS = {"predict": "pred", "segment": "pred", "evaluate": "eval", "score": "eval", "new": "init"}
Step = Callable[[argparse.Namespace, Reporter], None]


def step_parser(step: str, description: str) -> argparse.ArgumentParser:
    """Return the parser every step starts from: its name, what it does, and `--events`."""
    parser = argparse.ArgumentParser(
        prog=_typed(step),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--events",
        type=text_file,
        metavar="FILE",
        help="append one JSON line per event to FILE (for programs that watch)",
    )
    parser.add_argument("--version", action="version", version=f"biom3d {__version__}")
    return parser


def _typed(step: str) -> str:
    """Return how a step was called: `biom3d pred` or `python -m biom3d.pred`."""
    program = Path(sys.argv[0])
    is_umbrella = program.name == "biom3d" or program.parts[-2:] == ("biom3d", "__main__.py")
    return f"biom3d {step}" if is_umbrella else f"python -m biom3d.{step}"


def text_file(text: str) -> Path:
    """Return the path of a text file to write; the name of an image or a model is refused, it would be overwritten."""
    if re.search(r"\.(tiff?|nii|nii\.gz|nrrd|mha|npy|npz|hdf5|h5|zarr|pth|zip)$", text.lower()):
        raise argparse.ArgumentTypeError(f"'{text}' has the name of an image or a model; wanted a text file")
    return Path(text)


def add_subcommand(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add a command below a step, such as `report curves`, and return its parser; `--events` works there too."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--events", type=text_file, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def days(text: str) -> float:
    """Read an age, `30d` or `12h`, as days."""
    unit = {"d": 1.0, "h": 1 / 24}.get(text[-1:])
    try:
        age = float(text[:-1]) * unit if unit else -1.0
    except ValueError:
        age = -1.0
    if not 0 <= age < 1e5:
        raise argparse.ArgumentTypeError(f"'{text}' is no age; wanted such as 30d or 12h")
    return age


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; on a terminal or not, so that both people and `awk` can read them."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run_step(step: str, parser: argparse.ArgumentParser, execute: Step, argv: Sequence[str] | None) -> int:
    """Parse `argv`, call `execute(args, report)`, and turn what happens into the contract's exit code."""
    args = parser.parse_args(argv)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read by OpenMP when torch is loaded, which is later
    for sign in (signal.SIGINT, signal.SIGTERM):  # also SIGINT: a script's job in the background is deaf to it
        signal.signal(sign, _stop_like_ctrl_c)
    try:
        report = Reporter(step, args.events)
        report.is_strict = getattr(args, "strict", False)
    except Biom3dError as error:
        print(f"{step}: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.events:
        report.event("start", **describe())
    try:
        execute(args, report)
        sys.stdout.flush()
    except BrokenPipeError as error:
        if not _drop_stdout():  # another pipe than ours
            report.info(f"error: {system_error(error)}")
            return 1
        return READER_GONE
    except (Biom3dError, OSError, MemoryError) as error:
        known = _explain(error)
        report.info(f"error: {known}")
        report.event("error", message=str(known), exit_code=known.exit_code)
        return known.exit_code
    except KeyboardInterrupt:
        report.info("stopped; finished parts are kept, run the same command again to go on")
        report.event("stopped")
        return 130
    finally:
        report.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `biom3d COMMAND ...`, the umbrella over the steps."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(argv)
    finally:
        _drop_stdout()  # of `biom3d --help | head`


def _main(argv: list[str]) -> int:
    if argv[:1] != ["--complete"] and (other := find_other()):
        print(f"biom3d: warning: {warning(other)}", file=sys.stderr)
    if argv and argv[0] in COMMANDS:
        return _run_command(*argv)
    if argv[:1] == ["--complete"]:
        from biom3d.completion import candidates

        print("\n".join(candidates(argv[1:], {name: where for name, (where, _) in COMMANDS.items()})))
        return 0
    parser = _umbrella_parser()
    if argv and not argv[0].startswith("-"):
        parser.error(f"there is no command '{argv[0]}'; {_meant(argv[0])}")
    parser.parse_args(argv)
    parser.print_help()
    return 0


def _meant(word: str) -> str:
    """Say which command may be meant by a word."""
    close = [OTHER_WORDS[word]] if word in OTHER_WORDS else difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    listed = "`biom3d --help` lists the commands"
    return f"did you mean 'biom3d {close[0]}'? {listed}" if close else listed


def _run_command(name: str, *arguments: str) -> int:
    where = COMMANDS[name][0]
    try:
        module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if not where.startswith(str(error.name)):
            raise
        why = f"'{name}' is not in this image, which holds the steps only; run it outside"
        print(f"biom3d: error: {why}", file=sys.stderr)
        return 1
    return int(module.main(list(arguments)))


class _PrintCompletion(argparse.Action):
    """Prints a script for bash and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from biom3d.completion import BASH

        print(BASH, end="")
        parser.exit()


def _umbrella_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="biom3d",
        usage="biom3d COMMAND [options]",
        description="Segment 3D images: train on a few outlined volumes, then predict on many.",
        epilog="commands:\n"
        + "\n".join(lines)
        + "\n\n`biom3d COMMAND --help` explains one command. "
        + "For many data sets at once use the workflow: see README.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"biom3d {__version__}")
    parser.add_argument(
        "--completion", nargs=0, action=_PrintCompletion, help="print what makes bash complete commands and options"
    )
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="see below")
    return parser


def _explain(error: Exception) -> Biom3dError:
    """Return what to tell of an error that is the user's or the machine's, not ours."""
    if isinstance(error, MemoryError):
        return Biom3dError(f"out of memory ({error}); close other programs or use a machine with more memory")
    if isinstance(error, OSError):
        _drop_stdout()
        return system_error(error)
    assert isinstance(error, Biom3dError)
    return error


def _drop_stdout() -> bool:
    """Forget what stdout cannot take (`biom3d plan | head`): Python would try once more at its end, and complain.

    Return whether its reader has gone.
    """
    try:
        sys.stdout.flush()
        if not (is_gone := _reader_has_gone(sys.stdout.fileno())):
            return False
    except ValueError:  # no file
        return False
    except OSError as error:
        is_gone = isinstance(error, BrokenPipeError)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


def _reader_has_gone(pipe: int) -> bool:
    """Ask, since what was written in one piece is no longer there to be flushed."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _stop_like_ctrl_c(*_: object) -> None:
    """Stop; a second signal within a second is the same wish, from a terminal and from what started us."""
    before, _asked[0] = _asked[0], time.monotonic()
    if _asked[0] - before > ONE_WISH_S:
        raise KeyboardInterrupt
