"""A trunk drawn by hand: where things are is known."""

from __future__ import annotations

import numpy as np

from inference.anatomy.thin import Thin
from inference.labels import BY_KEY

SPACING = (5.0, 5.0, 5.0)
FAT, SOFT, BONE, AIR = -100, 50, 400, -1000
# (z, y, x) in voxels of 5 mm from below, behind and the left; the body is [5, 45) x [5, 65) in the plane.
BOXES = {
    "liver": ((20, 38), (18, 42), (42, 60)),
    "spleen": ((26, 36), (10, 20), (10, 18)),
    "stomach": ((24, 34), (28, 40), (18, 30)),
    "right_kidney": ((8, 20), (11, 18), (44, 52)),
    "left_kidney": ((8, 22), (11, 18), (20, 28)),
    "pancreas": ((16, 20), (24, 30), (24, 44)),
    "aorta": ((0, 50), (16, 20), (32, 35)),
    "inferior_vena_cava": ((0, 50), (17, 20), (38, 41)),
}


def trunk() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels, (50, 50, 70), as RAS."""
    hu = np.full((50, 50, 70), AIR, np.int16)
    hu[:, 5:45, 5:65] = FAT
    hu[38:, 12:40, 8:32] = hu[38:, 12:40, 38:62] = AIR  # lungs
    hu[:, 8:15, 32:38] = BONE
    labels = np.zeros(hu.shape, np.uint8)
    for key, box in BOXES.items():
        place = tuple(slice(*ends) for ends in box)
        hu[place], labels[place] = SOFT, BY_KEY[key].value
    return hu, labels


def thin(hu: np.ndarray, labels: np.ndarray) -> Thin:
    """As a network sees it that knows all organs, and the tumour."""
    return Thin(hu, labels, SPACING, {key: one.value for key, one in BY_KEY.items()})
