"""The step contract: one call, lines on stderr, JSON lines for programs, exit codes 0, 2 (your input), 1 (the rest)."""

import argparse
import contextlib
import csv
import fcntl
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import yaml

STOPPED = 130
LOCK = ".lock"


class StepError(Exception):
    """Shown as one message without a traceback."""

    exit_code = 1


class InputError(StepError):
    """Something the user gave cannot be used as it is."""

    exit_code = 2


class Reporter:
    """The one way a step speaks: lines for people on stderr, and one JSON object a line in the file `events`."""

    def __init__(self, step: str, events: Path | None = None) -> None:
        self.step = step
        self._events: TextIO | None = None
        if events is not None:
            events.parent.mkdir(parents=True, exist_ok=True)
            self._events = open(events, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115

    def info(self, message: str) -> None:
        """Print one line for people."""
        print(f"{self.step}: {message}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Print one warning and record it as an event."""
        self.info(f"warning: {message}")
        self.event("warning", message=message)

    def event(self, event: str, **fields: Any) -> None:
        """Append one event for programs."""
        if self._events is not None:
            record = {"t": round(time.time(), 3), "step": self.step, "event": event, **fields}
            self._events.write(json.dumps(record, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the events file."""
        if self._events is not None:
            self._events.close()


Step = Callable[[argparse.Namespace, Reporter], None]


def step_parser(step: str, description: str) -> argparse.ArgumentParser:
    """Return the parser that every step starts from."""
    parser = argparse.ArgumentParser(prog=f"python -m biom3d_upstream.{step}", description=description)
    parser.add_argument("--events", type=Path, metavar="FILE", help="append one JSON line per event to FILE")
    return parser


def run_step(step: str, parser: argparse.ArgumentParser, execute: Step, argv: Sequence[str] | None) -> int:
    """Parse `argv`, call `execute(args, report)`, and return the exit code of the contract."""
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop_like_ctrl_c)
    try:
        report = Reporter(step, args.events)
    except OSError as error:
        print(f"{step}: error: cannot write '{args.events}': {error.strerror}; choose another file", file=sys.stderr)
        return 1
    try:
        execute(args, report)
    except (StepError, OSError, MemoryError) as error:
        exit_code = error.exit_code if isinstance(error, StepError) else 1
        message = str(error) or "out of memory"
        report.info(f"error: {message}")
        report.event("error", message=message, exit_code=exit_code)
        return exit_code
    except KeyboardInterrupt:
        report.info("stopped; run the same command again")
        report.event("stopped")
        return STOPPED
    finally:
        report.close()
    return 0


@contextlib.contextmanager
def working_folder(result: Path, keep: bool = False) -> Iterator[Path]:
    """Yield `<result>.partial`, held by a lock; removed at the end, unless it fails and `keep` says to go on with it.

    The name is always the same, so that what a killed step left is cleared, or gone on with, by the next one.
    """
    folder = result.parent / f"{result.name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another step works in '{folder}'; wait for it, or choose another output") from error
        if not keep:
            clear(folder)
        try:
            yield folder
        except BaseException:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what is in a working folder, but not its lock."""
    for entry in folder.iterdir():
        if entry.name != LOCK:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def refuse_taken(folder: Path, option: str) -> None:
    """Raise InputError where something is there already, an empty folder aside."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if os.path.lexists(folder):
        raise InputError(f"'{folder}' exists; choose another {option}, or remove it")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def yaml_text(value: Any) -> str:
    """Return a configuration as YAML without anchors: the value of a key can be edited where it stands."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same columns as CSV, atomically; None is an empty cell, fractions have 4 decimals."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _stop_like_ctrl_c(*_: object) -> NoReturn:
    raise KeyboardInterrupt
