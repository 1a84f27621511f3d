"""What the loop learns from: one patch in the network's own units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.plans import SOFT_TISSUE, STUDENT_SPACING

SPACING = np.array(STUDENT_SPACING)


@dataclass(frozen=True)
class Patch:
    image: np.ndarray  # (z, y, x) float32, normalised
    label: np.ndarray  # (z, y, x) uint8, FLARE codes, labels.IGNORE where nothing may be learned
    merge: np.ndarray  # (15,) uint8: class -> the class it cannot be told from in this reference


def normalise(hu: np.ndarray) -> np.ndarray:
    """HU -> the network's input, as nnU-Net's CTNormalization does it with our plans."""
    clipped = np.clip(hu, SOFT_TISSUE["percentile_00_5"], SOFT_TISSUE["percentile_99_5"])
    return ((clipped - SOFT_TISSUE["mean"]) / SOFT_TISSUE["std"]).astype(np.float32)
