"""Dice and cross-entropy for references that do not tell all classes apart."""

from __future__ import annotations

import torch

from training.labels import IGNORE, ORGANS, TUMOR

# Voxels of small and late-learned structures count more in the cross-entropy: without it a network of a few
# thousand steps never begins with the adrenal glands.
RARE = ("pancreas", "right_adrenal_gland", "left_adrenal_gland", "gallbladder", "esophagus", "duodenum")
RARE_WEIGHT = 3.0
LEAST = 0.002  # share of a patch; a class with less of it counts as one with so much


def partial_label_loss(
    logits: torch.Tensor, label: torch.Tensor, merge: torch.Tensor, balance: float = 0.0
) -> torch.Tensor:
    """Dice + cross-entropy of `logits` (b, k, z, y, x) against `label` (b, z, y, x) uint8.

    `merge` (b, k) gives for each class the class that stands for it in that sample: an organ that a reference leaves
    out stands with the background, and the loss then sees only the sum of both probabilities (the marginal loss of
    Shi et al., Medical Image Analysis 2021). Voxels with IGNORE count nowhere. In the cross-entropy
    those of the tumour and of RARE count RARE_WEIGHT times; with a `balance` each counts by its class's share of the
    patch to the power of -`balance` instead, so that at 1 all classes weigh the same.
    """
    classes = logits.shape[1]
    known = label != IGNORE
    target = torch.where(known, label, 0).long()
    target = torch.gather(merge.long(), 1, target.flatten(1)).view_as(target)
    together = torch.nn.functional.one_hot(merge.long(), classes).float()  # (b, class, representative)
    probability = torch.softmax(logits.float(), 1)
    if not torch.equal(merge, torch.arange(classes, device=merge.device, dtype=merge.dtype).expand_as(merge)):
        probability = torch.einsum("bkzyx,bkr->brzyx", probability, together)
    picked = probability.gather(1, target[:, None])[:, 0]
    if balance:
        found = torch.bincount(target[known], minlength=classes).float()
        weight = (found / found.sum().clamp(min=1)).clamp(min=LEAST) ** -balance
    else:
        weight = torch.ones(classes, device=logits.device)
        weight[[code for code in (*(ORGANS[name] for name in RARE), TUMOR) if code < classes]] = RARE_WEIGHT
    counted = weight[target] * known
    cross_entropy = -(picked.clamp(min=1e-6).log() * counted).sum() / counted.sum().clamp(min=1)

    # One Dice per class over the batch; a sample speaks only for the classes that its reference tells apart.
    speaks = (together.sum(1) == 1).float()
    blank = torch.zeros_like(speaks)
    here = known.flatten(1).float()
    overlap = blank.scatter_add(1, target.flatten(1), picked.flatten(1) * here)
    wanted = blank.scatter_add(1, target.flatten(1), here)
    given = torch.einsum("bkn,bn->bk", probability.flatten(2), here)
    present = (wanted * speaks).sum(0) > 0
    present[0] = False
    dice = (2 * (overlap * speaks).sum(0) + 1) / (((given + wanted) * speaks).sum(0) + 1)
    return cross_entropy + (1 - dice[present]).mean() if present.any() else cross_entropy


def disagreement(inner: torch.Tensor, outer: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """How far `inner`, the logits (1, k, z, y, x) of a patch cut out of a larger one, are from that one's, `outer`.

    The Kullback-Leibler divergence, by voxels of foreground, each as `weight` (z, y, x) says. Only `inner` is drawn
    to the other, which has seen more of what surrounds the patch.
    """
    wanted = torch.log_softmax(outer.detach().float(), 1)
    given = torch.log_softmax(inner.float(), 1)
    apart = (wanted.exp() * (wanted - given)).sum(1) * weight
    foreground = (1 - wanted[:, 0].exp()) * weight
    return apart.sum() / (foreground.sum() + 0.01 * weight.sum())
