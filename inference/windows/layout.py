"""What the layouts of windows share: where windows start, and how one is cut out of a volume.

A layout takes a volume and yields its parts, each with the logits of all of it in slabs that ascend in z, counted in
the volume's own voxels. Volumes smaller than a window are padded and unpadded here, window by window, without a copy
of the volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, inf
from typing import Any

import numpy as np

from ..arrays import Array
from ..boxes import Box, Shape

SIGMA = 1 / 8  # of the patch: nnU-Net's compute_gaussian
Slab = tuple[int, Array]  # first plane, logits (k, planes, y, x) float32
Part = tuple[Box, Iterator[Slab]]  # a box of the volume, and slabs as wide as it: from its first plane to its last
Padding = tuple[tuple[int, int], ...]  # voxels before and after each axis


def padding(shape: Sequence[int], window: Sequence[int]) -> Padding:
    """Voxels to add before and after each axis so that a window fits; nnU-Net's pad_nd_image."""
    missing = [max(n - size, 0) for size, n in zip(shape, window, strict=True)]
    return tuple((m // 2, m - m // 2) for m in missing)


def padded(shape: Shape, window: Shape) -> Shape:
    z, y, x = (max(size, n) for size, n in zip(shape, window, strict=True))
    return z, y, x


def cut(volume: Array, start: Sequence[int], shape: Sequence[int], xp: Any) -> Array:
    """The window of a volume (..., z, y, x) that starts at a voxel, which may lie before the first: contiguous, zeros
    where there is no volume."""
    sizes = volume.shape[-3:]
    there = [slice(max(at, 0), min(at + n, size)) for at, n, size in zip(start, shape, sizes, strict=True)]
    part = volume[(..., *there)]
    if part.shape[-3:] == tuple(shape):
        return xp.ascontiguousarray(part)
    window = xp.zeros((*volume.shape[:-3], *shape), volume.dtype)
    window[(..., *(slice(p.start - at, p.stop - at) for p, at in zip(there, start, strict=True)))] = part
    return window


def starts(size: int, window: int, step: float) -> list[int]:
    """First voxels of the windows along one axis; nnU-Net's compute_steps_for_sliding_window.

    Windows are at most step * window apart, but one voxel at least, and evenly spread. Raises ValueError unless
    0 < step <= 1 and size >= window.
    """
    if not 0 < step <= 1:
        raise ValueError(f"step {step} is not above 0 and at most 1")
    if size < window:
        raise ValueError(f"size {size} is smaller than the window {window}")
    count = ceil((size - window) / max(window * step, 1)) + 1
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


def _meeting(along: list[int], window: int, part: slice) -> list[int]:
    """The windows whose own stretch of the axis, up to halfway to their neighbours, meets `part`."""
    halfway = [(a + b + window) / 2 for a, b in pairwise(along)]
    stretches = zip(along, [-inf, *halfway], [*halfway, inf], strict=True)
    return [start for start, low, high in stretches if part.start < high and part.stop > low]
