"""What scanners and protocols make of a patient: blur and sharp kernels, thick slices, coarse planes, noise, streaks.

Arrays are (1, 1, z, y, x), LPS, values HU.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.chance import Chance, shape_of


def scanned(chance: Chance, hu: Tensor) -> Tensor:
    """`hu` as another scanner or protocol gives it."""
    rng, shape = chance.rng, shape_of(hu)
    if rng.random() < 0.2:
        hu = blur(hu, rng.uniform(0.4, 1.0))
    elif rng.random() < 0.15:  # a sharp kernel, which edges overshoot in
        hu = hu + rng.uniform(0.3, 1.2) * (hu - blur(hu, 0.8)).clamp(-150, 150)
    if rng.random() < 0.4:
        hu = _thickened(rng, hu)
    if rng.random() < 0.12:
        hu = _coarse(rng, hu)
    if rng.random() < 0.6:
        hu = (hu - 40) * rng.uniform(0.85, 1.2) + 40 + rng.normal(0, 10)
    if rng.random() < 0.3:
        bent = ((hu + 160) / 400).clamp(0, 1) ** rng.uniform(0.75, 1.35) * 400 - 160
        hu = torch.where((hu > -160) & (hu < 240), bent, hu)
    if rng.random() < 0.1:
        hu = hu + rng.uniform(0, 12) * chance.field(shape, (2, 3, 3))
    if rng.random() < 0.08:  # arms that lie beside the body
        hu = hu + rng.uniform(4, 16) * chance.field(shape, (shape[0] // 4, shape[1] // 4, 2))
    if rng.random() < 0.65:
        grain, sigma = chance.normal(hu.shape), rng.uniform(0, 1.0)
        if sigma > 0.3:
            grain = blur(grain, sigma * 0.8)
            grain = grain / grain.std()
        hu = hu + grain * (rng.uniform(0, 22) if rng.random() < 0.85 else rng.uniform(22, 45))  # a low dose
    return hu


def blur(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian of `sigma` voxels along z, y and x of (1, 1, z, y, x).

    By shifted sums, which are faster than a convolution of one channel.
    """
    if sigma < 0.05:
        return x
    reach = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (2, 3, 4):
        padding = [0] * 6
        padding[2 * (4 - axis)] = padding[2 * (4 - axis) + 1] = reach
        padded, size = F.pad(x, padding, mode="replicate"), x.shape[axis]
        shifted = (float(share) * padded.narrow(axis, shift, size) for shift, share in enumerate(kernel))
        x = sum(shifted, start=torch.zeros((), device=x.device))
    return x


def _thickened(rng: np.random.Generator, hu: Tensor) -> Tensor:
    """`hu` from slices two or three times as far apart, averaged or left out."""
    depth = hu.shape[2]
    times = int(rng.choice([2, 2, 3])) if depth % 3 == 0 else 2
    if rng.random() < 0.6:
        few = F.avg_pool3d(hu, (times, 1, 1))
    else:
        few = hu[:, :, rng.integers(times) :: times][:, :, : depth // times]
    return F.interpolate(few, size=hu.shape[2:], mode="trilinear", align_corners=False)


def _coarse(rng: np.random.Generator, hu: Tensor) -> Tensor:
    """`hu` from a grid with voxels twice or three times as large in the plane, as whole-body PET/CT has."""
    times = int(rng.choice([2, 2, 3]))
    few = F.avg_pool3d(hu, (1, times, times), ceil_mode=True)
    size = [hu.shape[2], few.shape[3] * times, few.shape[4] * times]
    whole = F.interpolate(few, size=size, mode="trilinear", align_corners=False)
    return whole[..., : hu.shape[3], : hu.shape[4]]
