"""Which models of an ensemble may speak about a volume: those that did not learn from it; and what a score then is."""

from collections.abc import Sequence
from dataclasses import dataclass

from biom3d.data.identity import identify_volume
from biom3d.data.learned import TrainingSet
from biom3d.data.predictions import CROSS_VALIDATED, HELD_OUT, TRAINING, UNKNOWN
from biom3d.io import LazyVolume


@dataclass(frozen=True)
class Choice:
    """What `kind` of prediction this is, and which models make it (their places in the ensemble)."""

    kind: str
    members: tuple[int, ...]


def choose_members(volume: LazyVolume, records: Sequence[TrainingSet | None], every: bool = False) -> Choice:
    """Decide by the voxels of a volume; it is read only where a training volume has its shape.

    `records` are those of the models; `every` takes all models in any case.
    """
    known = [record for record in records if record is not None]
    shape = tuple(volume.header.shape)
    if not any(shape in record.shapes() for record in known):
        return _choose("", records, every)
    return _choose(identify_volume(volume), records, every)


def _choose(digest: str, records: Sequence[TrainingSet | None], every: bool) -> Choice:
    everyone = tuple(range(len(records)))
    if not any(record is not None and record.knows(digest) for record in records):
        is_known = all(record is not None and record.is_complete for record in records)
        return Choice(HELD_OUT if is_known else UNKNOWN, everyone)
    # What has no whole record may have learned from it.
    others = tuple(
        place
        for place, record in enumerate(records)
        if record is not None and record.is_complete and not record.learned(digest)
    )
    if not others or (every and len(others) < len(records)):
        return Choice(TRAINING, everyone)
    return Choice(CROSS_VALIDATED, others)
