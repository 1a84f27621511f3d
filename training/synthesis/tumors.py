"""Synthetic tumours: irregular ellipsoids with rim and necrosis inside an organ.

After label-free synthetic tumours (Hu et al., CVPR 2023), with the sizes and hosts of FLARE's pan-cancer label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.settings import Shape
from training.synthesis.anatomy import Tissue
from training.warp import rotation, smooth_field

# How often a tumour grows in each host.
HOSTS: dict[Tissue, float] = {
    Tissue.LIVER: 0.50,
    Tissue.RIGHT_KIDNEY: 0.08,
    Tissue.LEFT_KIDNEY: 0.08,
    Tissue.PANCREAS: 0.10,
    Tissue.STOMACH: 0.06,
    Tissue.COLON: 0.08,
    Tissue.SPLEEN: 0.03,
    Tissue.RIGHT_ADRENAL: 0.02,
    Tissue.LEFT_ADRENAL: 0.02,
    Tissue.DUODENUM: 0.02,
    Tissue.GALLBLADDER: 0.01,
}
# What a tumour that outgrows its host may push into.
_SOFT_NEIGHBOURS = [
    *(Tissue.FAT, Tissue.STOMACH, Tissue.COLON, Tissue.SMALL_BOWEL, Tissue.DUODENUM, Tissue.PANCREAS),
    *(Tissue.PORTAL_VEIN, Tissue.SOFT, Tissue.GALLBLADDER),
]
# A giant pushes its neighbours away; here it takes their place, so that it may grow into all that could move.
_GIANT_NEIGHBOURS = [*_SOFT_NEIGHBOURS, Tissue.SPLEEN, Tissue.ARTERY, Tissue.VEIN]
GIANT_SHARE = 0.25  # of the tumours of the liver


@dataclass(frozen=True)
class Lesion:
    """Where a lesion is and how it looks."""

    host: Tissue
    weight: np.ndarray  # (z, y, x) float32, 0..1: share of the lesion in each voxel
    value: np.ndarray  # (z, y, x) float32 HU of the lesion


def _reach(
    rng: np.random.Generator, shape: Shape, spacing: np.ndarray, centre: np.ndarray, radius: float
) -> np.ndarray:
    """(z, y, x) float32: distance from `centre` (voxels) over the lesion's own, irregular radius; 1 at its edge."""
    axes = [(np.arange(n, dtype=np.float32) - c) * s for n, c, s in zip(shape, centre, spacing, strict=True)]
    turn = (rotation(rng, (60.0, 60.0, 60.0)) / rng.uniform(0.7, 1.35, 3)[:, None]).astype(np.float32)
    squared = np.zeros(shape, np.float32)
    for row in turn:
        line = row[0] * axes[0][:, None, None] + row[1] * axes[1][:, None] + row[2] * axes[2]
        squared += line**2
    rough = rng.uniform(0.0, 0.18) * smooth_field(rng, shape, spacing, max(radius * rng.uniform(0.5, 1.0), 5.0))
    return np.sqrt(squared) / radius * (1 + rough)


def grow_lesion(
    rng: np.random.Generator,
    tissue: np.ndarray,
    spacing: np.ndarray,
    host: Tissue,
    host_hu: float,
    enhanced: float,
    cyst: bool = False,
) -> Lesion | None:
    """A lesion in `host` of the patch `tissue` (z, y, x), or None where the host is not in the patch.

    `enhanced` (0 native .. 1 full contrast) says how far the lesion can differ from `host_hu`.
    """
    voxels = np.flatnonzero(tissue == host)
    if len(voxels) < 30:
        return None
    centre = np.array(np.unravel_index(rng.choice(voxels), tissue.shape))
    room = (3 * len(voxels) * float(np.prod(spacing)) / (4 * np.pi)) ** (1 / 3)  # radius of the host as a ball, mm
    largest = 50.0 if host == Tissue.LIVER else 40.0
    exophytic = rng.random() < 0.3
    if host in (Tissue.STOMACH, Tissue.COLON, Tissue.DUODENUM, Tissue.RIGHT_ADRENAL, Tissue.LEFT_ADRENAL):
        room, exophytic = 30.0, True
    if cyst:
        largest, exophytic = 20.0, False
    radius = float(np.exp(rng.uniform(np.log(2.5), np.log(max(min(largest, room * (1.3 if exophytic else 0.9)), 3.5)))))
    if host == Tissue.LIVER and not cyst and rng.random() < 0.3:
        radius = rng.uniform(20, 50)
    giant = host == Tissue.LIVER and not cyst and rng.random() < GIANT_SHARE
    if giant:
        radius, exophytic = rng.uniform(45, 90), rng.random() < 0.7
    reach = _reach(rng, tissue.shape, spacing, centre, radius)
    allowed = tissue == host
    if exophytic:
        allowed |= np.isin(tissue, _GIANT_NEIGHBOURS if giant else _SOFT_NEIGHBOURS)
    allowed = ndimage.gaussian_filter(allowed.astype(np.float32), [0.4, 0.8, 0.8])
    sharpness = radius / (0.5 if cyst else rng.uniform(0.8, 4.0))  # 1 / width of the edge in units of the radius
    weight = np.clip((1 - reach) * sharpness + 0.5, 0, 1) * np.clip(allowed * 2 - 0.5, 0, 1)

    if cyst:
        value = np.full(tissue.shape, rng.uniform(-2, 18), np.float32)
        return Lesion(host, weight, value)
    contrast = rng.uniform(12, 30) + enhanced * rng.uniform(5, 50)
    hyper = rng.random() < (0.25 if host == Tissue.LIVER else 0.15) * enhanced
    level = host_hu + contrast if hyper else max(host_hu - contrast, rng.uniform(15, 40))
    value = np.full(tissue.shape, level, np.float32)
    value += rng.uniform(0, 14) * smooth_field(rng, tissue.shape, spacing, rng.uniform(5, 25))
    if giant:  # a mosaic of nodules, dead tissue and vessels
        value += rng.uniform(5, 15 + 20 * enhanced) * smooth_field(rng, tissue.shape, spacing, rng.uniform(5, 25))
        value += rng.uniform(0, 10) * smooth_field(rng, tissue.shape, spacing, rng.uniform(3, 6))
    if rng.random() < 0.4:  # rim
        width = rng.uniform(0.08, 0.25)
        value += rng.uniform(10, 50) * enhanced * np.exp(-(((reach - 1 + width) / width) ** 2))
    if radius > 10 and rng.random() < 0.55:  # necrosis
        core = reach + rng.uniform(0.1, 0.5) * smooth_field(rng, tissue.shape, spacing, radius * 0.6)
        share = np.clip((rng.uniform(0.3, 0.85) - core) * 6 + 0.5, 0, 1)
        value += share * (rng.uniform(5, 35) - value)
    return Lesion(host, weight, value)


def pick_host(rng: np.random.Generator, tissue: np.ndarray) -> Tissue | None:
    """A host that is in the patch, by the shares in HOSTS."""
    present = np.bincount(tissue.reshape(-1), minlength=64)
    hosts = [host for host in HOSTS if present[host] > 60]
    if not hosts:
        return None
    share = np.array([HOSTS[host] for host in hosts])
    return hosts[int(rng.choice(len(hosts), p=share / share.sum()))]
