"""What is wrong with the configuration: one line each, with the place, the value, what is wanted."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to correct. `line` counts from 1; 0 is the file as a whole."""

    file: str
    line: int
    text: str
    is_warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {'warning: ' if self.is_warning else ''}{self.text}"


def report_text(problems: Iterable[Problem]) -> str:
    """Join problems into one message, sorted by place."""
    return "\n".join(map(str, sorted(problems)))


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Say what may have been meant: `did you mean 'epochs'? allowed: ...`."""
    allowed = list(allowed)
    close = difflib.get_close_matches(word, allowed, n=1)
    meant = f"did you mean '{close[0]}'? " if close else ""
    return f"{meant}allowed: {', '.join(allowed)}"
