"""What training.train makes small."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.labels import IGNORE

LEVELS = (1.0, 0.4, 0.2)  # weights of deep supervision's outputs, the finest first


def dice_and_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Dice + cross-entropy of `logits` (b, k, z, y, x) against `label` (b, z, y, x) int64.

    Voxels with IGNORE count nowhere; in the cross-entropy one of class c counts weight[c] times. Dice is that of the
    batch, mean over the classes that are in it.
    """
    classes = torch.arange(logits.shape[1], device=label.device).view(1, -1, 1, 1, 1)
    known = label != IGNORE
    target = torch.where(known, label, 0)
    logs = torch.log_softmax(logits.float(), 1)
    counted = weight[target] * known
    cross_entropy = -(logs.gather(1, target[:, None])[:, 0] * counted).sum() / counted.sum().clamp(min=1)

    given = logs.exp()
    wanted = ((target[:, None] == classes) & known[:, None]).to(given.dtype)
    overlap, wanted_sum = (given * wanted).sum((0, 2, 3, 4)), wanted.sum((0, 2, 3, 4))
    given_sum = (given * known[:, None]).sum((0, 2, 3, 4))
    dice = (2 * overlap + 1) / (given_sum + wanted_sum + 1)
    present = wanted_sum > 0
    present[0] = False
    return cross_entropy + ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def deep_loss(outputs: Sequence[Tensor], label: Tensor, weight: Tensor) -> Tensor:
    """`dice_and_cross_entropy` of all `outputs`, the finest first, each against every n-th voxel of `label`."""
    total = torch.zeros((), device=label.device)
    for share, logits in zip(LEVELS, outputs, strict=False):
        z, y, x = (whole // part for whole, part in zip(label.shape[1:], logits.shape[2:], strict=True))
        total = total + share * dice_and_cross_entropy(logits, label[:, z // 2 :: z, y // 2 :: y, x // 2 :: x], weight)
    return total / sum(LEVELS[: len(outputs)])


def disagreement(inner: Tensor, outer: Tensor, weight: Tensor) -> Tensor:
    """How far `inner`, the logits (b, k, z, y, x) of patches cut out of larger ones, are from those of these, `outer`.

    The Kullback-Leibler divergence, by voxels of foreground, each as `weight` (z, y, x) says. Only `inner` is drawn
    to the other, which has seen more of what surrounds the patch.
    """
    wanted = torch.log_softmax(outer.detach().float(), 1)
    given = torch.log_softmax(inner.float(), 1)
    apart = (wanted.exp() * (wanted - given)).sum(1) * weight
    foreground = (1 - wanted[:, 0].exp()) * weight
    return apart.sum() / (foreground.sum() + 0.01 * weight.sum())
