"""Where the network looks: window plans and the weights by which windows are blended.

A plan is a generator. It yields a group of window corners (z, y, x) and is sent, for each, what
the network saw there: the winning channel on every THIN-th voxel of the window. Groups come in
the order of z, which lets the runner finish the volume slab by slab.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise, product
from math import ceil, inf

import numpy as np

from ..arrays import Array
from ..boxes import Box, Shape

Corner = tuple[int, int, int]
Plan = Generator[list[Corner], list[Array], None]

THIN = (2, 4, 4)  # of a window, every so many voxels are shown to the plan: 1/32 of them decide as well
SIGMA = 1 / 8  # of the patch: nnU-Net's compute_gaussian
PEAK = 10  # nnU-Net's value_scaling_factor: keeps the smallest float16 weights above zero
SHARED = 16  # planes that two wide windows share at least: what lies at the end of one is in the middle of the other
# Planes: windows of fewer are wanted less than windows of a part of the plane, and a scan of fewer is padded, as in
# training and by nnU-Net. Without that a slab of 16 planes lost 1.4 points of mean organ DSC.
SHALLOW = 32
FOUND = 1 / 400  # of a window's voxels are foreground: 2,000 of the student's; FLARE 2022's winner asks for 1,000


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


def starts(size: int, window: int, step: float) -> list[int]:
    """First voxels of the windows along one axis; nnU-Net's compute_steps_for_sliding_window.

    Windows are at most step * window apart and evenly spread. Raises ValueError unless
    0 < step <= 1 and size >= window.
    """
    if not 0 < step <= 1:
        raise ValueError(f"step {step} is not above 0 and at most 1")
    if size < window:
        raise ValueError(f"size {size} is smaller than the window {window}")
    count = ceil((size - window) / (window * step)) + 1
    apart = (size - window) / (count - 1) if count > 1 else 0
    return [int(np.round(apart * index)) for index in range(count)]


def grid(shape: Shape, patch: Shape, step: float, box: Box | None = None) -> list[list[int]]:
    """Window starts along z, y and x of a volume of `shape` >= `patch`, as nnU-Net places them.

    Of these, with a `box`, the ones to which some of it belongs: a voxel belongs to the window whose
    centre is nearest, so that inside the box the network sees just what the dense plan shows it.
    """
    axes = [starts(size, window, step) for size, window in zip(shape, patch, strict=True)]
    if box is None:
        return axes
    return [_meeting(along, window, part) for along, window, part in zip(axes, patch, box, strict=True)]


def halfway(first: int, second: int, window: int) -> int:
    """The plane from which on a voxel is nearer to the centre of the window that starts at `second`."""
    return (first + second + window) // 2


def wide_window(shape: Shape, multiple: Shape, depth: int, step: float, most: int) -> Shape:
    """The window of a network that takes any: planes as wide as `shape`, at most `depth` of them.

    All axes are multiples of `multiple`. Of windows that share SHARED planes it is the fewest, and those no deeper
    than they must be, but SHALLOW planes if `depth` allows. Where SHALLOW planes have over `most` voxels, they are cut
    into as many windows as it takes, which overlap as `step` says.
    """
    y, x = (_rounded_up(n, m) for n, m in zip(shape[1:], multiple[1:], strict=True))
    needed = _rounded_up(min(depth, SHALLOW), multiple[0])
    planes = max(shape[0], needed)
    rows = columns = 1
    while needed * y * x > most and (y, x) != multiple[1:]:
        if y > x:
            rows += 1
            y = _rounded_up(ceil(shape[1] / (1 + step * (rows - 1))), multiple[1])
        else:
            columns += 1
            x = _rounded_up(ceil(shape[2] / (1 + step * (columns - 1))), multiple[2])
    deepest = max(min(depth, most // (y * x)) // multiple[0] * multiple[0], needed)
    shared = _shared(deepest)
    count = ceil((planes - shared) / (deepest - shared)) if planes > deepest else 1
    return _rounded_up(ceil((planes + (count - 1) * shared) / count), multiple[0]), y, x


def wide_grid(shape: Shape, window: Shape, step: float) -> list[list[int]]:
    """Starts of wide windows along z, where they share at least SHARED planes, and along y and x, as `step` says."""
    steps = (1 - _shared(window[0]) / window[0], step, step)
    return [starts(size, n, along) for size, n, along in zip(shape, window, steps, strict=True)]


def _shared(depth: int) -> int:
    """Planes that windows of this depth share at least."""
    return min(SHARED, depth // 2)


def _rounded_up(n: int, multiple: int) -> int:
    return ceil(n / multiple) * multiple


def _meeting(along: list[int], window: int, part: slice) -> list[int]:
    """The windows whose own stretch of the axis, up to halfway to their neighbours, meets `part`."""
    halfway = [(a + b + window) / 2 for a, b in pairwise(along)]
    stretches = zip(along, [-inf, *halfway], [*halfway, inf], strict=True)
    return [start for start, low, high in stretches if part.start < high and part.stop > low]


def dense_plan(shape: Shape, patch: Shape, step: float, box: Box | None = None) -> Plan:
    """Every window over `box` (default: the whole volume), placed and ordered as nnU-Net does."""
    zs, ys, xs = grid(shape, patch, step, box)
    for corner in product(zs, ys, xs):
        yield [corner]


def abdomen_plan(shape: Shape, patch: Shape, step: float, box: Box) -> Plan:
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
        if ring and sum(int((labels > 0).sum()) for labels in seen) >= FOUND * seen[0].size:
            yield ring


def _middle(values: Sequence[int]) -> Sequence[int]:
    """The one middle value, or the two."""
    return values[(len(values) - 1) // 2 : len(values) // 2 + 1]
