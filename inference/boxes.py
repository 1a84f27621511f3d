"""Boxes of voxels: half-open, axes (z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]


def whole(shape: Sequence[int]) -> Box:
    """All of a volume."""
    z, y, x = (slice(0, n) for n in shape)
    return z, y, x


def shape_of(box: Box) -> Shape:
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def bounding(mask: Any) -> Box | None:
    """The smallest box that holds everything other than 0 in a NumPy array (z, y, x); None if nothing is."""
    box = []
    for axis in range(3):
        planes = mask.any(axis=tuple(other for other in range(3) if other != axis)).nonzero()[0]
        if len(planes) == 0:
            return None
        box.append(slice(int(planes[0]), int(planes[-1]) + 1))
    return box[0], box[1], box[2]


def joined(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of some boxes."""
    z, y, x = (slice(min(p.start for p in parts), max(p.stop for p in parts)) for parts in zip(*boxes, strict=True))
    return z, y, x


def clipped(box: Box, within: Box) -> Box:
    """The part of a box that lies within another."""
    z, y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, within, strict=True))
    return z, y, x


def widened(box: Sequence[slice], by: int) -> tuple[slice, ...]:
    """A box with so many voxels more on each side, as far as there are any; it may end beyond the volume."""
    return tuple(slice(max(part.start - by, 0), part.stop + by) for part in box)


def shifted(box: Box, by: Sequence[int]) -> Box:
    """A box moved by so many voxels along each axis."""
    z, y, x = (slice(part.start + n, part.stop + n) for part, n in zip(box, by, strict=True))
    return z, y, x


def grown(box: Box, shape: Shape, volume: Shape) -> Box:
    """`box` with as much around it as makes it as large as `shape`, if the volume has that much."""
    out = []
    for part, n, size in zip(box, shape, volume, strict=True):
        missing = max(n - (part.stop - part.start), 0)
        start = min(max(part.start - missing // 2, 0), max(size - n, 0))
        out.append(slice(min(start, part.start), min(max(start + n, part.stop), size)))
    return out[0], out[1], out[2]
