"""The best single global threshold on a smoothed image: what a class costs without learning anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

SIGMA = 1.0  # voxels
CANDIDATES = 200  # quantiles of the training intensities


@dataclass(frozen=True)
class Threshold:
    """Voxels above `value` (below, unless `above`) are the class; `scaled`: after each volume got mean 0, std 1."""

    value: float
    above: bool
    scaled: bool
    train_dice: float


def fit_threshold(pairs: Sequence[tuple[np.ndarray, np.ndarray]], label: int) -> Threshold:
    """Return the rule with the best mean Dice of `label` over the pairs (image, labels)."""
    best = Threshold(0.0, True, False, -1.0)
    for scaled in (False, True):
        smooth = [smoothed(image, scaled) for image, _ in pairs]
        truths = [labels == label for _, labels in pairs]
        values = np.unique(np.quantile(np.concatenate([s.ravel() for s in smooth]), np.linspace(0, 1, CANDIDATES)))
        scores = np.mean([dice_per_value(s, t, values) for s, t in zip(smooth, truths, strict=True)], axis=0)
        for above, row in zip((True, False), scores, strict=True):
            at = int(row.argmax())
            if row[at] > best.train_dice:
                best = Threshold(float(values[at]), above, scaled, float(row[at]))
    return best


def segment(image: np.ndarray, rule: Threshold) -> np.ndarray:
    """Return the mask of an image (z, y, x) by the rule."""
    smooth = smoothed(image, rule.scaled)
    return smooth > rule.value if rule.above else smooth <= rule.value


def smoothed(image: np.ndarray, scaled: bool) -> np.ndarray:
    """Return the Gaussian-smoothed image in float32."""
    image = image.astype(np.float32)
    if scaled:
        image = (image - image.mean()) / max(float(image.std()), 1e-8)
    return gaussian_filter(image, SIGMA)


def dice_per_value(smooth: np.ndarray, truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return Dice of "above" and "not above" each value: (2, values)."""
    everything, inside = np.sort(smooth, axis=None), np.sort(smooth[truth])
    upto = np.searchsorted(everything, values, "right"), np.searchsorted(inside, values, "right")
    above = 2 * (len(inside) - upto[1]) / np.maximum(len(everything) - upto[0] + len(inside), 1)
    below = 2 * upto[1] / np.maximum(upto[0] + len(inside), 1)
    return np.stack([above, below])
