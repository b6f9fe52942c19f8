"""What training patches hold more of than volumes do, and what a prediction has to make of it.

Half of the patches are chosen for their objects, and random ones see the middle of a volume more often than its border,
where fewer objects lie. A network that learned from them expects as many everywhere, and finds objects that are not
there.
"""

from collections.abc import Sequence

import numpy as np

from biom3d.config import Plan
from biom3d.data.labels import count_classes
from biom3d.data.patches import Case, crop, draw_places

PATCHES = 200  # drawn to learn what training sees; the shift then has a standard deviation below 0.05
LARGEST = 1.0  # see below


def prior_shift(cases: Sequence[Case], plan: Plan) -> tuple[float, ...]:
    """Return by how much the scores of each class (background first) are too high for whole volumes.

    It is log(share in training patches / share in the volumes), 0 for the background. Subtracted from the scores, it
    gives what a network would say that had learned from patches like the volumes (Saerens, Latinne & Decaestecker
    2002). At most `LARGEST`: with Dice in the loss, scores are no probabilities, and where objects are very rare the
    whole of it would hide some. Zeros where the plan does not know the volumes, as for data of Biom3d.
    """
    zeros = (0.0,) * (plan.num_classes + 1)
    totals = np.array(plan.fingerprint.class_voxels if plan.fingerprint else (), float)
    if not plan.prior_correction or len(totals) != len(zeros) or not totals.any():
        return zeros
    rng = np.random.default_rng([plan.seed, 3])
    seen = np.zeros(len(zeros))
    for _ in range(PATCHES // plan.batch_size + 1):
        for case, start in draw_places(cases, plan.patch_size, plan.batch_size, plan.foreground_rate, rng):
            counts = count_classes(crop(case.mask, start, plan.patch_size), plan.num_classes)
            seen += counts[:, : len(zeros)].sum(0)  # more are in damaged masks, which training names
    known = (seen > 0) & (totals > 0)
    if not known[0]:
        return zeros
    shift = np.zeros(len(zeros))
    shift[known] = np.log(seen[known] / seen[0] * totals[0] / totals[known])
    return tuple(float(s) for s in shift.clip(-LARGEST, LARGEST).round(3))
