"""What a model learned from: the record that `preprocess` writes, `train` keeps with the model, and `pred` believes.

    training_set.json    beside folds.csv, and in <run>/log/

It tells each volume by its voxels, so a copy under another name, or the same files in another data set, is known too.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from biom3d.data.facts import VolumeFacts, facts_from
from biom3d.errors import DataError
from biom3d.files import write_json

NAME = "training_set.json"
VERSION = 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LearnedVolume:
    """One volume of a training set: its voxels, in which fold(s) it is kept for validation, and what it looks like.

    A volume that was cut into blocks is in the folds of all its blocks.
    """

    name: str
    digest: str
    shape: Shape
    folds: tuple[int, ...] = ()
    facts: VolumeFacts | None = None


@dataclass(frozen=True)
class TrainingSet:
    """The volumes of a training.

    Attributes:
        volumes: its own.
        earlier: digest -> shape of what the model it started from had learned from.
        is_complete: False where it started from a model that has no record.
        fold: which fold this run kept for validation; None before it is trained.
        scheme: how intensities were brought to a common scale, see `Normalisation`.
        arrays: hash of the preprocessed arrays, that of their plan's fingerprint; "" where nobody recorded it.
    """

    volumes: tuple[LearnedVolume, ...] = ()
    earlier: Mapping[str, Shape] | None = None
    is_complete: bool = True
    fold: int | None = None
    scheme: str = "zscore"
    arrays: str = ""

    def shapes(self) -> set[Shape]:
        """Return the shapes of all volumes: a volume of another one is none of them."""
        return {volume.shape for volume in self.volumes} | {tuple(s) for s in (self.earlier or {}).values()}

    def learned(self, digest: str) -> bool:
        """Say whether this run learned from a volume."""
        own = [volume for volume in self.volumes if volume.digest == digest]
        return digest in (self.earlier or {}) or any(volume.folds != (self.fold,) for volume in own)

    def knows(self, digest: str) -> bool:
        """Say whether a volume had a part in this run, if only to choose its best epoch."""
        return digest in (self.earlier or {}) or any(volume.digest == digest for volume in self.volumes)


def with_folds(volumes: Sequence[LearnedVolume], folds: Mapping[str, Iterable[int]], scheme: str) -> TrainingSet:
    """Return the record of a training set; `folds` is name -> folds of the volume's parts."""
    told = tuple(replace(one, folds=tuple(sorted(set(folds[one.name])))) for one in volumes)
    return TrainingSet(told, scheme=scheme)


def of_run(base: TrainingSet, fold: int, start: TrainingSet | None, is_fine_tuned: bool) -> TrainingSet:
    """Return the record that a run keeps; `start` is that of the model whose weights it started from."""
    if not is_fine_tuned:
        return replace(base, fold=fold)
    # Its validation volumes chose the epoch to start from; so all that it knew counts.
    earlier = dict(start.earlier or {}) | {one.digest: one.shape for one in start.volumes} if start else {}
    return replace(base, fold=fold, earlier=earlier, is_complete=base.is_complete and bool(start and start.is_complete))


def describes(training_set: TrainingSet, filenames: Iterable[str]) -> bool:
    """Say whether a record is of these preprocessed files, and not of others that lay there before."""
    stems = {re.sub(r"_block\d+$", "", name.removesuffix(".npy")) for name in filenames}
    names = {re.sub(r"_block\d+$", "", volume.name) for volume in training_set.volumes}
    return stems == names


def read_training_set(path: Path) -> TrainingSet | None:
    """Return the record in a file, None where there is none; DataError where it is damaged."""
    try:
        return parse_training_set(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; ask its owner, or copy the model again") from error


def parse_training_set(text: str, where: str) -> TrainingSet:
    """Return the record in a text; DataError, which names `where` it is from, if it is damaged."""
    try:
        content = json.loads(text)
        volumes = tuple(_volume(one) for one in content["volumes"])
        earlier = {str(digest): tuple(map(int, shape)) for digest, shape in (content.get("earlier") or {}).items()}
        fold = content.get("fold")
        complete, scheme = bool(content.get("is_complete")), str(content.get("scheme", "zscore"))
        arrays = str(content.get("arrays") or "")
        return TrainingSet(volumes, earlier, complete, None if fold is None else int(fold), scheme, arrays)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"'{where}' is damaged ({error!r}); copy the model again, or remove this file") from error


def read_of_run(run: Path) -> TrainingSet | None:
    """Return the record of a model folder."""
    return read_training_set(run / "log" / NAME)


def write_training_set(path: Path, training_set: TrainingSet) -> None:
    """Write the record."""
    write_json(path, {"version": VERSION, **asdict(training_set)})


def _volume(content: Mapping[str, Any]) -> LearnedVolume:
    return LearnedVolume(
        name=str(content["name"]),
        digest=str(content["digest"]),
        shape=tuple(map(int, content["shape"])),
        folds=tuple(map(int, content.get("folds") or ())),
        facts=facts_from(content["facts"]) if content.get("facts") else None,
    )
