"""Contents, sizes and looks that few scans show, made in patches: for training.augment.

Stomach, duodenum and gallbladder distended or collapsed; stomach and duodenum full of water, food, positive contrast or
gas; gallbladders with sludge and stones; bowel, which has no label, with all of these; livers and spleens that enhance
unevenly without a tumour; fluid among the fat; organs that were removed. A network of 33 patients took a stomach full
of bright contrast for gallbladder, liver and tumour. Arrays are (1, 1, z, y, x), LPS, so that the patient's front is at
small y; lengths are mm, values HU.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.chance import Chance, pooled, shape_of
from training.labels import ORGANS
from training.settings import Spacing

_LIVER, _RIGHT_KIDNEY, _SPLEEN, _GALLBLADDER, _STOMACH, _DUODENUM, _LEFT_KIDNEY = (
    ORGANS[name] for name in ("liver", "right_kidney", "spleen", "gallbladder", "stomach", "duodenum", "left_kidney")
)
HOLLOW = ((_STOMACH,), (_STOMACH, _DUODENUM), (_DUODENUM,))  # filled together, with SHARES
SHARES = (0.55, 0.25, 0.20)
DISTENDED = ((_STOMACH,), (_STOMACH,), (_STOMACH, _DUODENUM), (_DUODENUM,), (_GALLBLADDER,))
DISTENSION, COLLAPSE = (0.8, 2.8), (-2.0, -0.8)  # times the squared reach; beyond 4 the field would fold over
KINDS = ("water", "food", "contrast", "tissue", "gas")  # tissue: a collapsed organ, wall against wall
KIND_SHARES = (0.20, 0.20, 0.30, 0.18, 0.12)
GAS = -900.0
REMOVABLE = (_GALLBLADDER, _GALLBLADDER, _RIGHT_KIDNEY, _LEFT_KIDNEY, _SPLEEN)
LEAST = 60  # voxels of an organ, for it to be painted


def distended(
    chance: Chance, hu: Tensor, label: Tensor, unseen: Tensor, spacing: Spacing
) -> tuple[Tensor, Tensor, Tensor]:
    """The three with one of the organs larger or smaller, and what lies around it pushed away or drawn near.

    Each voxel shows what lay up to 20 mm nearer to the organ's middle, or farther from it: along the gradient of its
    smoothed mask, by so little that nothing folds over. unseen is a mask of what lies beyond the scan.
    """
    rng = chance.rng
    organs = DISTENDED[rng.integers(len(DISTENDED))]
    inside = torch.isin(label, torch.tensor(organs, device=label.device)).float()
    if float(inside.sum()) < LEAST:
        return hu, label, unseen
    reach = rng.uniform(8, 16)  # standard deviation of the smoothing: two of its cells
    cells = [max(round(reach / 2 / step), 1) for step in spacing]
    smooth = F.avg_pool3d(inside, cells, cells, ceil_mode=True, count_include_pad=False)
    for _ in range(2):
        smooth = F.avg_pool3d(F.pad(smooth, (2,) * 6, mode="replicate"), 5, 1)
    smooth = F.interpolate(smooth, size=inside.shape[2:], mode="trilinear", align_corners=False)[0, 0]
    by = rng.uniform(*COLLAPSE) if rng.random() < 0.4 else rng.uniform(*DISTENSION)
    where = []
    for axis, (size, step) in enumerate(zip(smooth.shape, spacing, strict=True)):
        along = torch.arange(size, device=hu.device).view([-1 if other == axis else 1 for other in range(3)])
        index = along + by * reach**2 * torch.gradient(smooth, spacing=step, dim=axis)[0] / step
        where.append(2 * index / max(size - 1, 1) - 1)
    grid = torch.stack(where[::-1], -1)[None]
    hu = F.grid_sample(hu, grid, mode="bilinear", padding_mode="border", align_corners=True)
    kept = torch.cat([label, unseen.long()], 1).float()
    kept = F.grid_sample(kept, grid, mode="nearest", padding_mode="border", align_corners=True).round()
    return hu, kept[:, :1].long(), kept[:, 1:] > 0


def with_contents(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> Tensor:
    """`hu` with other contents in stomach or duodenum, or both; unchanged if they are not in the patch."""
    rng = chance.rng
    organs = HOLLOW[rng.choice(len(HOLLOW), p=SHARES)]
    lumen = _lumen(label, organs, rng.uniform(1.5, 4.5), spacing)
    if float(lumen.sum()) < LEAST:
        return hu
    # Without a new wall the old contents would shine as a rim.
    wall = rng.uniform(30, 105) + 4 * chance.grain(shape_of(hu), 10, spacing)
    hu = torch.lerp(hu, wall, _lumen(label, organs, 0.0, spacing))
    return torch.lerp(hu, _content(chance, lumen, spacing), lumen)


def with_bile(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> Tensor:
    """`hu` with other bile in the gallbladder: clear, at times with sludge or contrast in it, or with stones.

    Bright bile stays rare and below the contrast in a stomach, which a network else calls gallbladder.
    """
    rng = chance.rng
    lumen = _lumen(label, (_GALLBLADDER,), 1.0, spacing)
    if float(lumen.sum()) < LEAST:
        return hu
    bile = torch.full_like(hu, rng.uniform(-5, 30) if rng.random() < 0.88 else rng.uniform(30, 110))
    bile = bile + 3 * chance.grain(shape_of(hu), 8, spacing)
    if rng.random() < 0.35:
        bile = bile + (chance.grain(shape_of(hu), rng.uniform(5, 12), spacing) > 1.3) * rng.uniform(50, 500)
    return torch.lerp(hu, bile, lumen)


def with_bowel(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> Tensor:
    """`hu` with up to four loops of bowel among what has no label, each with contents of its own."""
    rng = chance.rng
    free = (label == 0) & (hu > -150) & (hu < 200)  # neither air nor bone
    voxels = (free & (hu > -30) & (hu < 110)).flatten().nonzero()[:, 0]
    if len(voxels) < LEAST:
        return hu
    for _ in range(int(rng.integers(1, 5))):
        centre = chance.voxel(voxels, shape_of(hu))
        radius = float(np.exp(rng.uniform(np.log(7), np.log(24))))
        long = rng.integers(3)
        radii = [radius * (rng.uniform(1.0, 3.0) if axis == long else rng.uniform(0.8, 1.2)) for axis in range(3)]
        reach = chance.lump(hu, centre, radii, 0.2, radius + 8, spacing)
        loop = ((1 - reach) * radius / 2.5).clamp(0, 1) * free
        if float(loop.sum()) >= LEAST:
            hu = torch.lerp(hu, _content(chance, loop, spacing), loop)
    return hu


def with_perfusion(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> Tensor:
    """`hu` with regions of liver or spleen brighter or darker than the rest, as early phases and fat make them."""
    rng = chance.rng
    organ = _LIVER if rng.random() < 0.7 else _SPLEEN
    region = torch.sigmoid(
        rng.uniform(2, 8) * (chance.grain(shape_of(hu), rng.uniform(15, 60), spacing) - rng.uniform(0, 1))
    )
    return hu + rng.choice([-1.0, 1.0]) * rng.uniform(6, 32) * region * (label == organ)


def with_fluid(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> Tensor:
    """`hu` with fluid in place of the fat in a region about an organ's edge: ascites, edema, an effusion."""
    rng = chance.rng
    voxels = (label == int(rng.choice((_LIVER, _LIVER, _SPLEEN, _STOMACH)))).flatten().nonzero()[:, 0]
    if len(voxels) < LEAST:
        return hu
    centre = chance.voxel(voxels, shape_of(hu))
    radius = float(rng.uniform(20, 80))
    reach = chance.lump(hu, centre, [radius * rng.uniform(0.7, 1.4) for _ in range(3)], 0.3, radius, spacing)
    fat = (label == 0) & (hu > -150) & (hu < -30)
    wet = F.avg_pool3d(((1 - reach) * radius / 4).clamp(0, 1) * fat, 3, 1, 1) * (label == 0)
    return torch.lerp(hu, rng.uniform(0, 25) + 3 * chance.grain(shape_of(hu), 10, spacing), wet)


