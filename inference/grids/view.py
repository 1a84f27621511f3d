"""A scan as one network sees it, and the way back: stored -> turned -> cropped -> seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import TypeVar

import numpy as np

from ..boxes import Box, Shape, clipped, joined, shape_of, whole
from ..card import Card
from ..scan import FEWEST, Grid, Scan, Spacing, times, turn, turned
from .resize import resampled_shape

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class View:
    """Axes are (z, y, x) of the network, except where "stored" is said.

    stored   the scan's own grid
    axes     for each axis of the network the stored axis that it is
    flips    whether it runs the other way
    crop     what of the turned scan is not 0
    spacing  mm, at which the network sees it
    shape    of what it sees
    """

    stored: Grid
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    crop: Box
    spacing: Spacing
    shape: Shape

    @classmethod
    def of(cls, scan: Scan, card: Card) -> View:
        """How the network of a card sees a scan."""
        axes, flips = _turned(scan.grid, card)
        crop = nonzero_box([turned(channel, axes, flips) for channel in scan.channels])
        return cls(scan.grid, axes, flips, crop, *_seen(scan.grid, axes, shape_of(crop), card))

    @property
    def own_spacing(self) -> Spacing:
        """mm, of the scan's voxels."""
        z, y, x = (self.stored.spacing[axis] for axis in self.axes)
        return z, y, x

    def turned(self, stored: np.ndarray) -> np.ndarray:
        """A view of an array (..., z, y, x) on the stored grid, in the network's axes."""
        return turned(stored, self.axes, self.flips)

    def cropped(self, stored: np.ndarray) -> np.ndarray:
        """The part of `turned` where the scan is not 0."""
        return self.turned(stored)[(..., *self.crop)]

    def box(self, stored: Box, margin: float) -> Box:
        """A box of the stored grid, which meets `crop`, as one of what the network sees, with mm around it."""
        sizes = [self.stored.shape[axis] for axis in self.axes]
        z, y, x = (
            slice(size - stored[axis].stop, size - stored[axis].start) if flip else stored[axis]
            for axis, flip, size in zip(self.axes, self.flips, sizes, strict=True)
        )
        box = []
        meets = clipped((z, y, x), self.crop)
        for part, crop, n, mm in zip(meets, self.crop, self.shape, self.spacing, strict=True):
            own = crop.stop - crop.start
            low = floor((part.start - crop.start) * n / own - margin / mm)
            high = ceil((part.stop - crop.start) * n / own + margin / mm)
            box.append(slice(max(low, 0), min(high, n)))
        return box[0], box[1], box[2]


def most_seen(grid: Grid, card: Card) -> tuple[Shape, Spacing, Shape]:
    """Of a scan whose voxels are not known: its shape and spacing as the network has its axes, and the shape of what
    the network sees at most, which is all of it."""
    axes, _ = _turned(grid, card)
    own = _along(grid.shape, axes)
    return own, _along(grid.spacing, axes), _seen(grid, axes, own, card)[1]


def too_thin(grid: Grid, cards: Sequence[Card]) -> list[str]:
    """A warning for each network in whose windows a scan on this grid is next to nothing: as in nnU-Net, zeros fill
    them up."""
    odd = []
    for card in cards:
        own, _, _ = most_seen(grid, card)
        if any(n < FEWEST <= side for n, side in zip(own, card.patch, strict=True)):
            odd.append(
                f"has only {times(own)} voxels, and network {card.name} sees {times(card.patch)} at once: "
                "is it for scans so thin?"
            )
    return odd


def _turned(grid: Grid, card: Card) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """`axes` and `flips` of a view."""
    axes, flips = turn(grid.orientation, card.orientation or grid.orientation)
    return _along(axes, card.axes), _along(flips, card.axes)


def _seen(grid: Grid, axes: tuple[int, int, int], crop: Shape, card: Card) -> tuple[Spacing, Shape]:
    """`spacing` and `shape` of a view whose crop has so many voxels."""
    own = _along(grid.spacing, axes)
    seen = own if card.resample.image.method == "none" else card.spacing_for(own)
    z, y, x = (max(n, 1) for n in resampled_shape(crop, own, seen))
    return seen, (z, y, x)


def _along(values: tuple[T, T, T], axes: tuple[int, int, int]) -> tuple[T, T, T]:
    return values[axes[0]], values[axes[1]], values[axes[2]]


def nonzero_box(channels: Sequence[np.ndarray]) -> Box:
    """The smallest box that holds every voxel other than 0 of any channel (z, y, x); the whole volume where all are 0.

    nnU-Net fills holes in the mask first, which does not change its box. Planes are peeled from
    the outside, so that a scan without a zero border, the usual one, costs six planes.
    """
    boxes = [box for channel in channels if (box := _nonzero(channel)) is not None]
    return joined(boxes) if boxes else whole(channels[0].shape)


def _nonzero(voxels: np.ndarray) -> Box | None:
    box = [slice(0, n) for n in voxels.shape]
    for axis in range(3):
        low, high = 0, voxels.shape[axis]
        planes = np.moveaxis(voxels[tuple(box)], axis, 0)
        while low < high and not planes[low].any():
            low += 1
        if low == high:
            return None
        while not planes[high - 1].any():
            high -= 1
        box[axis] = slice(low, high)
    return box[0], box[1], box[2]
