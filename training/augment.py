"""Patches for training.train: cut out of packed scans and augmented, all on the device that trains.

On an H100 a step's patches, 3.5 million voxels, take 8 ms, so that no worker has to prepare them. Arrays are
(z, y, x), LPS; lengths are mm, values HU until the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.chance import Chance, shape_of
from training.contents import distended, with_bile, with_bowel, with_contents, with_fluid, with_perfusion, without_organ
from training.labels import IGNORE, ORGANS, RARE, TUMOR
from training.packed import AIR, LOW, STEP, Packed
from training.phases import in_another_phase
from training.plans import SOFT_TISSUE
from training.scanners import blur, scanned
from training.settings import Shape, Spacing
from training.warp import bent, rotation

SEEDS = 3000  # voxels of each structure on which a patch may be centred
FLAT = 120.0  # mm: patches no higher are often slabs, scans that end inside the patch
SHAPED = 0.4  # share of patches with organs shaped and placed as another patient's
RESIZED = 0.3  # share of patches with a hollow organ that is distended or collapsed
REMOVED = 0.06  # with an organ removed
OTHER_PHASE = 0.25  # in a contrast phase drawn at random
# Share of patches that are bent, by bumps of so many mm, by how many mm at least and at most.
BENT = ((0.6, 50.0, 1.0, 6.0), (0.3, 22.0, 0.5, 2.0))
# Share of patches with contents or looks painted in that few scans show.
PAINTED = ((0.45, with_contents), (0.3, with_bile), (0.35, with_bowel), (0.25, with_perfusion), (0.07, with_fluid))
LEAST_HOST = 400  # voxels of an organ, for a lesion to be put into it
_LIVER, _RIGHT_KIDNEY, _SPLEEN, _PANCREAS, _STOMACH, _LEFT_KIDNEY = (
    ORGANS[name] for name in ("liver", "right_kidney", "spleen", "pancreas", "stomach", "left_kidney")
)
HOSTS = (_LIVER, _LIVER, _LIVER, _LIVER, _LIVER, _RIGHT_KIDNEY, _LEFT_KIDNEY, _SPLEEN, _PANCREAS, _STOMACH)
ROOMY = (_LIVER, _RIGHT_KIDNEY, _LEFT_KIDNEY)  # hosts of lesions of up to 45 mm in radius, others of 25


class Volume:
    """A packed scan on the device, and where its structures lie."""

    def __init__(self, packed: Packed, device: torch.device) -> None:
        self.name, self.spacing = packed.name, packed.spacing
        self.hu = torch.from_numpy(packed.codes).to(device).float().mul_(STEP).add_(LOW)[None, None]
        self.hu[self.hu <= LOW] = AIR
        self.label = torch.from_numpy(packed.label).to(device).float()[None, None]
        self.bends = torch.from_numpy(packed.bends).to(device).float()
        self.extent = np.array(packed.label.shape) * packed.spacing
        self._size, self._step = torch.tensor([packed.label.shape, packed.spacing], device=device)
        self.seeds: dict[int, np.ndarray] = {}  # class -> points (SEEDS, 3) in it, mm
        for code in range(1, TUMOR + 1):
            voxels = np.flatnonzero(packed.label == code)
            if len(voxels) > 20:
                picked = voxels[np.random.default_rng(code).integers(0, len(voxels), SEEDS)]
                points = np.stack(np.unravel_index(picked, packed.label.shape), 1)
                self.seeds[code] = points * packed.spacing

    def centre(self, rng: np.random.Generator) -> np.ndarray:
        """mm (z, y, x): mostly near a structure, rare ones more often, at times anywhere in the scan."""
        if rng.random() < 0.75 and self.seeds:
            codes = list(self.seeds)
            weight = np.array([RARE.get(code, 1.0) for code in codes])
            points = self.seeds[codes[rng.choice(len(codes), p=weight / weight.sum())]]
            return points[rng.integers(SEEDS)] + rng.normal(0, [15, 22, 25])
        return rng.uniform(0, 1, 3) * self.extent

    def sample(self, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """HU and labels (1, 1, z, y, x) at `where` (z, y, x, 3) mm, and the mask of what lies above or below the scan.

        Beside the scan there is air.
        """
        index = where / self._step
        outside = (index < -0.5) | (index > self._size - 0.5)
        grid = (2 * index / (self._size - 1).clamp(min=1) - 1).flip(-1)[None]
        hu = F.grid_sample(self.hu, grid, mode="bilinear", padding_mode="border", align_corners=True)
        label = F.grid_sample(self.label, grid, mode="nearest", padding_mode="border", align_corners=True)
        beside = outside[..., 1:].any(-1)[None, None]
        hu.masked_fill_(beside, AIR)
        return hu, label.round().long().masked_fill_(beside, 0), outside[..., 0][None, None]


@dataclass(frozen=True)
class Patches:
    """Where a step's patches come from."""

    volumes: Sequence[Volume]
    shares: Sequence[float]  # of each volume, relative to the others
    spacing: Spacing  # of patches
    lesions: float  # share of patches into which lesions are put

    def batch(self, chance: Chance, shape: Shape, count: int) -> tuple[Tensor, Tensor]:
        """Images (count, 1, z, y, x) float32, normalised, and labels (count, z, y, x) int64, IGNORE where unknown."""
        drawn = [self.patch(chance, shape) for _ in range(count)]
        return torch.cat([image for image, _ in drawn]), torch.cat([label for _, label in drawn])

    def patch(self, chance: Chance, shape: Shape) -> tuple[Tensor, Tensor]:
        """One image (1, 1, z, y, x) and its label (1, z, y, x)."""
        rng = chance.rng
        volume = self.volumes[rng.choice(len(self.volumes), p=np.array(self.shares) / np.sum(self.shares))]
        where = _warped(chance, volume.centre(rng), shape, self.spacing)
        if len(volume.bends) and rng.random() < SHAPED:
            where = bent(where, volume.bends[rng.integers(len(volume.bends))], rng.uniform(0.3, 1.0))
        hu, label, unseen = volume.sample(where)
        if rng.random() < RESIZED:
            hu, label, unseen = distended(chance, hu, label, unseen, self.spacing)
        if rng.random() < REMOVED:
            hu, label = without_organ(chance, hu, label, self.spacing)
        if rng.random() < OTHER_PHASE:
            hu = in_another_phase(chance, hu, label, self.spacing)
        elif rng.random() < 0.6:
            hu = _recontrasted(rng, hu, label)
        for share, painted in PAINTED:
            if rng.random() < share:
                hu = painted(chance, hu, label, self.spacing)
        if rng.random() < self.lesions:
            hu, label = with_lesions(chance, hu, label, self.spacing)
        image = normalise(scanned(chance, hu))
        image.masked_fill_(unseen, 0.0)  # as nnU-Net pads
        label.masked_fill_(unseen, IGNORE)
        _shorten(rng, image, label, self.spacing)
        return image, label[:, 0]


