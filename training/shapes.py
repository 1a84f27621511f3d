"""How one patient's organs would lie in another's: displacements, made by training.pack, that patches are bent by.

Random bending does not know how people differ. A displacement is found by fitting the smoothed masks of one patient's
organs to those of another, whose scan need not be there: a label map will do. Arrays are (z, y, x), LPS; lengths mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects
from torch import Tensor

from training.chance import pooled
from training.labels import IGNORE, ORGANS
from training.packed import no_bends
from training.warp import KNOTS, sampled

GRID = KNOTS / 3  # mm: masks are compared on it
FARTHEST = 45.0  # mm
# An organ is left out if what is unknown within so many mm of its box has more than this share of its volume.
MARGIN, UNKNOWN = 10.0, 0.3
COMMON = 5  # organs that both patients must show whole
SCALES = (0.75, 1.3)  # of one patient to the other, along each axis
STAGES = ((2, 40), (1, 40))  # width of the smoothing, and how far apart it is looked at, in voxels of GRID; steps
SMOOTH, SMALL = 5.0, 1e-4  # weights of the displacement's slope and of its square, mm
LEAST_VOLUME = 0.15  # of a voxel after bending, to before: less is a fold


@dataclass(frozen=True)
class OrganMasks:
    """Where a patient's organs lie."""

    masks: dict[int, Tensor]  # FLARE code -> share of each voxel of GRID that is the organ
    size: tuple[int, int, int]  # voxels of GRID


def organ_masks(label: np.ndarray, spacing: Sequence[float]) -> OrganMasks:
    """How organs lie in a label map (z, y, x), spacing mm, without those that its first or last plane cuts or about
    which much is unknown."""
    z, y, x = (max(4, round(n * step / GRID)) for n, step in zip(label.shape, spacing, strict=True))
    masks = {}
    boxes = find_objects(np.where(label <= max(ORGANS.values()), label, 0))
    for code in ORGANS.values():
        box = boxes[code - 1] if code <= len(boxes) else None
        if box and box[0].start > 0 and box[0].stop < len(label):
            around = tuple(
                slice(max(0, part.start - round(MARGIN / step)), part.stop + round(MARGIN / step))
                for part, step in zip(box, spacing, strict=True)
            )
            if (label[around] == IGNORE).sum() < UNKNOWN * (label[box] == code).sum():
                mask = torch.from_numpy(label == code).float()[None, None]
                masks[code] = F.interpolate(mask, size=(z, y, x), mode="area")[0, 0]
    return OrganMasks(masks, (z, y, x))


def displacements(own: OrganMasks, others: Sequence[OrganMasks], count: int, seed: int) -> np.ndarray:
    """(n, 3, z, y, x) mm, int8, to at most `count` of the others, drawn at random; n may be 0."""
    found: list[np.ndarray] = []
    for number in np.random.default_rng(seed).permutation(len(others))[: 3 * count]:
        if len(found) < count and (field := displacement(own, others[number])) is not None:
            found.append(np.round(field).astype(np.int8))
    return np.stack(found) if found else no_bends()


def displacement(own: OrganMasks, other: OrganMasks) -> np.ndarray | None:
    """(3, z, y, x) mm float32, at points KNOTS apart from the first voxel on: what lies at a point of a patient with
    `own` organs once they are shaped as `other`'s is found so far from it. None if they do not fit.

    The other patient is first moved and stretched along the axes so that the middles of the organs lie together.
    """
    codes = sorted(own.masks.keys() & other.masks.keys())
    if len(codes) < COMMON:
        return None
    moving, theirs = (torch.stack([shape.masks[code] for code in codes])[None] for shape in (own, other))
    scale, shift = _laid_together(_middles(theirs), _middles(moving))
    here = torch.stack(torch.meshgrid(*(torch.arange(n) * GRID for n in own.size), indexing="ij"), -1).float()
    there = (here - torch.from_numpy(shift)) / torch.from_numpy(scale)
    target = sampled(theirs, there.float(), GRID)
    knots = [max(3, int(np.ceil(n * GRID / KNOTS)) + 1) for n in own.size]
    field = torch.zeros((1, 3, *knots), requires_grad=True)
    optimizer = torch.optim.Adam([field], lr=1.5)
    for width, steps in STAGES:
        thinned = (slice(None, None, width),) * 3
        wanted, given = _smoothed(target, width)[(..., *thinned)], _smoothed(moving, width)
        weight = 1 / wanted.sum((2, 3, 4), keepdim=True).clamp(min=1)
        for _ in range(steps):
            optimizer.zero_grad()
            bent = sampled(given, (here + _spread(field, own.size))[thinned], GRID)
            apart = ((bent - wanted).square() * weight).sum() / len(codes)
            slopes = torch.stack([(torch.diff(field, dim=axis) / KNOTS).square().mean() for axis in (2, 3, 4)])
            loss = apart + SMOOTH * slopes.sum() + SMALL * field.square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    found = field.detach()[0]
    if float(found.abs().max()) > FARTHEST or _least_volume(found) < LEAST_VOLUME:
        return None
    return found.numpy()


def _spread(field: Tensor, size: Sequence[int]) -> Tensor:
    """(z, y, x, 3): a displacement at every voxel of GRID."""
    whole = [round(KNOTS / GRID) * (n - 1) + 1 for n in field.shape[2:]]
    fine = F.interpolate(field, size=whole, mode="trilinear", align_corners=True)
    return fine[0, :, : size[0], : size[1], : size[2]].permute(1, 2, 3, 0)


def _smoothed(masks: Tensor, width: int) -> Tensor:
    for _ in range(2):
        masks = pooled(partial(F.avg_pool3d, count_include_pad=False), masks, width, (1, 1, 1))
    return masks


def _middles(masks: Tensor) -> np.ndarray:
    """mm (n, 3): (z, y, x) of the middle of each of `masks` (1, n, z, y, x)."""
    weights = masks[0] / masks[0].sum((1, 2, 3), keepdim=True)
    along = [weights.sum([other for other in (1, 2, 3) if other != axis]) for axis in (1, 2, 3)]
    return np.stack([(one * torch.arange(one.shape[1])).sum(1).numpy() * GRID for one in along], 1)


def _laid_together(theirs: np.ndarray, ours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (mm) along each axis that bring points (n, 3) nearest to others."""
    spread = ((theirs - theirs.mean(0)) ** 2).sum(0)
    scale = ((theirs - theirs.mean(0)) * (ours - ours.mean(0))).sum(0) / np.maximum(spread, 1)
    scale = np.clip(scale, *SCALES)
    return scale, ours.mean(0) - scale * theirs.mean(0)


def _least_volume(field: Tensor) -> float:
    """The smallest determinant of the way's derivative, 1 where nothing is bent."""
    slopes = torch.stack([torch.stack(torch.gradient(one, spacing=KNOTS), -1) for one in field], -2)
    return float(torch.linalg.det(slopes + torch.eye(3)).min())
