"""How far the networks of an ensemble, and their mirrored views, agree about a volume: a sign of quality without truth.

The measure is the mean Dice of all pairs, over all windows with their weights. With n of m members that say "class c"
at a voxel, all pairs together share n (n - 1) / 2 voxels, and have (m - 1) n: so counts are enough, and no pair is
looked at by itself. Nothing of the size of the volume is kept.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Agreement:
    """The counts of one volume; give it to one prediction only.

    `shift` is `Predictor.prior_shift`: labels are those that the scores would decide. `mirrored` says that each network
    has several views.
    """

    def __init__(self, shift: Sequence[float], mirrored: bool) -> None:
        self._mirrored = mirrored
        self._shift = torch.tensor(list(shift))[:, None, None, None]
        self._kernel = torch.ones(())
        self._shared: dict[str, Tensor] = {}  # "folds" or "views" -> per class: voxels that pairs share
        self._both: dict[str, Tensor] = {}  # and half of the voxels that pairs have
        self._own: Tensor | None = None
        self._views: list[Tensor] = []
        self._folds: list[Tensor] = []

    def weigh(self, kernel: Tensor) -> None:
        """Say how much each voxel (z, y, x) of a window counts, on the device of the networks."""
        self._kernel = kernel
        self._shift = self._shift.to(kernel.device)

    def add_view(self, scores: Tensor) -> None:
        """Take the scores (1, classes, z, y, x) of one view by one network."""
        self._views.append(self._decide(scores))
        if self._mirrored:  # else the one view is all that there is of a network
            self._own = scores.clone() if self._own is None else self._own.add_(scores)

    def end_network(self) -> None:
        """Say that the views of one network are complete."""
        if self._own is None:
            self._folds += self._views
        else:
            self._count("views", self._views)
            self._folds.append(self._decide(self._own / len(self._views)))
        self._own, self._views = None, []

    def end_window(self) -> None:
        """Say that the networks of one window are complete."""
        self._count("folds", self._folds)
        self._folds = []

    def folds(self) -> float | None:
        """Return the agreement of the networks, 0 to 1; None for a single one, and where nothing was found."""
        return self._ratio("folds")

    def views(self) -> float | None:
        """Return the agreement of the mirrored views of each network; None where there was one view."""
        return self._ratio("views")

    def _decide(self, scores: Tensor) -> Tensor:
        return (scores[0] - self._shift).argmax(0).to(torch.int16)

    def _count(self, kind: str, labels: Sequence[Tensor]) -> None:
        if len(labels) < 2:
            return
        classes = len(self._shift)
        shared, both = [], []
        for label in range(1, classes):
            votes = torch.stack([one == label for one in labels]).sum(0, dtype=torch.float32)
            shared.append((votes * (votes - 1) * self._kernel).sum(dtype=torch.float64))
            both.append((votes * self._kernel).sum(dtype=torch.float64) * (len(labels) - 1))
        for sums, values in ((self._shared, shared), (self._both, both)):
            found = torch.stack(values)
            sums[kind] = sums[kind] + found if kind in sums else found

    def _ratio(self, kind: str) -> float | None:
        if kind not in self._both:
            return None
        both, shared = self._both[kind].cpu(), self._shared[kind].cpu()
        there = both > 0
        # weights are rounded, so that it may come out a little above 1
        return min(1.0, float((shared[there] / both[there]).mean())) if there.any() else None
