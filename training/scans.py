"""Real labelled scans as a source of training patches: deformed, re-contrasted, with synthetic tumours put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from training.anatomy import Tissue, merge_classes, read_lps
from training.labels import IGNORE, ORGANS, TUMOR
from training.patch import SPACING, Patch, normalise
from training.synthesis import shorten
from training.tumors import grow_lesion, pick_host
from training.warp import Shape, Strength, smooth_field, source_coordinates, take_linear, take_nearest

STRENGTH = Strength(degrees=(6.0, 2.0, 2.0), elastic=((60.0, 4.0), (25.0, 1.0)), bulges=2)
TUMOR_SHARE = 0.35


class LabelledScan:
    """A CT and its reference; organs that the reference leaves out are merged with the background, tumours are not."""

    def __init__(self, name: str, image: Path, reference: Path) -> None:
        self.name = name
        hu, self.spacing = read_lps(image)
        self.label, _ = read_lps(reference)
        self.hu = torch.from_numpy(np.clip(hu, -1024, 700).astype(np.float32))
        given = set(np.unique(self.label).tolist())
        missing = [code for code in ORGANS.values() if code not in given]
        self.merge = merge_classes((0, *missing))
        self.seeds: dict[int, np.ndarray] = {}
        for code in sorted(given - {0, IGNORE}):
            voxels = np.argwhere(self.label == code)
            self.seeds[code] = voxels[:: max(1, len(voxels) // 500)] * np.array(self.spacing)
        self.middles = np.array([points.mean(0) for points in self.seeds.values()])
        self.extent = np.array(self.label.shape) * np.array(self.spacing)

    def centre(self, rng: np.random.Generator) -> np.ndarray:
        """mm (z, y, x): mostly near a labelled structure, sometimes anywhere in the volume, its empty edge included."""
        if rng.random() < 0.3:
            return rng.uniform(0.0, 1.0, 3) * self.extent
        points = self.seeds[int(rng.choice(list(self.seeds)))]
        return points[rng.integers(len(points))] + rng.normal(0, [12, 20, 25])

    def render(self, rng: np.random.Generator, shape: Shape, spacing: np.ndarray = SPACING) -> Patch:
        """One augmented patch of `shape` and `spacing` in mm (z, y, x)."""
        snap = rng.uniform(4.2, 7) if rng.random() < 0.2 else 0.0
        where = source_coordinates(rng, shape, spacing, self.centre(rng), STRENGTH, self.middles, snap)
        label = take_nearest(self.label, where, self.spacing, 0)
        hu = take_linear(self.hu, where, self.spacing)
        edge = np.array(self.spacing) / 2
        out = [(where[i] < -edge[i]) | (where[i] > self.extent[i] - edge[i]) for i in range(3)]
        hu[out[1] | out[2]] = -1024

        hu = _recontrast(rng, hu, label)
        if rng.random() < TUMOR_SHARE:
            hu, label = _with_tumour(rng, hu, label, spacing)
        image = normalise(_degrade(rng, hu, spacing))
        image[out[0]] = 0
        label[out[0]] = IGNORE
        return shorten(rng, Patch(image, label, self.merge))


def _recontrast(rng: np.random.Generator, hu: np.ndarray, label: np.ndarray) -> np.ndarray:
    """`hu` with each organ a little brighter or darker, as in another contrast phase."""
    if rng.random() < 0.4:
        return hu
    spread = rng.choice([8.0, 20.0, 45.0], p=[0.5, 0.3, 0.2])
    offsets = np.zeros(256, np.float32)
    offsets[1:TUMOR] = rng.normal(0, spread, TUMOR - 1)
    offsets[[Tissue.LEFT_KIDNEY, Tissue.LEFT_ADRENAL]] = offsets[[Tissue.RIGHT_KIDNEY, Tissue.RIGHT_ADRENAL]]
    shift = ndimage.gaussian_filter(offsets[label], [0.3, 0.8, 0.8], truncate=2.5)
    return hu + shift * (hu > -50)


def _with_tumour(
    rng: np.random.Generator, hu: np.ndarray, label: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`hu` and `label` with one tumour put into an organ, with the organ's own texture kept under it."""
    tissue = label.copy()
    tissue[(label == 0) & (hu > -140) & (hu < -40)] = Tissue.FAT
    host = pick_host(rng, tissue)
    if host is None:
        return hu, label
    inside = hu[tissue == host]
    level = float(np.median(inside))
    lesion = grow_lesion(rng, tissue, spacing, host, level, float(np.clip((level - 40) / 50, 0.15, 1)))
    if lesion is None:
        return hu, label
    grain = (hu - ndimage.gaussian_filter(hu, [0, 1.5, 1.5])) * (np.abs(hu - level) < 100)
    hu = hu + lesion.weight * (lesion.value + grain - hu)
    label = label.copy()
    label[(lesion.weight > 0.5) & (label != IGNORE)] = TUMOR
    return hu, label


def _degrade(rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Brightness, contrast, gamma, blur, slice thickness and noise, as between scanners and protocols."""
    if rng.random() < 0.25:
        in_plane = rng.uniform(0.3, 1.2)
        hu = ndimage.gaussian_filter(hu, [rng.uniform(0, 0.6), in_plane, in_plane], truncate=2.5)
    if rng.random() < 0.6:
        hu = (hu - 40) * rng.uniform(0.85, 1.2) + 40 + rng.normal(0, 10)
    if rng.random() < 0.3:
        span = np.clip((hu + 160) / 400, 0, 1)
        hu = np.where((hu > -160) & (hu < 240), span ** rng.uniform(0.75, 1.35) * 400 - 160, hu)
    if rng.random() < 0.1:  # uneven beam
        hu = hu + rng.uniform(0, 12) * smooth_field(rng, hu.shape, spacing, 120)
    if rng.random() < 0.6:
        grain = rng.standard_normal(hu.shape, dtype=np.float32)
        sigma = rng.uniform(0.0, 1.0)
        grain = ndimage.gaussian_filter(grain, [0, sigma, sigma], truncate=2.5) * (1 + 2 * sigma)
        hu = hu + grain * rng.uniform(0, 18)
    return hu
