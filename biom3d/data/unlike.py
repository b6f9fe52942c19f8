"""Signs that a segmentation may be bad, where no truth tells: models that disagree, volumes unlike the training set.

Each sign has a weight: 0 is nothing unusual, 1 and more is told in words. The limits are rules of thumb.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from biom3d.data.facts import PLANES, VolumeFacts, measure_intensities
from biom3d.data.learned import TrainingSet
from biom3d.data.predictions import Prediction
from biom3d.io import LazyVolume

DISAGREEMENT = 0.2  # of pairs of folds or views: 1 - Dice that counts as 1
FACTOR = 2.0  # how often a share or a size may lie outside of what the training set has
DENSITY_FACTOR = 3.0  # the same of the number of objects, which varies more
NOTHING = 5.0  # the weight of objects that are not found at all
LOOKED_AT = 1 << 22  # voxels of a channel whose intensities are compared before a prediction
STANDARD_DEVIATIONS = 0.5  # how far intensities may lie outside, at least


@dataclass(frozen=True)
class Sign:
    """One sign, and what it says."""

    weight: float
    words: str


def find_signs(facts: VolumeFacts, prediction: Prediction, reference: Sequence[VolumeFacts], is_ct: bool) -> list[Sign]:
    """Return all signs of a volume, the strongest first; `reference` is the training set, empty if nobody recorded it.

    `is_ct` says that the model sees intensities as they are stored.
    """
    signs = [*_disagreement(prediction)]
    if reference:
        signs += [*_objects(facts, reference), *_intensities(facts, reference, is_ct)]
    elif not any(one.objects for one in facts.classes.values()):
        signs.append(Sign(1.0, "no object found"))
    return sorted(signs, key=lambda sign: -sign.weight)


def strange_intensities(volume: LazyVolume, records: Sequence[TrainingSet | None]) -> str | None:
    """Say where the intensities of a volume are unlike those of the training set; None where they are not, or unknown.

    `records` are those of the models. A sample of the voxels is read.
    """
    record = next((one for one in records if one is not None and any(other.facts for other in one.volumes)), None)
    if record is None:
        return None
    _, depth, height, width = volume.header.shape
    step = max(1, math.ceil(math.sqrt(min(depth, PLANES) * height * width / LOOKED_AT)))
    intensity, values = measure_intensities(lambda z0, z1: volume.read(z0, z1)[..., ::step, ::step].copy(), depth)
    facts = VolumeFacts(0.0, {}, intensity, values, False)
    reference = [one.facts for one in record.volumes if one.facts]
    worst = max(_intensities(facts, reference, record.scheme == "ct"), key=lambda sign: sign.weight, default=None)
    return worst.words if worst is not None and worst.weight >= 1 else None


def _disagreement(prediction: Prediction) -> Iterator[Sign]:
    for value, who in ((prediction.fold_agreement, "the folds"), (prediction.view_agreement, "mirrored views")):
        if value is not None:
            yield Sign((1 - value) / DISAGREEMENT, f"{who} disagree (mean Dice of pairs {value:.2f})")


def _objects(facts: VolumeFacts, reference: Sequence[VolumeFacts]) -> Iterator[Sign]:
    for label, one in facts.classes.items():
        there = [(other, other.classes[label]) for other in reference if label in other.classes]
        if not there:
            continue
        what = "objects" if len(facts.classes) == 1 else f"objects of class {label}"
        if not one.objects:
            if all(other.objects for _, other in there):
                yield Sign(NOTHING, f"no {what} found, every training image has some")
            continue
        shares = [other.share for _, other in there]
        yield _outside(one.share, shares, FACTOR, f"share of {what}", percent=True)
        if all(other.is_in_um == facts.is_in_um for other, _ in there):
            unit = "µm³" if facts.is_in_um else "voxels"
            sizes = [other.size for _, other in there if other.size is not None]
            if sizes and one.size is not None:
                yield _outside(one.size, sizes, FACTOR, f"median size of {what}", unit)
            counts = [other.objects / whole.extent * facts.extent for whole, other in there]
            yield _outside(one.objects, counts, DENSITY_FACTOR, f"number of {what} for its size")


def _outside(
    value: float, there: Sequence[float], factor: float, what: str, unit: str = "", percent: bool = False
) -> Sign:
    """Return the sign of a value above 0 beside those of the training set: how many factors it lies outside."""
    low, high = min(there), max(there)
    beyond = value / high if value > high > 0 else low / value if value < low else 1.0
    if high == 0:
        beyond = factor
    scale, end = (100.0, " %") if percent else (1.0, f" {unit}" if unit else "")
    words = f"{what} {value * scale:.3g}{end}, in training {low * scale:.3g} to {high * scale:.3g}{end}"
    return Sign(math.log(beyond) / math.log(factor), words)


def _intensities(facts: VolumeFacts, reference: Sequence[VolumeFacts], is_ct: bool) -> Iterator[Sign]:
    """Compare the percentiles as the network sees them; the worst one of each channel is told."""
    for channel, found in enumerate(facts.values if is_ct else facts.intensity):
        there = [(one.values if is_ct else one.intensity)[channel] for one in reference if channel < len(one.values)]
        if not there:
            continue
        name = "intensities" if len(facts.values) == 1 else f"intensities of channel {channel + 1}"
        signs = []
        for place, (value, what) in enumerate(
            zip(found, ("darkest percent", "median", "brightest percent"), strict=True)
        ):
            column = [one[place] for one in there]
            low, high = min(column), max(column)
            spread = max(high - low, 0.25 * max(abs(low), abs(high)))
            room = max(spread / 2, 0.0 if is_ct else STANDARD_DEVIATIONS) or 1.0
            distance = max(low - value, value - high, 0.0)
            unit = "" if is_ct else " standard deviations from the mean"
            words = f"{name} unlike those of training: {what} {value:.3g}, there {low:.3g} to {high:.3g}{unit}"
            signs.append(Sign(distance / room, words))
        yield max(signs, key=lambda sign: sign.weight)
