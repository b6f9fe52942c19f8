"""Dice + cross-entropy, and their sum over the heads of deep supervision."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from biom3d.training.group import ALONE, Group

SMOOTH = 1e-5


def dice_cross_entropy(scores: Tensor, target: Tensor, partial: bool = False) -> Tensor:
    """Return cross-entropy minus soft Dice: about 1 when untrained, -1 when perfect.

    Args:
        scores: (b, classes, z, y, x) logits, background first.
        target: (b, z, y, x) int64 labels.
        partial: labels may be negative, which is not annotated and does not count.

    Dice (Milletari et al. 2016) is taken over the whole batch, background left out, and the mean of the
    classes, as in nnU-Net.
    """
    return _partial_loss_of(_partial_sums(scores, target)) if partial else _loss_of(_sums(scores, target))


def deep_supervision(
    heads: Sequence[Tensor], target: Tensor, batch_size: int = 0, group: Group = ALONE, partial: bool = False
) -> Tensor:
    """Return the loss of all heads, finest first: weights 1, 1/2, 1/4, ... that sum to 1.

    Where a group shares a batch of `batch_size` samples, it is the loss of the whole batch, with the gradient that
    belongs to the samples of this process; the sum of all gradients is that of one process.
    """
    part = 1.0 if group.size == 1 else len(target) / batch_size
    sums = []
    for scores in heads:
        labels = target
        if scores.shape[2:] != target.shape[1:]:
            labels = F.interpolate(target[:, None].float(), scores.shape[2:], mode="nearest-exact")[:, 0].long()
        sums.append(_partial_sums(scores, labels) if partial else _sums(scores, labels, part))
    weights = [0.5**i for i in range(len(heads))]
    loss = torch.zeros((), device=target.device)
    for weight, row in zip(weights, group.sum(torch.stack(sums)), strict=True):
        loss = loss + weight / sum(weights) * (_partial_loss_of(row) if partial else _loss_of(row))
    return loss


def _sums(scores: Tensor, target: Tensor, part: float = 1.0) -> Tensor:
    """Return what the loss is made of and what adds up over the parts of a batch: (1 + 2 x classes,).

    Cross-entropy times the `part` of the batch that these samples are, overlap and total of each class.
    """
    scores = scores.float()
    cross_entropy = F.cross_entropy(scores, target) * part
    probabilities = scores.softmax(1)
    truth = F.one_hot(target, scores.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    axes = (0, 2, 3, 4)
    overlap = (probabilities * truth).sum(axes)
    total = probabilities.sum(axes) + truth.sum(axes)
    return torch.cat([cross_entropy[None], overlap, total])


def _partial_sums(scores: Tensor, target: Tensor) -> Tensor:
    """Return what the loss is made of where some voxels are not annotated: (2 + 2 x classes,).

    The sum of the cross-entropy, the number of annotated voxels, overlap and total of each class.
    """
    scores, known = scores.float(), target >= 0
    target = target.clamp_min(0)
    cross_entropy = (F.cross_entropy(scores, target, reduction="none") * known).sum()
    probabilities = scores.softmax(1) * known[:, None]
    truth = F.one_hot(target, scores.shape[1]).movedim(-1, 1) * known[:, None]
    axes = (0, 2, 3, 4)
    overlap = (probabilities * truth).sum(axes)
    total = probabilities.sum(axes) + truth.sum(axes)
    return torch.cat([torch.stack([cross_entropy, known.sum()]), overlap, total])


def _partial_loss_of(sums: Tensor) -> Tensor:
    mean = sums[0] / sums[1].clamp_min(1)
    return _loss_of(torch.cat([mean[None], sums[2:]]))


def _loss_of(sums: Tensor) -> Tensor:
    cross_entropy, (overlap, total) = sums[0], sums[1:].chunk(2)
    dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    return cross_entropy - dice[1:].mean()
