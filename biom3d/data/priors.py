"""How much more or less of each class training patches hold than volumes do, and what predictions make of it.

Half of the patches are chosen for their objects, and random ones see the middle of a volume more often than its border.
A network that learned from them expects in every volume what they held, and finds too much of it.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from biom3d.config import Plan
from biom3d.data.labels import IGNORED, count_classes
from biom3d.data.patches import Case, crop, draw_places

PATCHES = 200  # drawn to learn what training sees; the shift then has a standard deviation of 0.05 to 0.15
VOXELS_PER_CASE = 64e6  # about what is counted of a volume at most: of larger ones only every n-th plane
LARGEST = 1.0  # see below


def prior_shift(cases: Sequence[Case], plan: Plan) -> tuple[float, ...]:
    """Return by how much the scores of each class (background first) are too high for whole volumes.

    It is log(share in training patches / share in the volumes), 0 for the background; volumes count alike, since
    patches are drawn from them alike. Subtracted from the scores, it gives what a network would say that had learned
    from patches like the volumes (Saerens, Latinne & Decaestecker 2002). At most `LARGEST` either way: with Dice in the
    loss, scores are no probabilities, and where objects are very rare the whole of it would hide some.
    """
    shift = np.zeros(plan.num_classes + 1)
    if not plan.prior_correction:
        return tuple(shift.tolist())
    seen = _share(_patches(cases, plan), plan.num_classes)
    there = np.mean([_share([_thinned(case)], plan.num_classes) for case in cases if _is_annotated(case)], axis=0)
    known = (seen > 0) & (there > 0)
    if known[0]:
        shift[known] = np.log(seen[known] / seen[0] * there[0] / there[known])
    return tuple(shift.clip(-LARGEST, LARGEST).round(3).tolist())


def _patches(cases: Sequence[Case], plan: Plan) -> Iterator[np.ndarray]:
    """Yield masks (z, y, x) of patches as training draws them."""
    rng = np.random.default_rng([plan.seed, 3])
    for _ in range(PATCHES // plan.batch_size + 1):
        for case, start in draw_places(cases, plan.patch_size, plan.batch_size, plan.foreground_rate, rng):
            yield crop(case.mask, start, plan.patch_size)


def _is_annotated(case: Case) -> bool:
    return case.labelled is None or len(case.labelled) > 0


def _thinned(case: Case) -> np.ndarray:
    """Return a mask (z, y, x) with every n-th plane only, where it is large and not only a few are annotated."""
    mask = case.mask
    if case.labelled is not None:
        return mask
    step = min(len(mask), int(np.ceil(mask.size / VOXELS_PER_CASE)))  # of a large plane, as in 2D, all is counted
    return mask[step // 2 :: step]


def _share(masks: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """Return the share of each class (num_classes + 1,) in masks; what is no class, in damaged ones, counts as one."""
    total = sum(
        count_classes(mask.clip(IGNORED if mask.dtype.kind == "i" else 0, num_classes), num_classes).sum(0)
        for mask in masks
    )
    return np.asarray(total / np.sum(total))
