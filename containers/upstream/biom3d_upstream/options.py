"""Options that the rules give to our engine and that Biom3d 0.1.2 has no way to follow."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from biom3d_upstream.contract import InputError


def refuse(args: argparse.Namespace, allowed: Mapping[str, Sequence[Any]], reasons: Mapping[str, str]) -> None:
    """Raise InputError for options with a value beyond `allowed`; None and False are always allowed."""
    for name, reason in reasons.items():
        value = getattr(args, name)
        if value not in (None, False, *allowed.get(name, ())):
            shown = "" if value is True else f" {value}"
            raise InputError(f"--{name}{shown} is not possible with Biom3d 0.1.2: {reason}")


def add_spacing(parser: argparse.ArgumentParser) -> None:
    """Add `--spacing Z Y X`."""
    parser.add_argument("--spacing", nargs=3, type=_size, metavar=("Z", "Y", "X"), help="voxel size in µm")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add `--threads N`."""
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}'; wanted a whole number above 0")
    return int(text)


def true_or_false(text: str) -> bool:
    """Return what True or False say; Biom3d itself takes every word for True."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"got '{text}'; wanted True or False")
    return text.lower() == "true"


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got '{text}'; wanted µm, above 0")
    return value
