"""Windows of the patch that a network was trained on, blended as nnU-Net blends them.

Which windows run is a plan, a generator: it yields a group of window corners (z, y, x) and is sent, for each, what the
network saw there: its codes on every THIN-th voxel of the window. Groups come in the order of z, which lets
the runner finish the volume slab by slab: only as many planes of logits as a patch is deep are held. The logits of a
whole scan (29 GiB for 15 channels of 512 x 512 x 2000) never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..arrays import Array, Network
from ..boxes import Box, Shape, shifted, whole
from .blend import Half, HalfSums, Sums
from .layout import SIGMA, Part, Slab, cut, grid, padded, padding

Corner = tuple[int, int, int]
Plan = Generator[list[Corner], list[Array], None]
Codes = Callable[[Array, Any], Array]  # logits (k, ...), array library -> (...): as grids.decode has them

AT_ONCE = 8_000_000  # numbers of a slab that is handed on: 32 MB
THIN = (2, 4, 4)  # of a window, every so many voxels are shown to the plan: 1/32 of them decide as well
PEAK = 10  # nnU-Net's value_scaling_factor: keeps the smallest float16 weights above zero
FOUND = 1 / 400  # of a window's voxels are foreground: 2,000 of the student's; FLARE 2022's winner asks for 1,000


@dataclass(frozen=True)
class Patches:
    """Every window of the dense plan that something of `box` belongs to.

    shape         of the volume
    window        voxels (z, y, x)
    step          distance of windows, as a share of one
    box           of the volume; None: all of it
    codes         of what is handed on, not 0 where the network finds something; `middle_first` looks at them
    ones          what is handed on has one more channel, 1 where the network looked: a head (grids.decode) needs it
    half          windows are added up in float16, as nnU-Net's are; not with `ones`. None: in float32
    middle_first  at each z the windows in the middle of the grid run first, and those around only if these found some
    """

    shape: Shape
    window: Shape
    step: float
    box: Box | None = None
    middle_first: bool = False
    codes: Codes | None = None
    ones: bool = False
    half: Half | None = None

    @property
    def most(self) -> int:
        """Windows of the dense plan."""
        return prod(map(len, grid(padded(self.shape, self.window), self.window, self.step)))

    def plan(self) -> Plan:
        """Corners are those of the padded volume."""
        box = self.box and shifted(self.box, [before for before, _ in padding(self.shape, self.window)])
        plan = middle_first if self.middle_first else dense_plan
        return plan(padded(self.shape, self.window), self.window, self.step, box)

    def parts(self, volume: Array, network: Network, inside: np.ndarray | None, xp: Any) -> Iterator[Part]:
        """One part, the whole volume (c, z, y, x): logits, 0 where no window was and outside the mask `inside`."""
        codes = self.codes if self.middle_first else None
        yield (
            whole(self.shape),
            slabs(volume, network, self.plan(), self.window, xp, inside, codes, self.ones, self.half),
        )


@dataclass(frozen=True)
class Boxed:
    """Patches over a box of a volume, laid as if that were the whole: fewer than of the volume's own meet it."""

    box: Box
    patches: Patches

    @property
    def window(self) -> Shape:
        return self.patches.window

    def parts(self, volume: Array, network: Network, inside: np.ndarray | None, xp: Any) -> Iterator[Part]:
        """As of Patches, with nothing beyond the box."""
        inside = None if inside is None else inside[self.box]
        for _, found in self.patches.parts(volume[(slice(None), *self.box)], network, inside, xp):
            yield self.box, found


def gaussian(patch: Shape) -> np.ndarray:
    """Importance of each voxel of a window, float32: nnU-Net's compute_gaussian, its float16 rounding included."""
    weights = np.ones(patch)
    for axis, n in enumerate(patch):
        sigma = n * SIGMA
        distance = np.arange(n) - n // 2
        along = np.exp(-0.5 * (distance / sigma) ** 2)
        along[np.abs(distance) > int(4 * sigma + 0.5)] = 0  # where scipy.ndimage truncates
        weights *= np.expand_dims(along, [other for other in range(3) if other != axis])
    # By way of float32, as PyTorch rounds a float64 to float16: a few ties fall otherwise.
    half = (weights / (weights.max() / PEAK)).astype(np.float32).astype(np.float16)
    half[half == 0] = half[half > 0].min()
    return half.astype(np.float32)


def dense_plan(shape: Shape, patch: Shape, step: float, box: Box | None = None) -> Plan:
    """Every window over `box` (default: the whole volume), placed and ordered as nnU-Net does."""
    zs, ys, xs = grid(shape, patch, step, box)
    for corner in product(zs, ys, xs):
        yield [corner]


