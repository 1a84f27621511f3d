"""How bright organs are by contrast phase, and patches shown in another phase than their scan's.

Half of the scans were taken without contrast medium, of the others most in one phase or two, so that a network meets
few of the shapes in few of the phases. Arrays are (1, 1, z, y, x), LPS; lengths are mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.chance import Chance, pooled
from training.labels import IGNORE, ORGANS, TUMOR
from training.settings import Spacing


class Phase(IntEnum):
    NATIVE = 0
    ARTERIAL = 1
    PORTAL = 2
    DELAYED = 3


Key = TypeVar("Key")
Row = tuple[tuple[float, float, float, float], float]  # mean HU (native, arterial, portal, delayed), spread
# Rough means for 100 to 120 kV, after radiology text books; the spread between patients is wide on purpose.
ORGAN_HU: dict[str, Row] = {
    "liver": ((56, 72, 108, 96), 13),
    "right_kidney": ((33, 150, 180, 165), 22),
    "left_kidney": ((33, 150, 180, 165), 22),
    "spleen": ((48, 120, 118, 100), 14),
    "pancreas": ((38, 95, 92, 80), 14),
    "aorta": ((40, 290, 150, 120), 30),
    "inferior_vena_cava": ((38, 75, 130, 115), 25),
    "right_adrenal_gland": ((28, 65, 72, 60), 12),
    "left_adrenal_gland": ((28, 65, 72, 60), 12),
    "gallbladder": ((9, 9, 9, 9), 8),
    "esophagus": ((36, 50, 60, 58), 10),
    "stomach": ((36, 65, 75, 70), 12),  # the wall; contents are drawn apart
    "duodenum": ((34, 70, 80, 72), 14),
}
SHOWN = (0.45, 0.2, 0.25, 0.1)  # shares of the phases: the native one is the hardest to read
STEADY = ("gallbladder", "stomach")  # what fills them does not enhance
PAIRS = (("right_kidney", "left_kidney"), ("right_adrenal_gland", "left_adrenal_gland"))
SOFT = (-20.0, 450.0)  # HU of what enhances: neither fat nor gas
ENHANCED = 85.0  # HU of a liver or an aorta with contrast medium
VESSEL = (90.0, 270.0)  # HU of what has no label and fades with the contrast medium
# Spongy bone does not fade: what is bright in most of a cube of twice BLOB, what is NEAR it, and the EDGE of BONE.
BONE, BLOB, NEAR, EDGE = 270.0, 10.0, 15.0, 4.5  # HU, and mm about a voxel


def in_another_phase(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> Tensor:
    """`hu` with its organs as bright as in a phase drawn at random, and in the native one vessels faded.

    Each organ is moved as a whole and its texture, most of which is contrast medium, weakened. Patches with a tumour
    stay as they are: how it stands out from its host in another phase is not known.
    """
    rng = chance.rng
    if bool((label == TUMOR).any()):
        return hu
    phase = Phase(rng.choice(len(SHOWN), p=SHOWN))
    soft = (hu > SOFT[0]) & (hu < SOFT[1]) & (label != IGNORE)
    codes, values = label[soft], hu[soft]
    count = torch.bincount(codes, minlength=TUMOR + 1)
    means = (torch.bincount(codes, values, minlength=TUMOR + 1) / count.clamp(min=1)).tolist()
    wanted = _organ_levels(rng, phase)
    native = phase == Phase.NATIVE
    before, after, kept = torch.zeros(256), torch.zeros(256), torch.ones(256)
    for organ, code in ORGANS.items():
        if organ not in STEADY and means[code]:
            before[code], after[code] = means[code], wanted[organ]
            kept[code] = rng.uniform(0.35, 0.7) if native and organ.endswith("kidney") else rng.uniform(0.55, 1.0)
    before, after, kept = (table.to(hu.device)[label] for table in (before, after, kept))
    shown = torch.where(soft, after + (hu - before) * kept, hu)
    if native and max(means[ORGANS["liver"]], means[ORGANS["aorta"]]) > ENHANCED:
        bright, bone = (hu > VESSEL[0]).float(), (hu > BONE).float()
        spongy = (pooled(F.avg_pool3d, bright, BLOB, spacing) > 0.75).float()
        bone = pooled(F.max_pool3d, bone, EDGE, spacing) + pooled(F.max_pool3d, spongy, NEAR, spacing) > 0
        vessel = (label == 0) & (hu > VESSEL[0]) & (hu < VESSEL[1]) & ~bone
        shown = torch.where(vessel, 45 + 0.15 * (hu - VESSEL[0]), shown)
    return shown


def levels(rng: np.random.Generator, phase: Phase, table: Mapping[Key, Row]) -> dict[Key, float]:
    """HU of each row of a table in one patient: timing is a continuum, so that a phase is mixed with the next."""
    later = min(phase + 1, Phase.DELAYED) if phase else phase
    mixed = rng.uniform(0, 0.5)
    drawn = {}
    for key, (means, spread) in table.items():
        mean = (1 - mixed) * means[phase] + mixed * means[later]
        drawn[key] = rng.normal(mean, spread * (0.6 if phase == Phase.NATIVE and mean > 0 else 1.0))
    return drawn


def fat_in_liver(rng: np.random.Generator) -> float:
    """HU by which one patient's liver is darker than others': mostly none."""
    return rng.uniform(15, 50) if rng.random() < 0.18 else 0.0


def _organ_levels(rng: np.random.Generator, phase: Phase) -> dict[str, float]:
    """HU of each of ORGANS in one patient."""
    drawn = levels(rng, phase, {organ: ORGAN_HU[organ] for organ in ORGANS})
    for one, other in PAIRS:
        drawn[other] = drawn[one] + rng.normal(0, 4)
    drawn["liver"] -= fat_in_liver(rng)
    return drawn
