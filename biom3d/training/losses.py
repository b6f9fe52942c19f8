"""Dice + cross-entropy, and their sum over the heads of deep supervision."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTH = 1e-5


def dice_cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy minus soft Dice: about 1 when untrained, -1 when perfect.

    Args:
        scores: (b, classes, z, y, x) logits, background first.
        target: (b, z, y, x) int64 labels.

    Dice (Milletari et al. 2016) is taken over the whole batch, background left out, and the mean of the
    classes, as in nnU-Net.
    """
    scores = scores.float()
    cross_entropy = F.cross_entropy(scores, target)
    probabilities = scores.softmax(1)
    truth = F.one_hot(target, scores.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    axes = (0, 2, 3, 4)
    overlap = (probabilities * truth).sum(axes)
    total = probabilities.sum(axes) + truth.sum(axes)
    dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    return cross_entropy - dice[1:].mean()


def deep_supervision(heads: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the loss of all heads, finest first: weights 1, 1/2, 1/4, ... that sum to 1."""
    weights = [0.5**i for i in range(len(heads))]
    loss = torch.zeros((), device=target.device)
    for weight, scores in zip(weights, heads, strict=True):
        labels = target
        if scores.shape[2:] != target.shape[1:]:
            labels = F.interpolate(target[:, None].float(), scores.shape[2:], mode="nearest-exact")[:, 0].long()
        loss = loss + weight / sum(weights) * dice_cross_entropy(scores, labels)
    return loss