def middle_first(shape: Shape, patch: Shape, step: float, box: Box | None = None) -> Plan:
    """Windows over `box`, fewer where the network sees no abdomen.

    At each z the middle of the grid runs first. Where it shows almost no foreground (chest above
    the diaphragm, thighs) the ring around it is not run. The idea is the abdomen prior of the
    FLARE 2022 winner (Huang et al.), without its fixed 3 x 3 grid: every part of the box belongs
    to some window, and what the middle saw is kept.
    """
    zs, ys, xs = grid(shape, patch, step, box)
    for z in zs:
        middle: list[Corner] = list(product([z], _middle(ys), _middle(xs)))
        seen = yield middle
        ring = [corner for corner in product([z], ys, xs) if corner not in middle]
        if ring and sum(int((labels > 0).sum()) for labels in seen) >= FOUND * prod(seen[0].shape):
            yield ring


def _middle(values: Sequence[int]) -> Sequence[int]:
    """The one middle value, or the two."""
    return values[(len(values) - 1) // 2 : len(values) // 2 + 1]


def slabs(
    volume: Array,
    network: Network,
    plan: Plan,
    patch: Shape,
    xp: Any,
    inside: np.ndarray | None = None,
    codes: Codes | None = None,
    ones: bool = False,
    half: Half | None = None,
) -> Iterator[Slab]:
    """Blended logits of `volume` (c, z, y, x) in slabs that ascend in z and together cover it; each is the caller's.
    A slab has as many planes as make AT_ONCE numbers, so that it is small beside what is blended.

    Windows are weighed by the Gaussian of nnU-Net and divided by the sum of the weights. Where
    no window was placed, and outside the mask `inside` (z, y, x), all channels are 0, so that
    channel 0, background, wins.

    plan        of the volume padded to a patch at least
    codes       what the plan is shown: as in Patches; None: nothing, as it does not look
    ones, half  as in Patches
    """
    shape: Shape = volume.shape[1:]
    before = [n for n, _ in padding(shape, patch)]
    size = padded(shape, patch)
    weights = xp.asarray(gaussian(patch))
    blended: Sums | None = None
    base = 0  # the plane of the padded volume that is plane 0 of it

    def finished(blended: Sums, planes: int) -> Iterator[Slab]:
        """The first planes of what is blended, divided by their weights."""
        for start, end in portions(blended, base, base + planes):
            mask = None if inside is None else xp.asarray(inside[start:end])
            yield start, blended.handed_on(slice(start - base, end - base), mask)  # where planes are padded, base is 0

    def skipped(blended: Sums, low: int, high: int) -> Iterator[Slab]:
        """Zeros from one plane of the padded volume to another."""
        for start, end in portions(blended, low, high):
            yield start, xp.zeros((blended.channels, end - start, *shape[1:]), xp.float32)

    def portions(blended: Sums, low: int, high: int) -> Iterator[tuple[int, int]]:
        """First and last plane of slabs, counted in the volume, between two planes of the padded volume."""
        low, high = (min(max(at - before[0], 0), shape[0]) for at in (low, high))
        planes = max(AT_ONCE // ((len(blended.held) - 1) * shape[1] * shape[2]), 1)
        for start in range(low, high, planes):
            yield start, min(start + planes, high)

    group = next(plan, None)
    while group is not None:
        seen = []
        for z, y, x in group:
            start = [at - n for at, n in zip((z, y, x), before, strict=True)]
            answer = network(cut(volume, start, patch, xp)[None])[0]
            if blended is None:
                planes = (min(patch[0], shape[0]), *shape[1:])
                blended = (
                    HalfSums(answer, planes, weights, half, xp) if half else Sums(answer, planes, weights, ones, xp)
                )
            if z > base:
                yield from finished(blended, min(z - base, patch[0]))
                yield from skipped(blended, base + patch[0], z)
                blended.advance(min(z - base, patch[0]))
                base = z
            if codes is not None:
                seen.append(codes(blended.of_one(answer[:, :: THIN[0], :: THIN[1], :: THIN[2]]), xp))
            # Without the padding: `there` of the volume, `own` of the window; along z that is all that is blended.
            there = [slice(max(at, 0), min(at + n, m)) for at, n, m in zip(start, patch, shape, strict=True)]
            z_own, y_own, x_own = (
                slice(part.start - at, part.stop - at) for part, at in zip(there, start, strict=True)
            )
            blended.add(answer, (z_own, y_own, x_own), there[1], there[2])
        try:
            group = plan.send(seen)
        except StopIteration:
            group = None
    if blended is not None:
        yield from finished(blended, patch[0])
        yield from skipped(blended, base + patch[0], size[0])
