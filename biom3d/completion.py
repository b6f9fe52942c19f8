"""Completion of the `biom3d` command by the Tab key: what may follow the words that are typed.

The shell calls `biom3d --complete WORD...` with the words up to the cursor, the last one unfinished, and gets one
candidate a line; none lets the shell complete the name of a file. No library: the parsers know it all.
"""

import argparse
import importlib
from collections.abc import Iterator, Mapping, Sequence

BASH = """_biom3d() {
    mapfile -t COMPREPLY < <(biom3d --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _biom3d biom3d
"""


def candidates(words: Sequence[str], commands: Mapping[str, str]) -> list[str]:
    """Return what the last of `words` may become; `commands` maps each command to its module."""
    if len(words) < 2:
        return _starting(words[-1] if words else "", [*commands, "--help", "--version"])
    command, *before, last = words
    if command not in commands:
        return []
    parser: argparse.ArgumentParser = importlib.import_module(commands[command]).build_parser()
    for word in before:
        parser = _below(parser).get(word, parser)
    if last.startswith("-"):
        return _starting(last, _options(parser))
    return _starting(last, [*_below(parser), *_values(parser, before[-1] if before else "")])


def _starting(start: str, words: Sequence[str]) -> list[str]:
    return sorted(word for word in words if word.startswith(start))


def _below(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the commands below one, such as those of `biom3d report`."""
    found = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
    return found.choices if found else {}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    return [option for action in shown for option in action.option_strings]


def _values(parser: argparse.ArgumentParser, option: str) -> Iterator[str]:
    """Yield the values that an option may have, where it says which."""
    for action in parser._actions:
        if option in action.option_strings and action.choices:
            yield from map(str, action.choices)