def normalise(hu: Tensor) -> Tensor:
    """HU -> the network's input, as nnU-Net's CTNormalization does it with our plans."""
    clipped = hu.clamp(SOFT_TISSUE["percentile_00_5"], SOFT_TISSUE["percentile_99_5"])
    return (clipped - SOFT_TISSUE["mean"]) / SOFT_TISSUE["std"]


def _warped(chance: Chance, centre: np.ndarray, shape: Shape, spacing: Spacing) -> Tensor:
    """(z, y, x, 3) mm in the scan of a patch about `centre`: turned, scaled and bent at random."""
    rng, device = chance.rng, chance.noise.device
    matrix = rotation(rng, (9.0, 4.0, 4.0)) if rng.random() < 0.8 else np.eye(3)
    if rng.random() < 0.85:
        matrix = matrix @ np.diag(np.exp(rng.uniform(-0.2, 0.2) + rng.uniform(-0.09, 0.09, 3)))
    axes = [
        (torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2) * step
        for size, step in zip(shape, spacing, strict=True)
    ]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    for share, length, least, most in BENT:
        if rng.random() < share:
            amplitude = rng.uniform(least, most)
            for axis in range(3):
                where[..., axis] += amplitude * chance.grain(shape, length, spacing)[0, 0]
    turned = where.view(-1, 3) @ torch.tensor(matrix.T, dtype=torch.float32, device=device)
    return turned.view(*shape, 3) + torch.tensor(centre, dtype=torch.float32, device=device)


