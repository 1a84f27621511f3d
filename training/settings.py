"""How a student is trained: what training.train is told, and what the shipped network was made with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.plans import STUDENTS, Student

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

# Blocks of the lowest stage's voxels that a patch has at least. Not only do fewer show little: PyTorch 2.13 on a CPU
# takes the gradient of a bfloat16 convolution's weights from memory that is not its own where its input has two planes.
LEAST_BLOCKS = 3


@dataclass(frozen=True)
class Size:
    """One kind of patches: as many voxels a step for each, about 3.5 million."""

    shape: Shape  # at the student's spacing
    count: int  # patches a step
    early: float  # share of the steps before the freeze
    norms: float  # share of the batches on which the norms' statistics are taken
    late: float  # share of the steps after the freeze


SIZES = (
    Size((96, 128, 144), 2, early=0.70, norms=0.75, late=0.50),
    Size((112, 176, 208), 1, early=0.12, norms=0.0, late=0.35),  # as wide as inference's windows
    Size((48, 160, 192), 2, early=0.18, norms=0.25, late=0.15),  # slabs
)


@dataclass(frozen=True)
class Settings:
    """How a network is trained; the defaults made the shipped one, in 9.3 minutes of an H100."""

    minutes: float | None = None  # the run's own time, what came before a kill included
    steps: int | None = None  # in place of minutes
    student: Student = STUDENTS["near_isotropic"]
    spacing: Spacing | None = None  # other than the student's: coarse voxels, for a start from nothing
    learning_rate: float = 1.5e-3  # the highest
    consistency: float = 0.0  # share of the late steps that draw a part of each patch to what the patch says
    bfloat16: bool = False
    seed: int = 0
    sizes: tuple[Size, ...] = SIZES
    freeze: float = 0.55  # of the run: later, too few steps are left to learn with frozen norms
    norm_batches: int = 80  # statistics taken on fewer, or just kept, gave a network that knew nothing
    save_seconds: float = 100.0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None) or (self.minutes or self.steps or 0) <= 0:
            raise ValueError("a run has a budget of minutes or of steps, above 0")

    def voxels(self) -> Spacing:
        return self.spacing or self.student.spacing

    def blocks(self) -> Shape:
        """Voxels of a patch to one of the lowest stage's."""
        z, y, x = (math.prod(along) for along in zip(*self.student.strides, strict=True))
        return z, y, x

    def shape(self, size: Size) -> Shape:
        """Voxels of a patch: at another spacing as many mm, in whole blocks."""
        if self.spacing is None:
            return size.shape
        z, y, x = (
            max(LEAST_BLOCKS, round(n * own / step / block)) * block
            for n, own, step, block in zip(size.shape, self.student.spacing, self.spacing, self.blocks(), strict=True)
        )
        return z, y, x

    def part(self, rng: np.random.Generator, shape: Shape) -> Shape:
        """Voxels of a part of a patch: whole blocks, at least half of them along each axis."""
        z, y, x = (
            int(rng.integers(min(blocks, max(LEAST_BLOCKS, -(-blocks // 2))), blocks + 1)) * block
            for blocks, block in ((size // block, block) for size, block in zip(shape, self.blocks(), strict=True))
        )
        return z, y, x

    def rate(self, progress: float, steps: int) -> float:
        """nnU-Net's polynomial decay of the learning rate to a thousandth, after 100 steps of warming up."""
        falling = max(1 - progress, 0.0) ** 0.9 + 1e-3
        return self.learning_rate * falling * min(1.0, (steps + 1) / 100)
