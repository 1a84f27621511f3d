"""How bright a structure is on CT: HU by contrast phase.

Rough means and spreads between patients for 100-120 kV, after radiology text books; the spread is kept wide on
purpose (SynthSeg: a network that has seen more than is real is at home in what is real).
"""

from __future__ import annotations

import numpy as np

from training.labels import ORGANS
from training.phases import ORGAN_HU, Phase, Row, fat_in_liver, levels
from training.synthesis.anatomy import Tissue

PHASE_SHARES = [0.22, 0.2, 0.46, 0.12]

HU: dict[Tissue, Row] = {Tissue(ORGANS[organ]): row for organ, row in ORGAN_HU.items()} | {
    Tissue.AIR: ((-1000, -1000, -1000, -1000), 10),
    Tissue.FAT: ((-103, -102, -101, -101), 7),
    Tissue.SUBCUTANEOUS: ((-106, -106, -105, -105), 6),
    Tissue.SKIN: ((10, 15, 20, 20), 20),
    Tissue.MUSCLE: ((52, 56, 61, 60), 7),
    Tissue.BONE: ((190, 200, 205, 205), 50),  # spongy; the shell is added
    Tissue.LUNG: ((-840, -830, -830, -830), 45),
    Tissue.HEART: ((40, 170, 130, 110), 25),
    Tissue.COLON: ((34, 55, 68, 65), 12),
    Tissue.SMALL_BOWEL: ((34, 75, 90, 78), 16),
    Tissue.BLADDER: ((5, 5, 8, 60), 8),
    Tissue.PORTAL_VEIN: ((38, 85, 155, 125), 20),
    Tissue.ARTERY: ((40, 270, 150, 120), 30),
    Tissue.VEIN: ((38, 70, 120, 115), 25),
    Tissue.NERVE: ((32, 32, 35, 35), 6),
    Tissue.CARTILAGE: ((95, 95, 100, 100), 25),
    Tissue.SOFT: ((40, 60, 70, 70), 15),
    Tissue.AIRWAY: ((-960, -960, -960, -960), 25),
    Tissue.TABLE: ((-250, -250, -250, -250), 150),
}


def draw_levels(rng: np.random.Generator, phase: Phase) -> np.ndarray:
    """(64,) float32: one patient's mean HU per Tissue."""
    drawn = np.zeros(64, np.float32)
    for tissue, level in levels(rng, phase, HU).items():
        drawn[tissue] = level
    drawn[Tissue.LEFT_KIDNEY] = drawn[Tissue.RIGHT_KIDNEY] + rng.normal(0, 6)
    drawn[Tissue.LEFT_ADRENAL] = drawn[Tissue.RIGHT_ADRENAL] + rng.normal(0, 4)
    drawn[Tissue.ARTERY] = drawn[Tissue.AORTA] + rng.normal(0, 10)
    drawn[Tissue.SUBCUTANEOUS] = drawn[Tissue.FAT] + rng.normal(-2, 3)
    drawn[Tissue.LIVER] -= fat_in_liver(rng)
    if phase == Phase.NATIVE and rng.random() < 0.5:  # blood and parenchyma lie close together without contrast
        drawn[[Tissue.VENA_CAVA, Tissue.VEIN, Tissue.PORTAL_VEIN]] = drawn[Tissue.AORTA] + rng.normal(0, 3)
    return drawn
