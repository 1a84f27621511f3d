"""What the loop learns from: one patch in the network's own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.labels import IGNORE, OUTPUTS, TUMOR
from training.plans import SOFT_TISSUE, STUDENT_SPACING

SPACING = np.array(STUDENT_SPACING)


@dataclass(frozen=True)
class Patch:
    image: np.ndarray  # (z, y, x) float32, normalised
    label: np.ndarray  # (z, y, x) uint8, FLARE codes, labels.IGNORE where nothing may be learned
    merge: np.ndarray  # (15,) uint8: class -> the class it cannot be told from in this reference


def for_outputs(patch: Patch, outputs: str) -> Patch:
    """`patch` as a network with these outputs, a key of OUTPUTS, learns it.

    Organs alone: what a tumour has taken counts nowhere, since the tumour's network overlays it. A tumour alone: the
    organs are background.
    """
    if outputs == "organ":
        label = np.where(patch.label == TUMOR, IGNORE, patch.label).astype(np.uint8)
        return Patch(patch.image, label, patch.merge[: len(OUTPUTS["organ"])])
    if outputs == "tumor":
        label = np.where(patch.label == IGNORE, IGNORE, patch.label == TUMOR).astype(np.uint8)
        return Patch(patch.image, label, np.arange(2, dtype=np.uint8))
    return patch


def normalise(hu: np.ndarray) -> np.ndarray:
    """HU -> the network's input, as nnU-Net's CTNormalization does it with our plans."""
    clipped = np.clip(hu, SOFT_TISSUE["percentile_00_5"], SOFT_TISSUE["percentile_99_5"])
    return ((clipped - SOFT_TISSUE["mean"]) / SOFT_TISSUE["std"]).astype(np.float32)
