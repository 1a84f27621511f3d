"""Random numbers, smooth noise and irregular lumps for patches, made on the device that trains.

Arrays are (1, 1, z, y, x); lengths are mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.settings import Shape, Spacing


@dataclass(frozen=True)
class Chance:
    """Random numbers: NumPy's for the few that describe a patch, PyTorch's for noise, made where it is needed."""

    rng: np.random.Generator
    noise: torch.Generator

    @classmethod
    def seeded(cls, device: torch.device, *seed: int) -> Chance:
        rng = np.random.default_rng(seed)
        return cls(rng, torch.Generator(device).manual_seed(int(rng.integers(2**63))))

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.noise, device=self.noise.device)

    def field(self, shape: Shape, cells: Sequence[int]) -> Tensor:
        """Smooth noise of unit variance with about `cells` bumps along each axis, two at least."""
        knots = self.normal((1, 1, *(max(count, 2) + 2 for count in cells)))
        smooth = F.interpolate(knots, size=shape, mode="trilinear", align_corners=True)
        return smooth / smooth.std().clamp(min=1e-3)

    def grain(self, shape: Shape, length: float, spacing: Spacing) -> Tensor:
        """Smooth noise of unit variance with bumps of about `length`."""
        return self.field(shape, [int(size * step / length) for size, step in zip(shape, spacing, strict=True)])

    def voxel(self, among: Tensor, shape: Sequence[int]) -> list[int]:
        """(z, y, x) of one of the voxels of a volume whose places in it, flattened, are `among`."""
        picked = int(among[self.rng.integers(len(among))])
        return [int(index) for index in np.unravel_index(picked, tuple(shape))]

    def lump(
        self,
        like: Tensor,
        centre: Sequence[int],
        radii: Sequence[float],
        rough: float,
        length: float,
        spacing: Spacing,
    ) -> Tensor:
        """Distance from the voxel `centre` over the lump's own, irregular radius, 1 at its edge; shaped as `like`.

        rough   by how much the edge of an ellipsoid with these radii (z, y, x) is moved, with bumps of about `length`
        """
        squared = torch.zeros_like(like)
        shape = shape_of(like)
        for axis, (size, middle, radius, step) in enumerate(zip(shape, centre, radii, spacing, strict=True)):
            along = ((torch.arange(size, device=like.device) - middle).float() * step / radius) ** 2
            squared = squared + along.view([-1 if other == axis else 1 for other in range(3)])
        return squared.sqrt() + rough * self.grain(shape, length, spacing)


def pooled(pool: Callable[..., Tensor], x: Tensor, reach: float, spacing: Spacing) -> Tensor:
    """`x` (1, 1, z, y, x) pooled over a box that reaches so many mm about each voxel, axis by axis, which is the same
    and much faster."""
    for axis, step in enumerate(spacing):
        if voxels := round(reach / step):
            kernel, padding = [1, 1, 1], [0, 0, 0]
            kernel[axis], padding[axis] = 2 * voxels + 1, voxels
            x = pool(x, tuple(kernel), 1, tuple(padding))
    return x


def shape_of(x: Tensor) -> Shape:
    """(z, y, x)."""
    return x.shape[2], x.shape[3], x.shape[4]
