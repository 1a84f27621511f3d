"""How good a network is in training: Dice at its own voxels, whole scans at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.windows.planes import SHALLOW
from training.augment import Volume, normalise
from training.labels import IGNORE, TUMOR
from training.settings import Shape, Spacing
from training.unet import UNet

LEAST = 10  # voxels of a class in the reference, for it to be scored


@torch.no_grad()
def validate(
    network: UNet, volumes: Sequence[Volume], spacing: Spacing, blocks: Shape, bfloat16: bool
) -> dict[str, dict[str, Any]]:
    """Per cent by scan: {"organs": mean, "labels": {FLARE code: Dice}}.

    `blocks` are the voxels along each axis of which a window has a multiple.
    """
    scores = {}
    for volume in volumes:
        label, found = _segmented(network, volume, spacing, blocks, bfloat16)
        dice = {}
        for code in range(1, TUMOR + 1):
            wanted, given = label == code, (found == code) & (label != IGNORE)
            if int(wanted.sum()) > LEAST:
                dice[code] = round(200 * float((wanted & given).sum()) / float(wanted.sum() + given.sum()), 1)
        organs = [value for code, value in dice.items() if code != TUMOR]
        scores[volume.name] = {"organs": round(float(np.mean(organs)), 1) if organs else None, "labels": dice}
    return scores


def _segmented(network: UNet, volume: Volume, spacing: Spacing, blocks: Shape, bfloat16: bool) -> tuple[Tensor, Tensor]:
    """The reference and the network's labels (z, y, x) at the network's voxels."""
    extent = zip(volume.hu.shape[2:], volume.spacing, spacing, strict=True)
    shape = [max(1, round(size * step / wanted)) for size, step, wanted in extent]
    hu = F.interpolate(volume.hu, size=shape, mode="trilinear", align_corners=False)
    label = F.interpolate(volume.label, size=shape, mode="nearest")[0, 0].long()
    missing = [-size % block for size, block in zip(shape, blocks, strict=True)]
    missing[0] = max(missing[0], SHALLOW - shape[0])  # as inference pads it
    before = [n // 2 for n in missing]
    edges = [edge for n, first in zip(missing[::-1], before[::-1], strict=True) for edge in (first, n - first)]
    image = F.pad(normalise(hu), edges).contiguous(memory_format=torch.channels_last_3d)
    inside = tuple(slice(first, first + size) for first, size in zip(before, shape, strict=True))
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
        logits = network(image)[0]
    return label, logits[(0, slice(None), *inside)].argmax(0)
