"""Which volumes belong together: by name, never by order; masks to images, predictions to truth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from biom3d.errors import DataError
from biom3d.io import list_volumes, volume_file, volume_name

SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Case:
    """One image and its mask, under one name; `mask` is None for images alone."""

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Pairing:
    """The cases that could be paired, one line for each thing that is wrong with the rest, and images without mask.

    `unmasked` are such images of folders where others have one: they teach nothing, which is no mistake.
    """

    cases: tuple[Case, ...]
    problems: tuple[str, ...]
    unmasked: tuple[Case, ...] = ()

    def coverage(self) -> str:
        """Say which images the masks cover; empty where they cover all."""
        if not self.unmasked:
            return ""
        count = f"{len(self.cases)} of {len(self.cases) + len(self.unmasked)} images have a mask"
        return f"{count}: these teach and are scored, the others are segmented only"


@dataclass(frozen=True)
class Keys:
    """Which array of their files the images and the masks are, where the paths do not say; None: what looks like it."""

    image: str | None = None
    mask: str | None = None


ANY = Keys()


def pair_volumes(images: Sequence[Path | str], masks: Sequence[Path | str] | None = None, keys: Keys = ANY) -> Pairing:
    """Pair the volumes of each folder of `images` with those of the folder of `masks` at the same place.

    A mask has the name of its image; the suffix may differ. Masks may be there for a part of the images. A single
    file may stand for a folder; one image file and one mask file are a pair under any names. Without `masks` every
    image is a case of its own. Where two folders hold the same name, all names get the differing part of their
    folder's path in front. A key for masks without `masks` means that they are in the files of the images.
    """
    if masks is None and keys.mask is not None:
        masks = [volume_file(path) for path in images]
    if masks is not None and len(masks) != len(images):
        return Pairing(
            (),
            (
                f"{len(images)} image folders and {len(masks)} mask folders; "
                "give one mask folder for each image folder, in the same order",
            ),
        )
    groups: list[list[Case]] = []
    problems: list[str] = []
    for place, folder in enumerate(images):
        cases, wrong = _pair_folder(Path(folder), Path(masks[place]) if masks is not None else None, keys)
        groups.append(cases)
        problems += wrong
    folders = [volume_file(folder) for folder in images]
    if masks is None:
        return Pairing(_named(groups, folders), tuple(problems))
    # each by themselves: an image without mask that comes later must not rename those that teach
    paired, unmasked = (
        _named([[case for case in group if (case.mask is None) == alone] for group in groups], folders)
        for alone in (False, True)
    )
    return Pairing(paired, tuple(problems), unmasked)


def refuse(problems: Sequence[str], what: str = "the data set") -> None:
    """Raise one `DataError` that holds all `problems`, each on its own line; none is fine."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError("\n".join([f"{count} with {what}:", *(f"  {problem}" for problem in problems)]))


@dataclass(frozen=True)
class Pair:
    """Two files of one case."""

    name: str
    first: Path
    second: Path


@dataclass(frozen=True)
class Match:
    """The pairs of two folders, and the names that only the first (`alone`) or only the second (`unused`) has."""

    pairs: list[Pair]
    alone: list[str]
    unused: list[str]


def match_volumes(
    first: Path, second: Path, words: tuple[str, str], key: str | None = None, is_partial: bool = False
) -> Match:
    """Pair the volumes of two folders by `volume_name`.

    A single file as `second` belongs to the only volume of `first`, whatever their names. `words` say what
    the two sides are in messages; `key` names the array of the second ones.
    Raises DataError where a volume of `first` has no partner; where `is_partial`, only if none has.
    """
    left = {volume_name(path): path for path in list_volumes(first)}
    right = {volume_name(path): path for path in list_volumes(second, key)}
    if len(left) == 1 and not _is_folder(second):
        ((name, path),), (other,) = left.items(), right.values()
        return Match([Pair(name, path, other)], [], [])
    alone = [name for name in left if name not in right]
    if alone and not (is_partial and len(alone) < len(left)):
        raise DataError(
            f"{len(alone)} {words[0]}(s) in '{first}' without {words[1]} of the same name in '{second}': "
            f"{quoted(alone)}; found there: {quoted(list(right))}; add the {words[1]}, or take the {words[0]} away"
        )
    pairs = [Pair(name, path, right[name]) for name, path in left.items() if name in right]
    return Match(pairs, alone, [name for name in right if name not in left])


def quoted(names: Sequence[str]) -> str:
    """Write a list of names for a message, the first few of them."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more


def _is_folder(path: Path) -> bool:
    """Tell a folder of volumes from one volume, which may be a folder too (OME-Zarr)."""
    return list_volumes(path) != [path]


def _pair_folder(images: Path, masks: Path | None, keys: Keys) -> tuple[list[Case], list[str]]:
    problems: list[str] = []
    found = _list(images, keys.image, problems)
    if masks is None:
        return [Case(volume_name(path), path, None) for path in found], problems
    wanted = _list(masks, keys.mask, problems)
    if problems:
        return [], problems
    if not _is_folder(images) and not _is_folder(masks):
        return [Case(volume_name(images), found[0], wanted[0])], []
    by_name = {volume_name(path): path for path in wanted}
    cases = [Case(volume_name(path), path, by_name.get(volume_name(path))) for path in found]
    return cases, _unpaired(found, wanted)


def _list(folder: Path, key: str | None, problems: list[str]) -> list[Path]:
    try:
        return list_volumes(folder, key)
    except DataError as error:
        problems.append(str(error))
        return []


def _unpaired(images: list[Path], masks: list[Path]) -> list[str]:
    image_names = {volume_name(path) for path in images}
    alone = [path for path in masks if volume_name(path) not in image_names]
    problems = [
        f"'{path}': mask without image; wanted an image called '{volume_name(path)}'; "
        "add the image, or take the mask away"
        for path in alone
    ]
    if len(alone) == len(masks):
        problems.append(
            f"no mask has the name of an image; rename them alike, for example '{masks[0].name}' -> '{images[0].name}'"
        )
    return problems


def _named(groups: list[list[Case]], folders: list[Path]) -> tuple[Case, ...]:
    prefixes = _prefixes(groups, folders)
    return tuple(replace(case, name=prefix + case.name) for prefix, group in prefixes for case in group)


def _prefixes(groups: list[list[Case]], folders: list[Path]) -> list[tuple[str, list[Case]]]:
    """Return each group with what its names need in front to be unique: nothing, where they are already."""
    names = Counter(case.name for group in groups for case in group)
    if all(count == 1 for count in names.values()):
        return [("", group) for group in groups]
    parts = [list(reversed(folder.absolute().parts)) for folder in folders]
    for level in zip(*parts, strict=False):
        if len(set(level)) == len(level):
            return [(f"{part}_", group) for part, group in zip(level, groups, strict=True)]
    return [(f"{number}_", group) for number, group in enumerate(groups, start=1)]