def _recontrasted(rng: np.random.Generator, hu: Tensor, label: Tensor) -> Tensor:
    """`hu` with each organ a little brighter or darker, as in another contrast phase; pairs of organs alike."""
    spread = rng.choice([8.0, 20.0, 45.0], p=[0.45, 0.35, 0.2])
    drawn = np.append(0.0, rng.normal(0, spread, TUMOR))
    if rng.random() < 0.5:
        drawn[ORGANS["aorta"]] += abs(rng.normal(0, spread))
    drawn[_LEFT_KIDNEY] = drawn[_RIGHT_KIDNEY]
    drawn[ORGANS["left_adrenal_gland"]] = drawn[ORGANS["right_adrenal_gland"]]
    offsets = torch.zeros(256)  # of a tumour and of what is unknown: none
    offsets[1:TUMOR] = torch.tensor(drawn[1:TUMOR], dtype=torch.float32)
    shift = blur(offsets.to(hu.device)[label.clamp(max=255)], 0.6)
    return hu + shift * (hu > -50)  # not gas, not fat


def with_lesions(chance: Chance, hu: Tensor, label: Tensor, spacing: Spacing) -> tuple[Tensor, Tensor]:
    """`hu` and `label` (1, 1, z, y, x) with tumours, or cysts, which keep their host's label, in one organ.

    The organ's own texture stays under them. Nothing changes if the organ that is drawn is not in the patch.
    """
    rng = chance.rng
    host = int(rng.choice(HOSTS))
    voxels = (label[0, 0] == host).flatten().nonzero()[:, 0]
    if len(voxels) < LEAST_HOST:
        return hu, label
    level = float(hu.flatten()[voxels].median())
    cyst = rng.random() < 0.3
    count = int(rng.integers(1, 5)) if host == _LIVER and rng.random() < 0.35 else 1
    for _ in range(count):
        centre = chance.voxel(voxels, shape_of(hu))
        radius = float(np.exp(rng.uniform(np.log(4), np.log(45 if host in ROOMY else 25))))
        radii = [radius * rng.uniform(0.75, 1.3) for _ in range(3)]
        reach = chance.lump(hu, centre, radii, 0.18, radius + 8, spacing)
        inside = ((1 - reach) * radius / 2.5).clamp(0, 1) * ((label == host) | (label == TUMOR))
        hu = hu + inside * _difference(chance, reach, radius, level, cyst, spacing)
        if not cyst:
            label = torch.where((inside > 0.5) & (label != IGNORE), TUMOR, label)
    return hu, label


def _difference(chance: Chance, reach: Tensor, radius: float, level: float, cyst: bool, spacing: Spacing) -> Tensor:
    """HU by which a lesion differs from its host, whose median is `level`."""
    rng = chance.rng
    if cyst:  # water
        return torch.full_like(reach, rng.uniform(0, 18) - level)
    darker = rng.random() < 0.75
    contrast = -rng.uniform(12, 65) if darker else rng.uniform(12, 50)
    dead = -rng.uniform(0, 50) if radius > 12 and rng.random() < 0.5 else 0.0  # necrosis in the middle
    core = ((0.55 - reach) * radius / 4).clamp(0, 1) * dead
    if rng.random() < 0.25:  # a rim, that of a capsule or of what is left alive
        core = core + rng.choice([-1.0, 1.0]) * rng.uniform(10, 45) * ((reach - 0.7) * radius / 3).clamp(0, 1)
    return contrast + core + 6 * chance.grain(shape_of(reach), 12, spacing)


def _shorten(rng: np.random.Generator, image: Tensor, label: Tensor, spacing: Spacing) -> None:
    """At times let the scan end inside the patch, in place: mostly in its middle, since slabs show up padded so."""
    depth = image.shape[2]
    if rng.random() >= (0.6 if depth * spacing[0] <= FLAT else 0.12):
        return
    keep = int(rng.integers(7, depth))
    first = int(rng.integers(0, depth - keep + 1))
    if rng.random() < 0.7:
        first = (depth - keep) // 2
    for part in (slice(0, first), slice(first + keep, None)):
        image[:, :, part], label[:, :, part] = 0, IGNORE
