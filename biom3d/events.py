"""What a step tells while it works: lines for people on stderr, JSON lines for programs.

Step contract: people read stderr (a progress bar with ETA on a terminal, plain lines in a file); programs
read the file given by `--events`, one JSON object a line:
`{"t": 1790000000.0, "step": "train", "event": "epoch", "epoch": 3, "of": 100, "loss": 0.1, "eta_s": 50.0}`.
"""

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from biom3d.errors import DataError
from biom3d.files import output_error

Item = TypeVar("Item")
STRICT = " (a warning, which --strict makes an error)"
PLAIN_LINE_EVERY_S = 10.0  # in a log file: often enough to follow, seldom enough to read


class Reporter:
    """The one way a step speaks. `step` is its name; `events` the JSON-lines file, if wanted."""

    def __init__(self, step: str, events: Path | str | None = None, stream: TextIO | None = None) -> None:
        self.step = step
        self.is_strict = False  # a warning ends the work
        self.stream = stream or sys.stderr
        self._events: TextIO | None = None
        if events is not None:
            try:
                Path(events).parent.mkdir(parents=True, exist_ok=True)
                # a name that is no text becomes an escape of JSON
                self._events = open(events, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
            except OSError as error:
                raise output_error(Path(events), error) from error

    def info(self, message: str) -> None:
        """Print one line for people; a log that cannot be written does not end the work."""
        with suppress(OSError):
            # in one piece: a signal between a line and its end would glue the next one to it
            print(f"{self.step}: {with_slashes(message)}\n", end="", file=self.stream, flush=True)

    def warn(self, message: str) -> None:
        """Print one warning for people and record it as an event; DataError where warnings end the work."""
        if self.is_strict:
            raise DataError(message + STRICT)
        self.info(f"warning: {message}")
        self.event("warning", message=message)

    def event(self, event: str, **fields: Any) -> None:
        """Append one event for programs: a name and JSON-ready fields. Where that fails the work goes on without."""
        if self._events is None:
            return
        record = {"t": round(time.time(), 3), "step": self.step, "event": event, **fields}
        try:
            self._events.write(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            name = self._events.name
            self.close()
            self.info(f"warning: no more events: {output_error(Path(name), error)}")

    def track(self, items: Iterable[Item], label: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
        """Yield `items` with a progress bar on a terminal, or a plain line now and then elsewhere."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self.stream.isatty():
            from tqdm import tqdm

            yield from tqdm(items, desc=f"{self.step}: {label}", total=total, unit=unit, file=self.stream, leave=False)
            return
        start = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= PLAIN_LINE_EVERY_S and (total is None or done < total):
                last = now
                self.info(f"{label} {progress_text(done, total, now - start)}")

    def close(self) -> None:
        """Close the events file."""
        if self._events is not None:
            with suppress(OSError):  # what is left could not be written before
                self._events.close()
            self._events = None


def with_slashes(text: str) -> str:
    """Return a text with both slashes of its URLs: one is lost where a URL is a path, as all inputs are."""
    return re.sub(r"\b(https?|s3):/(?=[^/\s])", r"\1://", text)


def progress_text(done: int, total: int | None, elapsed_s: float) -> str:
    """Say how far a loop is: `12/40, 0:35 left`."""
    if not total:
        return str(done)
    return f"{done}/{total}, {duration_text(elapsed_s / done * (total - done))} left"


def duration_text(seconds: float) -> str:
    """Write a duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