def without_organ(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> tuple[Tensor, Tensor]:
    """Both with fat or bowel in place of an organ that people live without, and no label there."""
    rng = chance.rng
    organ = REMOVABLE[rng.integers(len(REMOVABLE))]
    inside = label == organ
    if int(inside.sum()) < LEAST:
        return hu, label
    inner = _lumen(label, (organ,), 0.0, spacing)
    outer = F.max_pool3d(inside.float(), 3, 1, 1) * ((label == 0) | inside)  # its edge goes with it
    fat = rng.uniform(-115, -90) + 8 * chance.grain(shape_of(hu), 8, spacing)
    strands = 60 * (chance.grain(shape_of(hu), 9, spacing) > 1.5)
    hu = torch.lerp(hu, fat + strands, outer)
    if rng.random() < 0.4:  # bowel has moved there
        hu = torch.lerp(hu, _content(chance, inner, spacing), inner * (inner > 0.9))
    return hu, label.masked_fill(inside, 0)


def _lumen(label: Tensor, organs: tuple[int, ...], wall: float, spacing: Spacing) -> Tensor:
    """0..1: what lies inside of the organs by more than `wall`, with an edge as soft as a voxel."""
    inside = torch.zeros_like(label, dtype=torch.float32)
    for organ in organs:
        inside = inside.masked_fill_(label == organ, 1.0)
    inside = -pooled(F.max_pool3d, -inside, wall, spacing)
    return F.avg_pool3d(inside, 3, 1, 1, count_include_pad=False)


def _content(chance: Chance, lumen: Tensor, spacing: Spacing) -> Tensor:
    """HU of what fills `lumen`: one kind or two that lie side by side, at times with gas above a level."""
    rng = chance.rng
    content = _one_content(chance, lumen, spacing)
    if rng.random() < 0.35:
        beside = torch.sigmoid(6 * chance.grain(shape_of(lumen), rng.uniform(15, 50), spacing))
        content = torch.lerp(content, _one_content(chance, lumen, spacing), beside)
    if rng.random() < 0.4:
        filled = lumen.sum((0, 1, 2, 4)).cumsum(0)  # from the front: the patient lies on the back
        front = (filled < float(filled[-1]) * rng.uniform(0.1, 0.7)).view(-1, 1)
        content = torch.where(front, GAS, content)
    return content


def _one_content(chance: Chance, lumen: Tensor, spacing: Spacing) -> Tensor:
    rng = chance.rng
    kind = rng.choice(KINDS, p=KIND_SHARES)
    if kind == "gas":
        return torch.full_like(lumen, GAS)
    if kind == "water":
        return rng.uniform(-5, 28) + 3 * chance.grain(shape_of(lumen), 10, spacing)
    if kind == "contrast":
        level = np.exp(rng.uniform(np.log(110), np.log(600)))
        return level * (1 + rng.uniform(0, 0.2) * chance.grain(shape_of(lumen), 25, spacing))
    if kind == "tissue":
        return rng.uniform(30, 110) + rng.uniform(4, 25) * chance.grain(shape_of(lumen), rng.uniform(5, 12), spacing)
    food = rng.uniform(0, 90) + rng.uniform(10, 50) * chance.grain(shape_of(lumen), rng.uniform(5, 12), spacing)
    if rng.random() < 0.5:  # bubbles
        food = torch.where(chance.grain(shape_of(lumen), 6, spacing) > rng.uniform(1.2, 2.2), GAS / 2, food)
    return food
