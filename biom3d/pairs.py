"""Volumes of two folders that belong together: paired by name, never by order, and labels made comparable."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biom3d.data.labels import check_labels, count_labels, normalise_labels
from biom3d.errors import DataError
from biom3d.io import list_volumes, read_labels, volume_name
from biom3d.io.volume import Header

SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Pair:
    """Two files of one case."""

    name: str
    first: Path
    second: Path


def pair_volumes(first: Path, second: Path, words: tuple[str, str]) -> tuple[list[Pair], list[str]]:
    """Pair the volumes of two folders by `volume_name`; also return the names that only `second` has.

    Two files given as such are a pair, whatever their names. `words` say what the two sides are in messages.
    Raises DataError where a volume of `first` has no partner.
    """
    left = {volume_name(path): path for path in list_volumes(first)}
    right = {volume_name(path): path for path in list_volumes(second)}
    if [first] == list(left.values()) and [second] == list(right.values()):
        return [Pair(volume_name(first), first, second)], []
    alone = [name for name in left if name not in right]
    if alone:
        raise DataError(
            f"{len(alone)} {words[0]}(s) in '{first}' without {words[1]} of the same name in '{second}': "
            f"{quoted(alone)}; found there: {quoted(list(right))}"
        )
    return [Pair(name, path, right[name]) for name, path in left.items()], [n for n in right if n not in left]


def quoted(names: Sequence[str]) -> str:
    """Write a list of names for a message, the first few of them."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def read_classes(path: Path, num_classes: int, instances: bool = False) -> tuple[np.ndarray, Header, str | None]:
    """Read labels (z, y, x) as classes 0..num_classes, by the rules of training.

    Returns the labels, the header of the file, and what was changed without asking (a mask of 0 and 255), or
    None. Raises DataError for other values.
    """
    volume = read_labels(path)
    labels = volume.array[0]
    warning = None if instances else check_labels(count_labels(labels), num_classes).warning
    try:
        return normalise_labels(labels, num_classes, instances), volume.header, warning
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error
