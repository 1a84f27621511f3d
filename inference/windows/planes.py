"""Windows as wide as what is looked at, of a network that takes any size: it has no norms, and what it says of a voxel
depends on its surroundings alone.

Windows lie above each other in columns, one column where memory allows planes as wide as that. A column is finished
before the next begins: no more logits are held than one window has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np

from ..arrays import Array, Network, copy
from ..boxes import Box, Shape, clipped, grown, shape_of, shifted
from .layout import SIGMA, Part, Slab, cut, halfway, padded, padding, starts

BLENDED = 5  # planes on either side of the middle between two windows: beyond, one has nearly all of the weight
SHARED = 16  # planes that two wide windows share at least: what lies at the end of one is in the middle of the other
# Planes: windows of fewer are wanted less than windows of a part of the plane, and a scan of fewer is padded, as in
# training and by nnU-Net. Without that a slab of 16 planes lost 1.4 points of mean organ DSC.
SHALLOW = 32


@dataclass(frozen=True)
class Planes:
    """Windows over a box of a volume.

    box     of the volume; as large as a window at least, where the volume is
    window  voxels (z, y, x)
    step    distance of windows in the plane, as a share of one, where it takes several; along z `wide_grid` says
    """

    box: Box
    window: Shape
    step: float

    @classmethod
    def over(cls, box: Box, volume: Shape, window: Shape, step: float) -> Planes:
        """Over as much of a volume of this shape around `box` as makes room for a window."""
        return cls(grown(box, window, volume), window, step)

    def parts(self, volume: Array, network: Network, inside: np.ndarray | None, xp: Any) -> Iterator[Part]:
        """The columns. Logits are 0 outside the mask `inside` (z, y, x), and a slab holds until the next is asked for.

        A column holds the voxels that are nearest to its own centre, and the first of the next column after them,
        as its own windows show these: whatever lies between two voxels of the volume lies in a column.
        """
        size, origin = shape_of(self.box), [part.start for part in self.box]
        before = [n for n, _ in padding(size, self.window)]
        zs, ys, xs = wide_grid(padded(size, self.window), self.window, self.step)
        for (y, rows), (x, columns) in product(_stretches(ys, self.window[1]), _stretches(xs, self.window[2])):
            # All in voxels of the volume from here on.
            by = [at - n for at, n in zip(origin, before, strict=True)]
            covers = clipped(shifted((slice(0, zs[-1] + self.window[0]), rows, columns), by), self.box)
            corners = [(z + by[0], y + by[1], x + by[2]) for z in zs]
            column = wide_slabs(volume, network, corners, self.window, xp, inside)
            yield covers, _within(covers, corners[0], column)


def _within(covers: Box, corner: Shape, slabs: Iterator[Slab]) -> Iterator[Slab]:
    """Of slabs as wide as the windows of a column, the first of which has this corner, what lies in a box."""
    z, y, x = covers
    _, top, left = corner
    for start, logits in slabs:
        first, last = max(start, z.start), min(start + logits.shape[1], z.stop)
        if first < last:
            planes = slice(first - start, last - start)
            yield first - z.start, logits[:, planes, y.start - top : y.stop - top, x.start - left : x.stop - left]


def wide_slabs(
    volume: Array,
    network: Network,
    corners: list[tuple[int, int, int]],
    window: Shape,
    xp: Any,
    inside: np.ndarray | None,
) -> Iterator[Slab]:
    """Logits (k, planes, y, x) of windows that lie above each other, in slabs that ascend in z.

    Windows are blended about the middle of their overlap along z, which is where nnU-Net's Gaussian weights leave
    both a share; outside the mask `inside` (z, y, x) all channels are 0. A slab holds until the next one is asked for.
    """
    below: Array = None  # planes of the window before that are not handed on yet, from `low` on
    low = corners[0][0]
    for index, corner in enumerate(corners):
        z = corner[0]
        logits = network(cut(volume, corner, window, xp)[None])[0]
        if inside is not None:
            logits *= xp.asarray(cut(inside, corner, window, np))
        if below is not None:
            _blend(below, low, logits, z, SIGMA * window[0])
        if index + 1 < len(corners):
            edge, reach = _seam(z + window[0], corners[index + 1][0])
            yield low, logits[:, low - z : edge - reach - z]
            low = edge - reach
            below = copy(logits[:, low - z :])  # since the network's next answer may overwrite this one
        else:
            yield low, logits[:, low - z :]


def _seam(end: int, start: int) -> tuple[int, int]:
    """Between a window that ends before plane `end` and one from `start` on: the middle of their overlap, and how
    many planes on either side of it are blended."""
    overlap = end - start
    return start + overlap // 2, min(BLENDED, overlap // 2)


def _blend(below: Array, low: int, above: Array, start: int, sigma: float) -> None:
    """Blend into `above`, whose first plane is `start`, the planes of `below`, whose first is `low`.

    The share of either is that of nnU-Net's Gaussian weights, whose logarithms differ linearly along z.
    """
    end = low + below.shape[1]
    edge, reach = _seam(end, start)
    apart, middle = start + above.shape[1] - end, (start + end) / 2
    for plane in range(edge - reach, edge + reach):
        share = np.float32(1 / (1 + np.exp(-apart / sigma**2 * (plane - middle))))
        target = above[:, plane - start]
        target *= float(share)
        target += float(1 - share) * below[:, plane - low]


def _stretches(starts: list[int], window: int) -> Iterator[tuple[int, slice]]:
    """For windows along an axis: where each starts, and the stretch of the axis that is nearest to its centre, with
    the first voxel of the next one's."""
    for index, start in enumerate(starts):
        low = halfway(starts[index - 1], start, window) if index else 0
        high = halfway(start, starts[index + 1], window) + 1 if index + 1 < len(starts) else start + window
        yield start, slice(low, high)


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
    y, x = (min(step, 1 - 1 / n) for n in window[1:])  # a voxel that two columns share
    steps = (1 - _shared(window[0]) / window[0], y, x)
    return [starts(size, n, along) for size, n, along in zip(shape, window, steps, strict=True)]


def _shared(depth: int) -> int:
    """Planes that windows of this depth share at least."""
    return min(SHARED, depth // 2)


def _rounded_up(n: int, multiple: int) -> int:
    return ceil(n / multiple) * multiple
